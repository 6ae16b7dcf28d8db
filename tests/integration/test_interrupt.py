"""Ctrl-C during a sweep: it stops with its state saved, and the same command goes on with it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.chaos
def test_a_sweep_that_is_interrupted_goes_on(toy_data: Path, tmp_path: Path) -> None:
    recipe, sweep = tmp_path / "small.yaml", tmp_path / "sweep"
    recipe.write_text(
        json.dumps(
            {
                "model": {"width": 4},
                "train": {
                    "batch": 4,
                    "steps": 60,
                    "minutes": 0,
                    "evaluate_every": 5,
                    "pretrain_steps": 2,
                },
            }
        )
    )
    command = [sys.executable, "tune/sweep.py", "--config", str(recipe), "--data", str(toy_data)]
    command += ["--out", str(sweep), "--lr-g", "1e-4", "--lr-d", "1e-4", "--kinds", "gru"]
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    log = sweep / "trials" / "gru_g0.0001_d0.0001" / "metrics.jsonl"
    with open(tmp_path / "out.txt", "w") as out:
        process = subprocess.Popen(
            command, env=environment, stdout=out, stderr=out, start_new_session=True
        )
        while not (log.is_file() and "val/score" in log.read_text()):
            assert process.poll() is None, (tmp_path / "out.txt").read_text()
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait() == 130, (tmp_path / "out.txt").read_text()
    assert not (sweep / "trials.json").exists()
    before = log.read_text()

    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert log.read_text().startswith(before)  # trained on, not anew
    [trial] = json.loads((sweep / "trials.json").read_text())["trials"]
    assert (trial["status"], trial["step"]) == ("done", 60)
