"""A Ray Tune sweep over both learning rates and GRU on or off; the winner becomes the champion.

    python tune/sweep.py --data DATA --out SWEEP --config conf/demo.yaml --minutes 5

Every trial is a Ray Train run in SWEEP/trials/NAME, below one MLflow run. The same command goes on
with a sweep that was interrupted: finished trials are not trained again, the others continue from
their last checkpoint.
"""

import contextlib
import dataclasses
import functools
import itertools
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from jsonargparse import ActionConfigFile, ArgumentParser
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import ASHAScheduler

from s2vgan import cluster, tracking
from s2vgan.cli import config_of
from s2vgan.config import Config, LossConfig, ModelConfig, TrainConfig
from s2vgan.errors import ConfigError, S2VError
from s2vgan.files import write_text
from s2vgan.train import check, fit, make_trainer
from tune.trials import (
    METRIC,
    RESULT_FILE,
    RUNS_FOLDER,
    Trial,
    collect,
    is_champion,
    promote,
    table,
    trial_name,
)

REDUCTION = 3  # ASHA lets the best third of the trials pass each rung
GRACE = 3  # evaluations that every trial gets before the first rung
SETTINGS_FILE, STATE_FOLDER = "sweep.json", "tune"


@dataclass(frozen=True)
class Sweep:
    """What is tried, on what, and for how long.

    Attributes:
        config: of every trial, but for the fields below; its budget is one trial's.
        data: dataset folder or URL, absolute.
        lr_g: learning rates of the generator.
        lr_d: learning rates of the discriminator.
        kinds: of models; every pair of learning rates runs with each.
        workers: Ray Train workers of one trial.
    """

    config: Config
    data: str
    lr_g: tuple[float, ...] = (1e-4, 4e-4)
    lr_d: tuple[float, ...] = (1e-4, 4e-4)
    kinds: tuple[str, ...] = ("gru", "no_gru")
    workers: int = 1

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return values

    @property
    def points(self) -> list[dict[str, Any]]:
        """The grid: every pair of learning rates with every kind, the kinds side by side."""
        grid = itertools.product(self.lr_g, self.lr_d, self.kinds)
        return [{"lr_g": lr_g, "lr_d": lr_d, "kind": kind} for lr_g, lr_d, kind in grid]


def trial_config(base: Config, params: dict[str, Any]) -> Config:
    """Configuration of a trial."""
    return dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, kind=params["kind"]),
        train=dataclasses.replace(base.train, lr_g=params["lr_g"], lr_d=params["lr_d"]),
    )


def run_trial(
    space: dict[str, Any],
    *,
    base: dict[str, Any],
    data: str,
    runs: str,
    trials: int,
    workers: int,
    store: str,
    parent: str | None,
) -> None:
    """What Ray Tune runs for each trial: one Ray Train job.

    Args:
        space: the trial's point of the grid, under ``point``.
        base: configuration, as plain values.
        data: dataset.
        runs: folder of all trials' runs.
        workers: of Ray Train.
        trials: at a time.
        store: MLflow URI.
        parent: the sweep's MLflow run.
    """
    params = space["point"]
    config = trial_config(Config.from_dict(base), params)
    run = Path(runs) / trial_name(params)
    write_text(run / "config.json", json.dumps(config.to_dict(), indent=2) + "\n")
    # Without this callback the scheduler would see a trial's last reading only.
    callbacks = [TuneReportCallback()]
    trainer = make_trainer(
        config,
        data,
        run,
        workers,
        callbacks=callbacks,
        parent=parent,
        tracking=store,
        trials=trials,
    )
    fit(trainer, run)


