"""A training's way to MLflow: what MLflow has not been told yet is read from the run's folder.

The folder is the truth. RUN/run.json remembers up to which step MLflow has been told; it is told at
checkpoints only, of nothing that comes after them, so that a resumed run never tells a step twice.
A delivery that breaks off is repeated whole. MLflow drops a metric that it has already, and they
are the same, for their times are those of training.
"""

import json
import re
import time
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2vgan.errors import RunError
from s2vgan.runlog import RUN_FILE, read_log, read_run, update_run
from s2vgan.tracking.runs import (
    EXPERIMENT,
    experiment_id,
    flatten,
    labels_of,
    log_dataset,
    log_metrics,
    log_params,
)
from s2vgan.tracking.store import connect, first_line, require_unlocked, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

SAMPLES, MODELS = "samples", ("model", "best")  # folders of a run

_PATIENCE = 10  # a MLflow that failed is left alone for so many times as long as that took
_STEP = re.compile(r"step_(\d+)\.")


class Delivery:
    """Delivers a run as it is trained. No failure of MLflow reaches the caller.

    An MLflow that is dead costs a tenth of the time at most.

    Attributes:
        warning: a sentence about the first failure; None before.
    """

    def __init__(self, run: Path, uri: str) -> None:
        self._run, self._uri = run, uri
        self._retry_at = 0.0
        self.warning: str | None = None

    def attempt(self, last: bool = False) -> str | None:
        """Deliver, unless MLflow failed a moment ago and there will be another chance.

        Returns:
            :attr:`warning` if this was the first failure.
        """
        started = time.monotonic()
        if started < self._retry_at and not last:
            return None
        try:
            _deliver(self._run, self._uri)
        except Exception as error:  # whatever MLflow or its database raise, training goes on
            now = time.monotonic()
            self._retry_at = now + _PATIENCE * (now - started)
            if self.warning is None:
                self.warning = (
                    f"MLflow at {self._uri} cannot be written ({first_line(error)}); training "
                    f"goes on. MLflow is told at a later evaluation, by --resume, or by `s2vgan "
                    f"mlflow --deliver {self._run}`."
                )
                return self.warning
        return None


def is_delivered(run: str | Path) -> bool:
    """Whether MLflow knows all that a run's folder holds up to its latest checkpoint."""
    about = read_run(run)
    return bool(about) and _is_told(about)


def deliver(run: str | Path, uri: str | None = None) -> str:
    """Tell MLflow what it does not know of a run yet.

    Args:
        run: its folder.
        uri: of the store, :func:`tracking_uri` by default.

    Returns:
        The id of the MLflow run.

    Raises:
        RunError: if there is no such run, or MLflow fails.
    """
    uri = uri or tracking_uri()
    if not read_run(run):
        raise RunError(f"{run}: no run here (no {RUN_FILE}); give the folder of a run.")
    try:
        return _deliver(Path(run).absolute(), uri)
    except RunError:
        raise
    except Exception as error:  # as above
        raise RunError(
            f"MLflow at {uri} cannot be written ({first_line(error)}); see that it is running and "
            "MLFLOW_TRACKING_URI is right, and try again."
        ) from error


def _is_told(about: Mapping[str, Any]) -> bool:
    told = about["told"]
    return bool(told) and told["status"] == about["status"] and told["step"] >= about["step"]


def _deliver(folder: Path, uri: str) -> str:
    require_unlocked(uri)
    client, about = connect(uri), read_run(folder)
    found = _find(client, about["mlflow_run"])
    if found is None:
        found = client.create_run(
            experiment_id(client, uri, EXPERIMENT),
            start_time=about["begun"],
            tags=labels_of(about["tags"], about["parent"]),
            run_name=about["name"],
        )
        about = update_run(folder, mlflow_run=found.info.run_id, told=None)
    run_id = str(found.info.run_id)
    if _is_told(about) and found.info.status == about["status"]:
        return run_id
    _describe(client, found, folder, about)
    after = about["told"]["step"] if about["told"] else -1
    log_metrics(client, run_id, _metrics(folder, about["begun"], after, about["step"]))
    for path in sorted((folder / SAMPLES).glob("*")):
        if (step := _STEP.match(path.name)) and after < int(step[1]) <= about["step"]:
            client.log_artifact(run_id, str(path), SAMPLES)
    if about["status"] == "RUNNING":
        client.update_run(run_id, status="RUNNING")
    else:
        for model in MODELS:
            if about["status"] == "FINISHED" and (folder / model).is_dir():
                client.log_artifact(run_id, str(folder / model))
        client.set_terminated(run_id, about["status"], about["ended"])
    update_run(folder, told={"step": max(after, about["step"]), "status": about["status"]})
    return run_id


def _find(client: "MlflowClient", run_id: str | None) -> "Run | None":
    """The MLflow run, if the store knows it (still)."""
    from mlflow.exceptions import MlflowException

    if run_id is None:
        return None
    try:
        found = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return found if found.info.lifecycle_stage == "active" else None


def _describe(client: "MlflowClient", found: "Run", folder: Path, about: Mapping[str, Any]) -> None:
    """Tell parameters, dataset and tags that MLflow does not know; it changes no parameter."""
    run_id, known = str(found.info.run_id), found.data
    params = flatten(json.loads((folder / "config.json").read_text()))
    missing = {name: value for name, value in params.items() if name not in known.params}
    log_params(client, run_id, missing)
    if "dataset" not in known.tags:
        log_dataset(client, run_id, about["dataset"], Path(about["data"]).name, about["data"])
    for name, value in about["tags"].items():
        if known.tags.get(name) != value:
            client.set_tag(run_id, name, value)


def _metrics(folder: Path, begun: int, after: int, until: int) -> "list[Metric]":
    """The log's numbers of steps after one and until another."""
    from mlflow.entities import Metric

    return [
        Metric(name, float(value), begun + round(1000 * line["seconds"]), line["step"])
        for line in read_log(folder)
        if after < line["step"] <= until
        for name, value in line.items()
        if name not in ("step", "seconds") and isinstance(value, Real)
    ]
