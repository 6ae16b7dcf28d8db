"""A Ray Tune sweep over both learning rates and GRU on or off; the winner becomes the champion.

    python tune/sweep.py --data DATA --out SWEEP --config conf/demo.yaml --minutes 5

Every trial is a Ray Train run in SWEEP/trials/NAME, below one MLflow run. The same command goes on
with a sweep that was interrupted: finished trials are not trained again, the others continue from
their last checkpoint.
"""

import argparse
import dataclasses
import functools
import json
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import ray
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback
from ray.tune.schedulers import ASHAScheduler

from s2vgan import artifact, cluster, tracking
from s2vgan.config import Config
from s2vgan.errors import ConfigError, RunError, S2VError
from s2vgan.runlog import read_log
from s2vgan.train import check, make_trainer

METRIC = "val/score"  # higher is better; defined in s2vgan/metrics
SHOWN = (METRIC, "val/mouth_r", "val/ssim", "val/l1")
REDUCTION = 3  # ASHA lets the best third of the trials pass each rung
SETTINGS_FILE, RESULT_FILE, STATE_FOLDER = "sweep.json", "trials.json", "tune"


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
    def space(self) -> dict[str, Any]:
        """The grid, for Ray Tune."""
        lists = {"lr_g": self.lr_g, "lr_d": self.lr_d, "kind": self.kinds}
        return {key: tune.grid_search(list(values)) for key, values in lists.items()}

    @property
    def size(self) -> int:
        """Number of trials."""
        return len(self.lr_g) * len(self.lr_d) * len(self.kinds)


@dataclass(frozen=True)
class Trial:
    """What became of one point of the grid.

    Attributes:
        name: of its run, a folder of SWEEP/trials.
        params: kind, lr_g and lr_d.
        status: done, early (stopped by the scheduler) or failed.
        step: of its latest reading.
        readings: the latest readings on held-out time; empty if there is none.
        reason: why it failed, in a sentence.
    """

    name: str
    params: dict[str, Any]
    status: Literal["done", "early", "failed"]
    step: int = 0
    readings: dict[str, float] = dataclasses.field(default_factory=dict)
    reason: str = ""


def trial_name(params: dict[str, Any]) -> str:
    """Name of a trial's run: what it tries, so that a restarted trial finds its own folder."""
    return f"{params['kind']}_g{params['lr_g']:g}_d{params['lr_d']:g}"


def trial_config(base: Config, params: dict[str, Any]) -> Config:
    """Configuration of a trial."""
    return dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, kind=params["kind"]),
        train=dataclasses.replace(base.train, lr_g=params["lr_g"], lr_d=params["lr_d"]),
    )


def run_trial(
    params: dict[str, Any],
    *,
    base: dict[str, Any],
    data: str,
    trials: str,
    workers: int,
    store: str,
    parent: str | None,
) -> None:
    """What Ray Tune runs for each trial: one Ray Train job.

    Args:
        params: the trial's point of the grid.
        base: configuration, as plain values.
        data: dataset.
        trials: folder of all trials' runs.
        workers: of Ray Train.
        store: MLflow URI.
        parent: the sweep's MLflow run.
    """
    config = trial_config(Config.from_dict(base), params)
    run = Path(trials) / trial_name(params)
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.json").write_text(json.dumps(config.to_dict(), indent=2) + "\n")
    # Without this callback the scheduler would see a trial's last reading only.
    callbacks = [TuneReportCallback()]
    trainer = make_trainer(
        config, data, run, workers, callbacks=callbacks, parent=parent, tracking=store
    )
    trainer.fit()
    shutil.rmtree(run / "ray", ignore_errors=True)  # the run's own checkpoints are what counts


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
        print(f"[{self._ended}/{self._total}] {trial_name(trial.config)} {what}", flush=True)


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
    for kind in sweep.kinds:  # refuse here what would fail in every trial
        params = {"kind": kind, "lr_g": sweep.lr_g[0], "lr_d": sweep.lr_d[0]}
        config = trial_config(sweep.config, params)
        info = check(config, sweep.data, folder, sweep.workers, resume=False)
    store = tracking.tracking_uri()
    tracker = tracking.Tracker(uri=store)
    parent = _parent_run(sweep, folder, tracker)
    tracker.log_input(info.sha256, Path(sweep.data).name, sweep.data)

    cluster.connect()
    slots = cluster.trial_slots(sweep.workers, gpu=ray.cluster_resources().get("GPU", 0) > 0)
    print(f"{sweep.size} trials, {slots} at a time, {sweep.workers} worker(s) each.", flush=True)
    trainable = tune.with_resources(
        functools.partial(
            run_trial,
            base=sweep.config.to_dict(),
            data=sweep.data,
            trials=str(folder / "trials"),
            workers=sweep.workers,
            store=store,
            parent=parent,
        ),
        {"CPU": cluster.TRIAL_CPU},
    )
    tuner = _tuner(sweep, folder, trainable, slots)
    try:
        results = tuner.fit()
    except BaseException:
        tracker.close_children()
        tracker.finish("KILLED")
        raise
    tracker.close_children()
    failed = {trial_name(item.config): item.error for item in results if item.error and item.config}
    trials = collect(sweep, folder, failed)
    best = next((trial for trial in trials if trial.readings), None)
    if best:
        tracker.log_metrics(best.readings, best.step)
        tracker.set_tag("winner", best.name)
    tracker.finish("FINISHED" if best else "FAILED")
    return trials


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
    folder.mkdir(parents=True, exist_ok=True)
    content = {"settings": wanted, "mlflow_run": parent}
    file.write_text(json.dumps(content, indent=2) + "\n")
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
        grace_period=min(train.evaluate_every, train.steps),
        reduction_factor=REDUCTION,
    )
    return tune.Tuner(
        trainable,
        param_space=sweep.space,
        tune_config=tune.TuneConfig(
            metric=METRIC, mode="max", scheduler=scheduler, max_concurrent_trials=slots
        ),
        run_config=tune.RunConfig(
            name=STATE_FOLDER,
            storage_path=str(folder),
            callbacks=[_Lines(sweep.size)],
            verbose=0,
        ),
    )


