import json
import shutil
from pathlib import Path

import pytest

from s2vgan import artifact, ledger, tracking
from s2vgan.cli import main
from s2vgan.config import Config, ModelConfig
from s2vgan.errors import RunError
from s2vgan.models import TalkingFace
from s2vgan.runlog import update_run
from s2vgan.spec import GroupSpec
from s2vgan.tracking import trace

CONFIG = Config(model=ModelConfig(width=4))


@pytest.fixture
def run(toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of a sweep, on a dataset of its own; its model is the champion."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    data = tmp_path / "data"
    shutil.copytree(toy_data, data)
    folder, sha256 = tmp_path / "run", ledger.read_dataset(data).sha256
    sweep, tracker = tracking.Tracker(), tracking.Tracker()
    tags = {"run_folder": str(folder), "git_commit": "c0ffee"}
    parent = sweep.start("overnight", {})
    run_id = tracker.start("gru_g0.0001", CONFIG.to_dict(), tags, parent)
    assert run_id is not None
    tracker.log_input(sha256, "data", str(data))
    artifact.save(
        folder / "model", TalkingFace(CONFIG.model, GroupSpec(size=32)), CONFIG,
        name="gru_g0.0001", dataset=sha256, step=7, readings={}, mlflow_run=run_id,
    )  # fmt: skip
    update_run(folder, data=str(data), mlflow_run=run_id)
    tracking.register(folder / "model", run_id, {})
    return folder


def test_a_champion_leads_back_to_its_sources(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = trace(tracking.CHAMPION)
    assert (found.model, found.aliases) == ("models:/s2vgan/1", ("champion",))
    assert (found.run, found.sweep, found.folder) == ("gru_g0.0001", "overnight", str(run))
    assert found.config["model.width"] == "4" and found.git_commit == "c0ffee"
    assert found.dataset == ledger.read_dataset(tmp_path / "data").sha256
    assert [source.video_id for source in found.sources] == ["video0", "video1"]
    assert found.sources[0].source == "made up" and found.sources[0].groups == 60

    assert main(["lineage", tracking.CHAMPION]) == 0
    lines = capsys.readouterr().out.splitlines()
    heads = [line[:9].strip() for line in lines if line[:9].strip()]
    assert heads == ["model", "run", "MLflow", "config", "commit", "dataset", "sources"]
    assert "models:/s2vgan/1 (champion)" in lines[0]
    assert "conf/base.yaml with model.width 4" in "\n".join(lines)
    assert main(["lineage", tracking.CHAMPION, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps(found.to_dict()))


def test_a_run_folder_leads_back_without_mlflow(run: Path, tmp_path: Path) -> None:
    registered = trace(tracking.CHAMPION)
    for folder in (run, run / "model"):
        found = trace(str(folder))
        assert found.sources == registered.sources and found.config == registered.config
        assert found.mlflow_run == registered.mlflow_run and found.folder == registered.folder
    by_run = trace(f"runs:/{registered.mlflow_run}/model")
    assert by_run.sources == registered.sources and not by_run.aliases


def test_a_dataset_that_is_gone_or_another_is_told(run: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    (tmp_path / "data").rename(moved)
    found = trace(str(run))
    assert not found.sources and "cannot be read" in found.note and found.note in str(found)
    assert len(trace(str(run), data=str(moved)).sources) == 2
    ledger.remove(moved, "video1")
    ledger.write_dataset(moved, ledger.read_dataset(moved).spec)
    found = trace(tracking.CHAMPION, data=str(moved))
    assert not found.sources and "holds another dataset now" in found.note


def test_a_model_that_is_not_there(run: Path, tmp_path: Path) -> None:
    for ref in ("models:/s2vgan/7", str(tmp_path / "nothing")):
        with pytest.raises(RunError, match=ref):
            trace(ref)


def test_a_damaged_database_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "mlflow.db"
    store.write_text("not a database " * 100)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}")
    assert main(["lineage", tracking.CHAMPION]) == 2
    said = capsys.readouterr().err
    assert f"MLflow at sqlite:///{store} failed" in said and "Traceback" not in said
