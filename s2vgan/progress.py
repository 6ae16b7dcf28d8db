"""The live line of a training: read from the run's log, so the same with and without Ray."""

import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from s2vgan.config import Config
from s2vgan.runlog import LogReader


class TrainingProgress:
    """A live line in the launcher, read from the run's log: the same with and without Ray."""

    def __init__(self, folder: Path, config: Config) -> None:
        self._train = config.train
        self._told: set[str] = set()
        self._log = LogReader(folder)
        lines = self._log.new()  # of before a resume
        self._old = [line for line in lines if "warnings" in line]
        self._before = (lines[-1]["step"], lines[-1]["seconds"]) if lines else (0, 0.0)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _tell(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Print the warnings that are new; one that comes again at each evaluation is told once.

        A kind of warning is known by what stands before its first colon, since its figures change.
        """
        for line in lines:
            if "warnings" not in line or line in self._old:
                continue
            for sentence in line["warnings"]:
                if (kind := sentence.partition(":")[0]) not in self._told:
                    self._told.add(kind)
                    tqdm.write(f"step {line['step']}: {sentence}", file=sys.stderr)

    def _follow(self) -> None:
        timed = self._train.minutes > 0
        total = 60 * self._train.minutes if timed else self._train.steps
        form = "{l_bar}{bar}| {n:.0f}/{total:.0f} {unit} [{elapsed}<{remaining}{postfix}]"
        unit = "s of training" if timed else "steps"
        pause = 1 if sys.stderr.isatty() else 20  # a log file wants few lines
        before = self._before[timed]
        latest: deque[dict[str, Any]] = deque(maxlen=3)
        with tqdm(total=total, unit=unit, bar_format=form, initial=before) as bar:
            while True:
                ended = self._ended.wait(pause)
                lines = self._log.new()
                self._tell(lines)
                latest.extend(lines)
                if lines:
                    last = lines[-1]
                    shown = {key: value for line in latest for key, value in line.items()}
                    names = (
                        "loss_d",
                        "loss_g",
                        "groups_per_second",
                        "val/mouth_r",
                        "pretrain_audio",
                    )
                    known = [f"{name} {shown[name]:.3g}" for name in names if name in shown]
                    bar.set_postfix_str(f"step {last['step']}, {', '.join(known)}", refresh=False)
                    bar.n = min(last["seconds"] if timed else last["step"], total)
                bar.refresh()
                if ended:
                    return
