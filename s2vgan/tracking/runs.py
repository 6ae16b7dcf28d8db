"""An MLflow run that a process keeps as it goes, such as a sweep's; see delivery for trainings."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2vgan.tracking.store import (
    connect,
    database_of,
    first_line,
    require_unlocked,
    tracking_uri,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

EXPERIMENT = "s2vgan"

_RETRY_SECONDS = 60.0  # after a failure, MLflow is left alone for so long
_METRICS_PER_BATCH = 1000  # MLflow refuses more
_PARAMS_PER_BATCH = 100
_DIGEST_LENGTH = 36  # of the digest column of MLflow's datasets

_log = logging.getLogger(__name__)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested configuration as MLflow parameters: ``{"train": {"lr_g": 1}}`` -> ``train.lr_g``."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = str(value)
    return flat


class Tracker:
    """One MLflow run. No failure of MLflow reaches the caller.

    The first failure is told in one sentence. If :meth:`start` failed, the run stays untracked
    and all else does nothing; metrics of a later outage are kept and sent when MLflow answers
    again.

    Attributes:
        uri: of the store.
        run_id: of the MLflow run; None before :meth:`start`, and if that failed.
    """

    def __init__(self, experiment: str = EXPERIMENT, uri: str | None = None) -> None:
        self.uri = uri or tracking_uri()
        self.run_id: str | None = None
        self._experiment = experiment
        self._client: MlflowClient | None = None
        self._pending: list[tuple[str, float, int, int]] = []  # metric, value, ms, step
        self._retry_at = 0.0
        self._warned = False

    def start(
        self,
        run_name: str,
        config: Mapping[str, Any],
        tags: Mapping[str, str] | None = None,
        parent: str | None = None,
        run_id: str | None = None,
    ) -> str | None:
        """Open a run, or go on with one.

        Args:
            run_name: shown in the UI.
            config: parameters, nested or flat.
            tags: such as ``run_folder``; ``git_commit`` is shown as the run's source version.
            parent: id of the run that this one is shown below (a sweep's).
            run_id: of a run to go on with; its parameters stay as they are. If the store does not
                know it (any more), a new run is opened.

        Returns:
            The run's id, or None if MLflow failed.
        """

        def begin(client: "MlflowClient") -> None:
            if run_id is not None and _reopen(client, run_id):
                self.run_id = run_id
                return
            labels = labels_of(tags or {}, parent)
            experiment = experiment_id(client, self.uri, self._experiment)
            run = client.create_run(experiment, run_name=run_name, tags=labels)
            self.run_id = run.info.run_id
            log_params(client, run.info.run_id, flatten(config))

        self._attempt(begin)
        return self.run_id

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Log numbers at a step."""
        if self.run_id is None:
            return
        now = int(time.time() * 1000)
        self._pending += [(name, float(value), now, step) for name, value in metrics.items()]
        self._send()

    def log_input(
        self, sha256: str, name: str, source: str = "", context: str = "training"
    ) -> None:
        """Name the dataset of the run.

        Args:
            sha256: the dataset's identity (of dataset.json); kept whole in the tag ``dataset``.
            name: shown in the UI.
            source: path or URL of the dataset.
            context: what the run uses it for.
        """
        if self.run_id is None:
            return
        run_id = self.run_id
        self._attempt(lambda client: log_dataset(client, run_id, sha256, name, source, context))

    def log_files(self, *paths: Path) -> None:
        """Store files with the run."""
        if self.run_id is not None:
            run_id = self.run_id

            def store(client: "MlflowClient") -> None:
                for path in paths:
                    client.log_artifact(run_id, str(path))

            self._attempt(store)

    def set_tag(self, name: str, value: str) -> None:
        """Set a tag of the run."""
        if self.run_id is not None:
            run_id = self.run_id
            self._attempt(lambda client: client.set_tag(run_id, name, value))

    def finish(self, status: str = "FINISHED") -> None:
        """Send what is left and close the run as FINISHED, FAILED or KILLED."""
        if self.run_id is not None:
            run_id = self.run_id
            self._retry_at = 0.0  # the last chance
            self._send()
            self._attempt(lambda client: client.set_terminated(run_id, status))

    def close_children(self) -> None:
        """Close as KILLED the runs below this one whose process did not live to close them."""
        if self.run_id is None:
            return
        parent = self.run_id

        def close(client: "MlflowClient") -> None:
            experiment = experiment_id(client, self.uri, self._experiment)
            query = f"tags.mlflow.parentRunId = '{parent}' and attributes.status = 'RUNNING'"
            for run in client.search_runs([experiment], query):
                client.set_terminated(run.info.run_id, "KILLED")

        self._attempt(close)

    def _send(self) -> None:
        def send(client: "MlflowClient") -> None:
            from mlflow.entities import Metric

            while self._pending:
                part = self._pending[:_METRICS_PER_BATCH]
                client.log_batch(str(self.run_id), metrics=[Metric(*item) for item in part])
                del self._pending[: len(part)]

        self._attempt(send)

    def _attempt(self, action: "Callable[[MlflowClient], object]") -> None:
        """Do something with MLflow unless it failed a moment ago; never raise."""
        if time.monotonic() < self._retry_at:
            return
        try:
            require_unlocked(self.uri)
            if self._client is None:
                self._client = connect(self.uri)
            action(self._client)
        except Exception as error:  # whatever MLflow or its database raise, training goes on
            self._retry_at = time.monotonic() + _RETRY_SECONDS
            if not self._warned:
                self._warned = True
                _log.warning(
                    "MLflow at %s cannot be written (%s); the work goes on without it.",
                    self.uri,
                    first_line(error),
                )


def _reopen(client: "MlflowClient", run_id: str) -> bool:
    """Whether the store knows the run, which is then running again."""
    from mlflow.exceptions import MlflowException

    try:
        client.update_run(run_id, status="RUNNING")
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return True


def labels_of(tags: Mapping[str, str], parent: str | None) -> dict[str, str]:
    """Tags with MLflow's own names for the commit and for the run that this one is below."""
    from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT, MLFLOW_PARENT_RUN_ID

    labels = dict(tags)
    if commit := labels.get("git_commit"):
        labels[MLFLOW_GIT_COMMIT] = commit
    if parent:
        labels[MLFLOW_PARENT_RUN_ID] = parent
    return labels


def log_params(client: "MlflowClient", run_id: str, params: Mapping[str, str]) -> None:
    """Log any number of parameters."""
    from mlflow.entities import Param

    items = [Param(key, value) for key, value in params.items()]
    for part in range(0, len(items), _PARAMS_PER_BATCH):
        client.log_batch(run_id, params=items[part : part + _PARAMS_PER_BATCH])


def log_metrics(client: "MlflowClient", run_id: str, metrics: "Sequence[Metric]") -> None:
    """Log any number of metrics."""
    for part in range(0, len(metrics), _METRICS_PER_BATCH):
        client.log_batch(run_id, metrics=metrics[part : part + _METRICS_PER_BATCH])


def log_dataset(
    client: "MlflowClient",
    run_id: str,
    sha256: str,
    name: str,
    source: str,
    context: str = "training",
) -> None:
    """Name the dataset of a run; see :meth:`Tracker.log_input`."""
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    dataset = Dataset(name, sha256[:_DIGEST_LENGTH], "local", source)
    tag = InputTag(MLFLOW_DATASET_CONTEXT, context)
    client.log_inputs(run_id, [DatasetInput(dataset, [tag])])
    client.set_tag(run_id, "dataset", sha256)


def experiment_id(client: "MlflowClient", uri: str, name: str) -> str:
    """Id of the experiment, which is made if need be; artifacts lie beside a SQLite store."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        database = database_of(uri)
        location = (database.parent / "mlartifacts" / name).as_uri() if database else None
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException as error:
            found = client.get_experiment_by_name(name)  # another process was faster
            if found is None:
                raise error
    return str(found.experiment_id)