def collect(sweep: Sweep, folder: Path, failed: dict[str, BaseException]) -> list[Trial]:
    """Read every trial's own log: Ray Tune forgets the readings of a trial it had to restart.

    Args:
        sweep: the sweep.
        folder: SWEEP.
        failed: errors by trial's name.

    Returns:
        Trials, best first; those without a reading last.
    """
    trials = []
    for kind in sweep.kinds:
        for lr_g in sweep.lr_g:
            for lr_d in sweep.lr_d:
                params = {"kind": kind, "lr_g": lr_g, "lr_d": lr_d}
                run = folder / "trials" / trial_name(params)
                trials.append(_read_trial(run, params, sweep.config, failed.get(run.name)))
    return sorted(trials, key=lambda trial: -trial.readings.get(METRIC, float("-inf")))


def _read_trial(
    run: Path, params: dict[str, Any], config: Config, error: BaseException | None
) -> Trial:
    log = read_log(run)
    read = next((line for line in reversed(log) if METRIC in line), {})
    step = int(read.get("step", 0))
    if error is not None or not read:
        told = run / "error.txt"
        lines = str(error or "it gave no reading").strip().splitlines()
        reason = told.read_text() if told.is_file() else lines[-1]
        return Trial(run.name, params, "failed", step, {}, reason)
    train = config.train
    spent = train.minutes > 0 and read["seconds"] >= 60 * train.minutes
    readings = {name: value for name, value in read.items() if name.startswith("val/")}
    return Trial(
        run.name, params, "done" if spent or step >= train.steps else "early", step, readings
    )


def promote(trials: Sequence[Trial], out: str | Path) -> tuple[Trial, str | None]:
    """Register the best trial's model as the champion, and write SWEEP/trials.json.

    Returns:
        The winner, and its registered version; None where MLflow did not track the run.

    Raises:
        RunError: if no trial gave a model.
    """
    folder = Path(out).absolute()
    best = next((trial for trial in trials if trial.readings), None)
    if best is None:
        reasons = "; ".join(sorted({trial.reason for trial in trials}))
        raise RunError(f"{folder}: no trial gave a model ({reasons}).")
    model = artifact.find(folder / "trials" / best.name)
    mlflow_run = json.loads((model / "manifest.json").read_text())["mlflow_run"]
    file = folder / RESULT_FILE
    before = json.loads(file.read_text()) if file.is_file() else {}
    version: str | None = before.get("version")
    if before.get("winner") != best.name or version is None:
        version = tracking.register(model, mlflow_run, best.readings) if mlflow_run else None
    content = {
        "metric": METRIC,
        "winner": best.name,
        "model": str(model),
        "version": version,
        "trials": [dataclasses.asdict(trial) for trial in trials],
    }
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    temporary.replace(file)
    return best, version


def table(trials: Sequence[Trial]) -> str:
    """The trials as lines of text, best first."""
    width = max(len(trial.name) for trial in trials)
    head = f"{'trial':{width}}  {'status':6}  {'step':>6}" + "".join(f"  {m:>11}" for m in SHOWN)
    lines = [head]
    for trial in trials:
        numbers = "".join(
            f"  {trial.readings[name]:11.4f}" if name in trial.readings else f"  {'-':>11}"
            for name in SHOWN
        )
        lines.append(f"{trial.name:{width}}  {trial.status:6}  {trial.step:6}{numbers}")
    lines += [f"{trial.name} failed: {trial.reason}" for trial in trials if trial.reason]
    return "\n".join(lines)