class _Lines(tune.Callback):
    """One line for each trial that ends."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._ended = 0

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Called by Ray Tune."""
        result = trial.last_result or {}
        reading = f"{METRIC} {result[METRIC]:.3f}" if METRIC in result else "no reading"
        self._say(trial, f"ended at step {result.get('step', '?')}, {reading}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        """Called by Ray Tune."""
        self._say(trial, "failed")

    def _say(self, trial: Any, what: str) -> None:
        self._ended += 1
        print(
            f"[{self._ended}/{self._total}] {trial_name(trial.config['point'])} {what}", flush=True
        )


def run(sweep: Sweep, out: str | Path) -> list[Trial]:
    """Run a sweep, or go on with the one that the folder holds.

    Args:
        sweep: what to try.
        out: SWEEP, on storage that all workers share.

    Returns:
        All trials, best first; failed ones last.

    Raises:
        S2VError: if the settings or the dataset are unusable, or the folder holds another sweep.
    """
    folder = Path(out).absolute()
    if sweep.workers < 1:
        raise ConfigError(f"--workers {sweep.workers}: a trial needs at least 1.")
    if len({trial_name(params) for params in sweep.points}) < len(sweep.points):
        raise ConfigError("a learning rate or kind is given twice; give each once.")
    for params in sweep.points:  # refuse here what would fail in a trial
        config = trial_config(sweep.config, params)
        info = check(config, sweep.data, folder, sweep.workers, resume=False)
    share = sweep.config.train.held_out
    if not any(int(count * share) for count in info.groups.values()):
        raise ConfigError(
            f"{sweep.data}: too short to hold {share:.0%} out, which trials are compared on; "
            "extract more video or raise train.held_out."
        )
    tracker = tracking.Tracker()
    parent = _parent_run(sweep, folder, tracker)
    try:
        tracker.log_input(info.sha256, Path(sweep.data).name, sweep.data)
        results = _fit(sweep, folder, tracker.uri, parent)
    except BaseException:
        tracker.close_children()
        tracker.finish("KILLED")
        raise
    tracker.close_children()
    failed = {
        trial_name(item.config["point"]): item.error
        for item in results
        if item.error is not None and item.config is not None
    }
    trials = collect(sweep.points, folder, sweep.config.train, failed)
    best = next((trial for trial in trials if trial.readings), None)
    if best:
        tracker.log_metrics(best.readings, best.step)
        tracker.set_tag("winner", best.name)
    tracker.finish("FINISHED" if best else "FAILED")
    return trials


def _fit(sweep: Sweep, folder: Path, store: str, parent: str | None) -> list[tune.Result]:
    """The results of all trials.

    Raises:
        KeyboardInterrupt: on Ctrl-C, after Ray Tune has saved its state.
    """
    _quiet()
    cluster.connect()
    slots = cluster.trial_slots(sweep.workers, gpu=ray.cluster_resources().get("GPU", 0) > 0)
    print(
        f"{len(sweep.points)} trials, {slots} at a time, {sweep.workers} worker(s) each.",
        flush=True,
    )
    trainable = tune.with_resources(
        functools.partial(
            run_trial,
            base=sweep.config.to_dict(),
            data=sweep.data,
            runs=str(folder / RUNS_FOLDER),
            workers=sweep.workers,
            trials=slots,
            store=store,
            parent=parent,
        ),
        {"CPU": cluster.TRIAL_CPU},
    )
    with _interruptible() as interrupted:
        grid = _tuner(sweep, folder, trainable, slots).fit()
    if interrupted.is_set():
        raise KeyboardInterrupt
    return [grid[number] for number in range(len(grid))]


@contextlib.contextmanager
def _interruptible() -> Iterator[threading.Event]:
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


def _quiet() -> None:
    """Leave the telling to :class:`_Lines`; errors are in SWEEP/tune and in the table."""
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the old one is silent where asked to be
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)


def _parent_run(sweep: Sweep, folder: Path, tracker: tracking.Tracker) -> str | None:
    """Write SWEEP/sweep.json, or compare with it; the id of the sweep's MLflow run."""
    file = folder / SETTINGS_FILE
    known = json.loads(file.read_text()) if file.is_file() else {}
    wanted = sweep.to_dict()
    if known and known["settings"] != wanted:
        changed = [key for key, value in wanted.items() if known["settings"].get(key) != value]
        raise ConfigError(
            f"{folder}: holds a sweep with another {', '.join(changed)}; give the same settings "
            "to go on with it, or choose another --out."
        )
    parent = tracker.start(
        folder.name, wanted, {"sweep_folder": str(folder)}, run_id=known.get("mlflow_run")
    )
    content = {"settings": wanted, "mlflow_run": parent}
    write_text(file, json.dumps(content, indent=2) + "\n")
    return parent


def _tuner(sweep: Sweep, folder: Path, trainable: Any, slots: int) -> tune.Tuner:
    state = folder / STATE_FOLDER
    if tune.Tuner.can_restore(str(state)):
        print(f"Going on with the sweep in {folder}.", flush=True)
        return tune.Tuner.restore(
            str(state), trainable, resume_unfinished=True, restart_errored=True
        )
    train = sweep.config.train
    scheduler = ASHAScheduler(
        time_attr="step",
        max_t=train.steps + 1,  # a trial that reaches its last step ends by itself
        grace_period=min(GRACE * train.evaluate_every, train.steps),
        reduction_factor=REDUCTION,
    )
    return tune.Tuner(
        trainable,
        param_space={"point": tune.grid_search(sweep.points)},
        tune_config=tune.TuneConfig(
            metric=METRIC, mode="max", scheduler=scheduler, max_concurrent_trials=slots
        ),
        run_config=tune.RunConfig(
            name=STATE_FOLDER,
            storage_path=str(folder),
            callbacks=[_Lines(len(sweep.points))],
            verbose=0,
        ),
    )


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="tune/sweep.py",
        description="Try learning rates of G and D with and without GRU; register the best model "
        "as the champion. The same command goes on with a sweep that was interrupted.",
    )
    parser.add_argument("--data", type=str, required=True, help="dataset folder or URL")
    parser.add_argument("--out", type=Path, required=True, help="folder of the sweep")
    parser.add_argument(
        "--config", action=ActionConfigFile, help="YAML file; of several the later wins"
    )
    parser.add_argument(
        "--lr-g", type=float, nargs="+", default=list(Sweep.lr_g), help="rates of G"
    )
    parser.add_argument(
        "--lr-d", type=float, nargs="+", default=list(Sweep.lr_d), help="rates of D"
    )
    parser.add_argument(
        "--kinds", nargs="+", choices=Sweep.kinds, default=list(Sweep.kinds), help="of models"
    )
    parser.add_argument("--workers", type=int, default=1, help="Ray Train workers of one trial")
    parser.add_argument("--minutes", type=float, help="budget of one trial")
    parser.add_argument("--steps", type=int, help="budget of one trial")
    parser.add_class_arguments(ModelConfig, "model")
    parser.add_class_arguments(LossConfig, "loss")
    parser.add_class_arguments(TrainConfig, "train")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Sweep, register the winner and print the trials; 2 for what the user can mend."""
    arguments = _parser().parse_args(argv)
    try:
        data = arguments.data
        sweep = Sweep(
            config_of(arguments),
            data if "://" in data else str(Path(data).absolute()),
            tuple(arguments.lr_g),
            tuple(arguments.lr_d),
            tuple(arguments.kinds),
            arguments.workers,
        )
        trials = run(sweep, arguments.out)
        print(table(trials), flush=True)
        best, version = promote(trials, arguments.out)
    except S2VError as error:
        print(f"sweep: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sweep: interrupted; the same command goes on with it.", file=sys.stderr)
        return 130
    print(f"The best model is {best.name}, in {arguments.out / RUNS_FOLDER / best.name}.")
    if version:
        champion = f" and is now {tracking.CHAMPION}" if is_champion(version) else ""
        print(f"It was registered as models:/{tracking.MODEL}/{version}{champion}.")
    else:
        print(
            "It is not registered, since MLflow was not told of its run: give `s2vgan mlflow "
            f"--deliver {arguments.out / RUNS_FOLDER / best.name}`, then this command again."
        )
    print(f"All trials are in {arguments.out / RESULT_FILE} and in MLflow.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
