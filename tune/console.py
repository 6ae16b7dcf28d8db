"""A sweep and its terminal: a line for each trial, Ctrl-C, and a Ray Tune that is quiet."""

import contextlib
import logging
import os
import pickle
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray import tune
from ray.exceptions import RayActorError

from tune.search import METRIC, hopeless, point_of
from tune.space import trial_name

STATE_SECONDS = "2"  # between savings of Ray Tune's state


class Lines(tune.Callback):
    """One line for each trial that starts or ends."""

    def __init__(self, total: int, kinds: tuple[str, ...], takes: str, runs: Path) -> None:
        self._total, self._kinds, self._takes, self._runs = total, kinds, takes, runs

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Called by Ray Tune."""
        print(f"{self._name(trial)} starts: {self._takes}", flush=True)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Called by Ray Tune."""
        result = trial.last_result or {}
        reading = f"{METRIC} {result[METRIC]:.3f}" if METRIC in result else "no reading"
        sign = hopeless(self._runs / self._name(trial))
        what = f"ended at step {result.get('step', '?')}, {reading}"
        self._say(trials, trial, f"{what}. {sign}" if sign else what)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Called by Ray Tune when it starts a trial again, from the trial's last checkpoint.

        A process that died has its restarts; what raised an error will most likely raise it again,
        and has this one.
        """
        died = isinstance(_latest_error(trial), RayActorError)
        if not died:
            trial.max_failures = 0
        what = "lost its process" if died else "failed"
        print(f"{self._name(trial)} {what} and goes on from its last checkpoint", flush=True)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Called by Ray Tune."""
        self._say(trials, trial, "failed")

    def _say(self, trials: list[Any], trial: Any, what: str) -> None:
        """Those that ended before an interruption count, too."""
        ended = 1 + sum(other.is_finished() for other in trials if other is not trial)
        print(f"[{ended}/{self._total}] {self._name(trial)} {what}", flush=True)

    def _name(self, trial: Any) -> str:
        return trial_name(point_of(trial.config, self._kinds))


def _latest_error(trial: Any) -> Exception | None:
    """What a trial failed with; Ray Tune leaves it in a file that it does not read back so soon."""
    path = trial.pickled_error_file
    try:
        return pickle.loads(Path(path).read_bytes()) if path else None
    except Exception:  # an error of a class that is not known here
        return None


@contextlib.contextmanager
def interruptible() -> Iterator[threading.Event]:
    """Hand the first Ctrl-C on to Ray Tune as SIGUSR1, its signal to save and stop; set if so.

    Ray Tune's own handler of Ctrl-C tells nobody that there was one, and stays in place.
    """
    interrupted = threading.Event()
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGUSR1)

    def interrupt(*_: object) -> None:
        if interrupted.is_set():  # the second one stops at once
            raise KeyboardInterrupt
        interrupted.set()
        os.kill(os.getpid(), signal.SIGUSR1)

    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    signal.signal(signal.SIGUSR1, signal.default_int_handler)  # until Tune puts its own there
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGUSR1, before[1])


def quiet() -> None:
    """Leave the telling to :class:`Lines`; errors are in SWEEP/tune and in the table."""
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", STATE_SECONDS)
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the old one is silent where asked to be
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
