"""What became of a sweep's trials: the table, and the winner's way to the registry."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from s2vgan import artifact, tracking
from s2vgan.config import TrainConfig
from s2vgan.errors import RunError
from s2vgan.files import write_text
from s2vgan.runlog import read_log, read_run

METRIC = "val/score"  # higher is better; defined in s2vgan/metrics
SHOWN = (METRIC, "val/mouth_r", "val/ssim", "val/l1")
RESULT_FILE, RUNS_FOLDER = "trials.json", "trials"


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


def collect(
    points: Iterable[dict[str, Any]],
    folder: Path,
    budget: TrainConfig,
    failed: Mapping[str, BaseException],
) -> list[Trial]:
    """Read every trial's own log: Ray Tune forgets the readings of a trial that it restarts.

    Args:
        points: of the grid.
        folder: SWEEP.
        budget: of one trial.
        failed: errors by trial's name.

    Returns:
        Trials, best first; those without a reading last.
    """
    trials = [
        _read(folder / RUNS_FOLDER / trial_name(params), params, budget, failed)
        for params in points
    ]
    return sorted(trials, key=lambda trial: -trial.readings.get(METRIC, float("-inf")))


def _read(
    run: Path, params: dict[str, Any], budget: TrainConfig, failed: Mapping[str, BaseException]
) -> Trial:
    latest: dict[str, Any] = {}
    for line in read_log(run):
        if METRIC in line:
            latest = line
    if run.name in failed or not latest:
        told = run / "error.txt"  # where a worker leaves its sentence
        lines = str(failed.get(run.name, "it gave no reading")).strip().splitlines()
        reason = told.read_text() if told.is_file() else lines[-1]
        return Trial(run.name, params, "failed", latest.get("step", 0), reason=reason)
    spent = budget.minutes > 0 and latest["seconds"] >= 60 * budget.minutes
    return Trial(
        run.name,
        params,
        "done" if spent or latest["step"] >= budget.steps else "early",
        latest["step"],
        {name: value for name, value in latest.items() if name.startswith("val/")},
    )


def promote(trials: Sequence[Trial], out: str | Path) -> tuple[Trial, str | None]:
    """Write SWEEP/trials.json, and register the best trial's model as the champion.

    The same winner is registered once in each MLflow store.

    Returns:
        The winner, and its registered version; None where MLflow did not track the run.

    Raises:
        RunError: if no trial gave a model, or MLflow refuses it; trials.json is then there.
    """
    folder = Path(out).absolute()
    best = next((trial for trial in trials if trial.readings), None)
    if best is None:
        reasons = "; ".join(sorted({trial.reason for trial in trials}))
        raise RunError(f"{folder}: no trial gave a model ({reasons}).")
    model = artifact.find(folder / RUNS_FOLDER / best.name)
    # Not the manifest's: a run that MLflow was told of late has its id in run.json alone.
    mlflow_run = read_run(folder / RUNS_FOLDER / best.name).get("mlflow_run")
    file = folder / RESULT_FILE
    before = json.loads(file.read_text()) if file.is_file() else {}
    store = tracking.tracking_uri()
    same = (before.get("winner"), before.get("mlflow")) == (best.name, store)
    content: dict[str, Any] = {
        "metric": METRIC,
        "winner": best.name,
        "model": str(model),
        "mlflow": store,
        "version": before["version"] if same else None,
        "trials": [dataclasses.asdict(trial) for trial in trials],
    }
    write_text(file, json.dumps(content, indent=2) + "\n")
    if content["version"] is None and mlflow_run:
        content["version"] = tracking.register(model, mlflow_run, best.readings)
        write_text(file, json.dumps(content, indent=2) + "\n")
    return best, content["version"]


def is_champion(version: str) -> bool:
    """Whether the champion is this version: it may have been registered before another."""
    try:
        return tracking.resolve(tracking.CHAMPION) == f"models:/{tracking.MODEL}/{version}"
    except RunError:
        return False


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
