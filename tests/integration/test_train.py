"""Ray Train: two workers, their crash, and a resumed run."""

import json
from pathlib import Path

import pytest

from s2vgan import artifact, tracking
from s2vgan.config import Config, ModelConfig, TrainConfig
from s2vgan.errors import RunError
from s2vgan.runlog import read_log
from s2vgan.train import train

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def config(steps: int) -> Config:
    return Config(
        model=ModelConfig(width=4),
        train=TrainConfig(
            steps=steps, minutes=0, batch=8, pretrain_steps=3, evaluate_every=4, amp="off"
        ),
    )


def test_two_workers_train_resume_and_track(
    ray_cluster: None, toy_data: Path, tmp_path: Path
) -> None:
    run = train(config(8), toy_data, tmp_path / "run", workers=2)
    first = artifact.load(run).manifest
    assert first["step"] == 8
    assert [line["step"] for line in read_log(run) if "val/score" in line] == [4, 8]
    assert not (run / "ray").exists()
    train(config(12), toy_data, run, workers=2, resume=True)
    assert artifact.load(run).manifest["step"] == 12

    run_id = json.loads((run / "run.json").read_text())["mlflow_run"]
    assert first["mlflow_run"] == run_id  # one run in MLflow, before and after
    with tracking.fetch_model(f"runs:/{run_id}/model") as kept:
        assert artifact.load(kept).manifest["step"] == 12


def test_what_fails_in_a_worker_is_said_in_its_own_words(
    ray_cluster: None, toy_data: Path, tmp_path: Path
) -> None:
    run = train(config(4), toy_data, tmp_path / "run", workers=1)
    for file in (run / "checkpoints").glob("*.pt"):
        file.write_bytes(b"torn")
    with pytest.raises(RunError, match="damaged .* no whole checkpoint"):
        train(config(8), toy_data, run, workers=1, resume=True)
