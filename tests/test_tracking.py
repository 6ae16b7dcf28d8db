import json
import logging
import socket
from pathlib import Path

import pytest
from mlflow.store.artifact import artifact_repository_registry
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from s2vgan import tracking
from s2vgan.config import Config
from s2vgan.errors import RunError, ServiceError
from s2vgan.tracking.store import connect


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty store in a folder of its own."""
    uri = f"sqlite:///{tmp_path}/store/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("model.safetensors", "config.json", "MODEL_CARD.md"):
        (folder / name).write_text(f"content of {name}")
    (folder / "manifest.json").write_text(json.dumps({"name": "s2vgan"}))
    return folder


@pytest.mark.parametrize("given", [None, "", "sqlite:///mlflow.db", "sqlite:///./mlflow.db"])
def test_a_relative_database_means_the_same_from_any_folder(
    given: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if given is not None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    assert tracking.tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    assert not list(tmp_path.iterdir()), "asking for the URI makes nothing"


@pytest.mark.parametrize("given", ["http://host:5000", "sqlite:////data/mlflow.db"])
def test_any_other_uri_is_left_alone(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    assert tracking.tracking_uri() == given


def test_what_a_run_holds(store: str, tmp_path: Path) -> None:
    tracker = tracking.Tracker()
    sha256 = "0123456789abcdef" * 4
    run_id = tracker.start("first", Config().to_dict(), {"git_commit": "c0ffee", "run_folder": "r"})
    assert run_id is not None
    for step in (10, 20):
        tracker.log_metrics({"val/score": step / 100, "loss_g": 1.0}, step)
    tracker.log_input(sha256, "demo", str(tmp_path))
    tracker.finish()

    client = connect(store)
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params["train.lr_g"] == "0.0002"
    assert run.data.params["model.kind"] == "gru"
    assert run.data.tags["mlflow.source.git.commit"] == "c0ffee"
    assert run.data.tags["dataset"] == sha256
    history = client.get_metric_history(run_id, "val/score")
    assert [(item.step, item.value) for item in history] == [(10, 0.1), (20, 0.2)]
    assert run.info.artifact_uri is not None
    assert run.info.artifact_uri.startswith((tmp_path / "store" / "mlartifacts").as_uri())
    assert run.inputs is not None
    [entry] = run.inputs.dataset_inputs
    assert entry.dataset.name == "demo" and sha256.startswith(entry.dataset.digest)


def test_a_run_is_gone_on_with(store: str) -> None:
    first = tracking.Tracker()
    run_id = first.start("first", {"train": {"steps": 10}})
    first.log_metrics({"loss_g": 2.0}, 1)
    first.finish("FAILED")

    again = tracking.Tracker()
    assert again.start("first", {"train": {"steps": 20}}, run_id=run_id) == run_id
    again.log_metrics({"loss_g": 1.0}, 2)
    again.finish()

    client = connect(store)
    assert run_id is not None
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED" and run.data.params["train.steps"] == "10"
    assert [item.value for item in client.get_metric_history(run_id, "loss_g")] == [2.0, 1.0]


def test_a_run_that_the_store_does_not_know_is_begun_anew(store: str) -> None:
    tracker = tracking.Tracker()
    run_id = tracker.start("again", {"a": 1}, run_id="0123456789abcdef" * 2)
    assert run_id is not None and run_id != "0123456789abcdef" * 2
    tracker.log_metrics({"loss_g": 1.0}, 2)
    tracker.finish()
    run = connect(store).get_run(run_id)
    assert run.info.status == "FINISHED" and run.data.params == {"a": "1"}
    assert run.data.metrics == {"loss_g": 1.0}


def test_a_sweep_is_a_parent_and_closes_what_its_trials_left_open(store: str) -> None:
    sweep = tracking.Tracker()
    parent = sweep.start("sweep", {})
    children = []
    for name in ("whole", "killed"):
        child = tracking.Tracker()
        children.append(child.start(name, {}, parent=parent))
        if name == "whole":
            child.finish()
    other = tracking.Tracker().start("of nobody", {})
    sweep.close_children()
    sweep.finish()

    client = connect(store)
    statuses = [client.get_run(str(run)).info.status for run in (*children, other)]
    assert statuses == ["FINISHED", "KILLED", "RUNNING"]
    assert client.get_run(str(children[0])).data.tags["mlflow.parentRunId"] == parent


def test_a_dead_server_is_told_once_and_harms_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as closed:  # bound but not listening: refuses at once
        closed.bind(("127.0.0.1", 0))
        tracker = tracking.Tracker(uri=f"http://127.0.0.1:{closed.getsockname()[1]}")
        with caplog.at_level(logging.WARNING, logger="s2vgan"):
            assert tracker.start("first", {"a": 1}) is None
            tracker.log_metrics({"loss_g": 1.0}, 1)
            assert not tracker._pending, "nothing is kept for a run that there is not"
            tracker.log_input("0" * 64, "demo")
            tracker.finish()
    [record] = [record for record in caplog.records if record.name.startswith("s2vgan")]
    assert "the work goes on" in record.getMessage()


def test_metrics_of_an_outage_are_sent_after_it(
    store: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = tracking.Tracker()
    run_id = tracker.start("first", {})
    client = connect(store)

    def locked(*_: object, **__: object) -> None:
        raise OSError("database is locked")

    with monkeypatch.context() as outage:
        outage.setattr("mlflow.MlflowClient.log_batch", locked)
        tracker.log_metrics({"loss_g": 3.0}, 1)
        tracker.log_metrics({"loss_g": 2.0}, 2)
    tracker.finish()
    history = client.get_metric_history(str(run_id), "loss_g")
    assert [(item.step, item.value) for item in history] == [(1, 3.0), (2, 2.0)]
    assert "database is locked" in caplog.text


def test_the_champion_is_registered_resolved_and_fetched(store: str, model_dir: Path) -> None:
    import mlflow.artifacts

    tracker = tracking.Tracker()
    run_id = tracker.start("first", {})
    assert run_id is not None
    first = tracking.register(model_dir, run_id, {"val/score": 0.25})
    (model_dir / "config.json").write_text("better")
    tracker = tracking.Tracker()
    second_run = tracker.start("second", {})
    assert second_run is not None
    second = tracking.register(model_dir, second_run, {"val/score": 0.5})
    assert (first, second) == ("1", "2")

    assert tracking.resolve(tracking.CHAMPION) == "models:/s2vgan/2"
    assert tracking.resolve("models:/s2vgan/1") == "models:/s2vgan/1"
    for ref in (tracking.CHAMPION, "models:/s2vgan/2", f"runs:/{second_run}/model"):
        with tracking.fetch_model(ref) as folder:
            assert (folder / "config.json").read_text() == "better"
    with tracking.fetch_model("models:/s2vgan/1") as older:
        assert (older / "config.json").read_text() == "content of config.json"
    assert older.is_dir(), "a local store keeps its own folder"

    version = connect(store).get_model_version("s2vgan", "2")
    assert version.run_id == second_run and version.tags["val/score"] == "0.5"
    downloaded = mlflow.artifacts.download_artifacts(  # as any other MLflow client would
        connect(store).get_model_version_download_uri("s2vgan", "2"), tracking_uri=store
    )
    assert {path.name for path in Path(downloaded).iterdir()} >= {"manifest.json", "config.json"}


class Remote(LocalArtifactRepository):
    """Artifacts at ``remote:/PATH``, which are downloaded as from any other machine."""

    def __init__(self, artifact_uri: str, *_: object, **__: object) -> None:
        super().__init__(artifact_uri.replace("remote:", "file:"))

    download_artifacts = ArtifactRepository.download_artifacts


def test_what_is_downloaded_is_deleted_after_loading(
    store: str, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repositories = artifact_repository_registry._artifact_repository_registry._registry
    monkeypatch.setitem(repositories, "remote", Remote)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    client = connect(store)
    experiment = client.create_experiment("remote", f"remote://{tmp_path}/remote")
    run_id = client.create_run(experiment).info.run_id
    tracking.register(model_dir, run_id, {})
    refs = (tracking.CHAMPION, "models:/s2vgan/1", f"runs:/{run_id}/model")
    for ref in refs:
        with tracking.fetch_model(ref) as folder:
            assert (folder / "config.json").read_text() == "content of config.json"
            assert folder.is_relative_to(temporary)
        assert not list(temporary.iterdir())

    def torn(_: object, __: str, local_path: str) -> None:
        Path(local_path).write_text("half")
        raise OSError("connection lost")

    monkeypatch.setattr(Remote, "_download_file", torn)
    for ref in refs:
        with pytest.raises(RunError, match="connection lost|MLflow"), tracking.fetch_model(ref):
            pass
        assert not list(temporary.iterdir())


@pytest.mark.parametrize(
    "ref", [tracking.CHAMPION, "models:/s2vgan/7", "models:/none@champion", "runs:/beef/model"]
)
@pytest.mark.parametrize("known", [False, True])
def test_a_model_that_is_not_there(ref: str, known: bool, store: str, tmp_path: Path) -> None:
    if known:
        tracking.Tracker().start("makes the store", {})
    with pytest.raises(RunError, match=ref), tracking.fetch_model(ref):
        pass
    assert (tmp_path / "store" / "mlflow.db").exists() == known, "asking makes no database"


def test_a_folder_without_a_model_is_not_registered(store: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no manifest\.json"):
        tracking.register(tmp_path, "beef", {})


def test_the_pages_refuse_a_taken_port_and_a_store_with_pages_of_its_own(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ServiceError, match="cannot be used"):
            tracking.serve_ui(other.getsockname()[1])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    with pytest.raises(ServiceError, match="open http://127"):
        tracking.serve_ui()
