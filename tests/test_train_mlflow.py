"""Training goes on without MLflow, which is told later."""

import socket
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from s2vgan import artifact, book, tracking
from s2vgan.cli import main
from s2vgan.runlog import read_log, read_run, update_run
from s2vgan.tracking import delivery, store
from s2vgan.train import train
from s2vgan.training import TrainState
from tests.test_train_faults import SHORT, config, connect_history


@pytest.fixture
def uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty store of the test's own."""
    uri = f"sqlite:///{tmp_path}/store/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


def check_delivered(run: Path, uri: str) -> None:
    """MLflow knows all that the run's folder holds, each number once."""
    client, about = store.connect(uri), read_run(run)
    found = client.get_run(about["mlflow_run"])
    assert found.info.status == about["status"] == "FINISHED"
    assert found.data.params["model.width"] == "4"
    assert found.data.tags["dataset"] == about["dataset"]
    assert found.data.tags["run_folder"] == str(run)
    assert found.inputs is not None and len(found.inputs.dataset_inputs) == 1
    lines = read_log(run)
    for name in ("loss_g", "val/score", "pretrain_audio", "groups_per_second"):
        told = [(line["step"], line[name]) for line in lines if name in line]
        assert told and connect_history(run, name, uri) == told, name
    samples = {item.path for item in client.list_artifacts(about["mlflow_run"], "samples")}
    assert samples == {f"samples/{path.name}" for path in (run / "samples").iterdir()}
    for model in ("model", "best"):
        with tracking.fetch_model(f"runs:/{about['mlflow_run']}/{model}", uri) as kept:
            step = artifact.load(kept).manifest["step"]
        assert step == artifact.load(run / model).manifest["step"]
    experiments = [item.experiment_id for item in client.search_experiments()]
    assert len(client.search_runs(experiments)) == 1
    assert tracking.is_delivered(run)


def test_an_mlflow_that_cannot_be_reached_is_told_later_by_a_command(
    toy_data: Path,
    tmp_path: Path,
    uri: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    with socket.socket() as closed, monkeypatch.context() as patch:
        closed.bind(("127.0.0.1", 0))  # bound but not listening: refuses at once
        patch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed.getsockname()[1]}")
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        out = ["--data", str(toy_data), "--out", str(run)]
        assert main(["train", *out, *SHORT, "--steps", "4"]) == 0
        said = capsys.readouterr()
        assert said.err.count("training goes on") == 1 and "Traceback" not in said.err
        assert f"s2vgan mlflow --deliver {run}" in said.out
        assert main(["mlflow", "--deliver", str(run)]) == 2
        assert "cannot be written" in capsys.readouterr().err
    assert not tracking.is_delivered(run)
    for _ in range(2):  # the second time there is nothing left to tell
        assert main(["mlflow", "--deliver", str(run)]) == 0
        check_delivered(run, uri)
    update_run(run, told=None)  # as if killed before it could remember what MLflow knows
    tracking.deliver(run)
    check_delivered(run, uri)
    assert main(["mlflow", "--deliver", str(tmp_path)]) == 2
    assert "no run here" in capsys.readouterr().err


def test_an_mlflow_that_is_locked_is_told_by_the_resumed_run(
    toy_data: Path, tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    store.connect(uri).search_experiments()  # makes the file
    monkeypatch.setattr(store, "_LOCK_SECONDS", 0.1)
    with sqlite3.connect(store.database_of(uri) or "") as other:
        other.execute("BEGIN EXCLUSIVE")
        train(config(2), toy_data, run, workers=0)
        other.rollback()
    other.close()
    [sentence] = [line["warnings"] for line in read_log(run) if "warnings" in line]
    assert "database is locked" in sentence[0]
    assert not tracking.is_delivered(run)
    train(config(4), toy_data, run, workers=0, resume=True)
    check_delivered(run, uri)


def test_an_mlflow_that_comes_back_is_told_at_the_next_evaluation(
    toy_data: Path, tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, known = tmp_path / "run", []
    answers = iter([False, True, False])  # at the start, and at two evaluations
    connect, save = store.connect, book.save_checkpoint

    def sometimes(uri: str) -> Any:
        if not next(answers, True):
            raise OSError("MLflow is away")
        return connect(uri)

    def noted(state: TrainState, *args: Any) -> Path:
        known.append(read_run(run)["told"])
        return save(state, *args)

    monkeypatch.setattr(delivery, "connect", sometimes)
    monkeypatch.setattr(delivery, "_PATIENCE", 0)
    monkeypatch.setattr(book, "save_checkpoint", noted)
    train(config(6), toy_data, run, workers=0)
    told = {"step": 2, "status": "RUNNING"}
    assert known == [None, told, told], "each time before a checkpoint is written"
    check_delivered(run, uri)


def test_a_dead_mlflow_costs_a_tenth_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, calls = [0.0], []

    def slow(*_: Any) -> str:
        calls.append(now[0])
        now[0] += 60
        raise OSError("timed out")

    monkeypatch.setattr(delivery, "_deliver", slow)
    monkeypatch.setattr(delivery.time, "monotonic", lambda: now[0])
    way = tracking.Delivery(tmp_path, "http://nowhere")
    warnings = []
    for _ in range(100):
        warnings.append(way.attempt())
        now[0] += 90
    assert len(calls) <= 0.1 * now[0] / 60 + 1
    assert len([warning for warning in warnings if warning]) == 1
    way.attempt(last=True)
    assert calls[-1] == now[0] - 60
