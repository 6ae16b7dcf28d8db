"""A trial: the Ray Train run that Ray Tune starts for it, and what became of it."""

import dataclasses
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from s2vgan import cluster
from s2vgan.config import Config, TrainConfig
from s2vgan.files import write_text
from s2vgan.runlog import read_log, read_run, update_run
from s2vgan.tracking import Delivery
from s2vgan.train import ERROR_FILE, fit, make_trainer
from tune.search import METRIC, hopeless, point_of
from tune.space import Point, trial_config, trial_name

RUNS_FOLDER, POINT_FILE = "trials", "point.json"

END_SECONDS: Final = "120"  # that a stopped trial may take to close its books

Status = Literal["done", "early", "stopped", "failed"]


def is_inside(workers: int) -> bool:
    """Whether a trial trains inside Ray Tune's own process for it, which later trials go on using.

    A single worker needs no other process; to start one, and Ray Train's controller, takes longer
    than a short trial.
    """
    return workers == 1


def resources(workers: int, slots: int) -> tuple[dict[str, float], str]:
    """What Ray Tune reserves for each trial, and what a trial takes in all, in words.

    Args:
        workers: of one trial.
        slots: trials at a time.
    """
    gpu = cluster.has_gpus(workers * slots)
    each = cluster.train_resources(workers, trials=slots, gpu=gpu)
    share = " and ".join(f"{amount:g} {name}" for name, amount in each.items())
    if is_inside(workers):
        return each, share
    beside = {"CPU": cluster.TRIAL_CPU}
    return beside, f"{workers} workers of {share}, and {cluster.TRIAL_CPU:g} CPU beside"


def run_trial(
    space: dict[str, Any],
    *,
    base: dict[str, Any],
    kinds: tuple[str, ...],
    data: str,
    runs: str,
    trials: int,
    workers: int,
    store: str,
    parent: str | None,
    consent: str,
) -> None:
    """What Ray Tune runs for each trial: one Ray Train job.

    Args:
        space: the trial's point, in Ray Tune's words for it.
        base: configuration, as plain values.
        kinds: of models.
        data: dataset.
        runs: folder of all trials' runs.
        trials: at a time.
        workers: of Ray Train.
        store: MLflow URI.
        parent: the sweep's MLflow run.
        consent: who consented that the face is learned.
    """
    point = point_of(space, kinds)
    config = trial_config(Config.from_dict(base), point)
    run = Path(runs) / trial_name(point)
    write_text(run / "config.json", json.dumps(config.to_dict(), indent=2) + "\n")
    write_text(run / POINT_FILE, json.dumps(point) + "\n")
    inside = is_inside(workers)
    # Ray Tune waits for the end of a stopped trial before it gives the process another one.
    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", END_SECONDS)
    trainer = make_trainer(
        config,
        data,
        run,
        0 if inside else workers,
        # Without these the scheduler would see a trial's last reading only.
        callbacks=[] if inside else [TuneReportCallback()],
        report=tune.report if inside else None,
        parent=parent,
        tracking=store,
        trials=trials,
        consent=consent,
    )
    fit(trainer, run)


@dataclass(frozen=True)
class Trial:
    """What became of one point.

    Attributes:
        name: of its run, a folder of SWEEP/trials.
        point: what it tried, by the names of fields.
        status: done: its budget is spent; early: the scheduler let better ones go on; stopped:
            more training would not have mended it; failed.
        step: of its latest reading.
        readings: the latest readings on held-out time; empty if there is none.
        reason: why it did not spend its budget, in a sentence; empty if it did.
    """

    name: str
    point: Point
    status: Status
    step: int = 0
    readings: dict[str, float] = dataclasses.field(default_factory=dict)
    reason: str = ""

    @property
    def score(self) -> float:
        """Of the latest reading; -1, below every score, if there is none."""
        return self.readings.get(METRIC, -1.0)


def started_points(folder: Path) -> list[Point]:
    """Points of the trials that have begun, by name; for a search that finds them as it goes."""
    files = sorted((folder / RUNS_FOLDER).glob(f"*/{POINT_FILE}"))
    return [json.loads(file.read_text()) for file in files]


def collect(
    points: Iterable[Point],
    folder: Path,
    budget: TrainConfig,
    failed: Mapping[str, BaseException],
) -> list[Trial]:
    """Read every trial's own log: Ray Tune forgets the readings of a trial that it restarts.

    Args:
        points: that were tried.
        folder: SWEEP.
        budget: of one trial.
        failed: errors by trial's name.

    Returns:
        Trials, best first; those without a reading last.
    """
    trials = [
        _read(folder / RUNS_FOLDER / trial_name(point), point, budget, failed) for point in points
    ]
    return sorted(trials, key=lambda trial: -trial.score)


def _read(
    run: Path, point: Point, budget: TrainConfig, failed: Mapping[str, BaseException]
) -> Trial:
    latest: dict[str, Any] = {}
    for line in read_log(run):
        if METRIC in line:
            latest = line
    if run.name in failed or not latest:
        told = run / ERROR_FILE  # where a worker leaves its sentence
        lines = str(failed.get(run.name, "it gave no reading")).strip().splitlines()
        reason = told.read_text() if told.is_file() else lines[-1]
        return Trial(run.name, point, "failed", latest.get("step", 0), reason=reason)
    readings = {name: value for name, value in latest.items() if name.startswith("val/")}
    spent = budget.minutes > 0 and latest["seconds"] >= 60 * budget.minutes
    status: Status = "done"
    reason = ""
    if not (spent or latest["step"] >= budget.steps):
        sign = hopeless(run)
        status = "stopped" if sign else "early"
        reason = sign or "the scheduler let better trials go on."
    return Trial(run.name, point, status, latest["step"], readings, reason)


def settle(trials: Sequence[Trial], folder: Path, store: str) -> None:
    """Close the books of the trials that Ray Tune ended, and tell MLflow how they ended.

    A trial that was stopped is finished, with its model: that was the sweep's decision. The
    tags ``sweep_status`` and ``sweep_reason`` of its MLflow run say so.

    Args:
        trials: of :func:`collect`.
        folder: SWEEP.
        store: MLflow URI.
    """
    for trial in trials:
        run = folder / RUNS_FOLDER / trial.name
        about = read_run(run)
        if not about:
            continue
        tags = about["tags"]  # of a trial that was stopped at its last step nothing is to be told
        if trial.status != "done":
            tags = tags | {"sweep_status": trial.status, "sweep_reason": trial.reason}
        status = "FAILED" if trial.status == "failed" else "FINISHED"
        if (tags, status) != (about["tags"], about["status"]):
            ended = about["ended"] or time.time_ns() // 1_000_000
            update_run(run, tags=tags, status=status, ended=ended, told=None)
            if warning := Delivery(run, store).attempt(last=True):
                print(warning, flush=True)
