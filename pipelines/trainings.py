"""Trainings of an experiment: each in a process of its own, finished ones known again."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from s2vgan.cli import COMMANDS, config_of
from s2vgan.config import Config, changed_keys
from s2vgan.errors import RunError
from s2vgan.runlog import read_log, read_run

_POLL = 2.0  # seconds between readings of a run's log
_RESUMABLE = "checkpoints/step_*.pt"


@dataclass(frozen=True)
class Training:
    """One run of an experiment, by the arguments that ``s2vgan train`` is given.

    Attributes:
        run: its folder.
        data: dataset folder.
        arguments: of ``s2vgan train``, without --data, --out and --resume.
    """

    run: Path
    data: Path
    arguments: tuple[str, ...]

    @property
    def config(self) -> Config:
        """The configuration that the arguments make.

        Raises:
            ConfigError: if a value is out of range or two contradict.
        """
        parser = COMMANDS["train"][0]()
        given = ["--data", str(self.data), "--out", str(self.run), *self.arguments]
        return config_of(parser.parse_args(given))

    @property
    def log(self) -> Path:
        """File with what the training prints."""
        return self.run.with_name(f"{self.run.name}.log")

    @property
    def seconds(self) -> float:
        """Seconds of training that the run's log tells so far."""
        lines = read_log(self.run)
        return float(lines[-1]["seconds"]) if lines else 0.0

    def is_finished(self) -> bool:
        """Whether the folder holds this very run, trained to its end.

        Raises:
            RunError: if it holds a run of other data or another configuration.
        """
        about = read_run(self.run)
        if not about:
            return False
        stored = json.loads((self.run / "config.json").read_text())
        other = changed_keys(stored, self.config.to_dict())
        if about["data"] != str(self.data.absolute()):
            other.append("dataset")
        if other:
            raise RunError(
                f"{self.run}: holds a run with another {', '.join(other)}; give the settings of "
                "before, or choose another --out."
            )
        return bool(about["status"] == "FINISHED")

    def finish(self, follow: Callable[[float], None] = lambda seconds: None) -> None:
        """Train to the end, from the latest checkpoint if there is one.

        Args:
            follow: told every two seconds how many seconds of training are done.

        Raises:
            RunError: if the training fails; its last words and its log are named.
            KeyboardInterrupt: on Ctrl-C, after the training has written a checkpoint.
        """
        command = [sys.executable, "-m", "s2vgan.cli", "train", "--data", str(self.data)]
        command += ["--out", str(self.run), *self.arguments]
        if any(self.run.glob(_RESUMABLE)):
            command.append("--resume")
        self.run.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("w") as log:
            # A session of its own: Ctrl-C reaches it through us alone, and once.
            child = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                while child.poll() is None:
                    try:
                        child.wait(_POLL)
                    except subprocess.TimeoutExpired:
                        follow(self.seconds)
            except BaseException:
                child.send_signal(signal.SIGINT)
                child.wait()
                raise
        follow(self.seconds)
        if child.returncode:
            raise RunError(f"{self.run.name}: failed ({_last_line(self.log)}); see {self.log}.")


def _last_line(log: Path) -> str:
    lines: Sequence[str] = log.read_text(errors="replace").strip().splitlines() or ["no output"]
    return lines[-1].strip()
