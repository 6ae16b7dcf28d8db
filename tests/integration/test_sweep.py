"""A small sweep on two cores: nested Ray Tune and Ray Train, a failure, and the champion."""

from pathlib import Path

import numpy as np
import pytest

from s2vgan import tracking
from s2vgan.config import Config
from s2vgan.synthesis import Synthesizer
from s2vgan.tracking.store import connect
from tune.sweep import Sweep, run
from tune.trials import METRIC, promote, trial_name


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_survives_a_failure_makes_a_champion_and_is_not_run_twice(
    ray_cluster: None, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    config = Config.from_dict(
        {
            "model": {"width": 4},
            "train": {
                "batch": 4,
                "steps": 8,
                "minutes": 0,
                "evaluate_every": 4,
                "pretrain_steps": 2,
            },
        }
    )
    sweep = Sweep(config, str(toy_data), lr_g=(1e-4, 9e-4), lr_d=(1e-4,), kinds=("gru", "no_gru"))
    sweep_folder = tmp_path / "sweep"
    broken = [trial_name(point) for point in sweep.points if point["lr_g"] == 9e-4]
    for name in broken:  # a file where the run's folder would be
        (sweep_folder / "trials").mkdir(parents=True, exist_ok=True)
        (sweep_folder / "trials" / name).touch()

    trials = run(sweep, sweep_folder)
    best, version = promote(trials, sweep_folder)

    assert [trial.name for trial in trials if trial.status == "failed"] == broken
    whole = [trial for trial in trials if trial.status != "failed"]
    assert {trial.params["kind"] for trial in whole} == {"gru", "no_gru"}
    assert all(trial.step >= 4 and METRIC in trial.readings for trial in whole)
    assert best == max(whole, key=lambda trial: trial.readings[METRIC])

    assert version == "1" and tracking.resolve(tracking.CHAMPION) == "models:/s2vgan/1"
    champion = Synthesizer.load(tracking.fetch_model(tracking.CHAMPION))
    assert champion.config.model.kind == best.params["kind"]
    assert champion.speak(np.zeros(4800, np.float32)).shape == (9, 32, 32, 3)

    client = connect(store)
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    [parent] = [item for item in runs if item.info.run_name == "sweep"]
    children = [item for item in runs if item is not parent]
    assert {item.info.run_name for item in children} == {trial.name for trial in whole}
    assert all(
        item.data.tags["mlflow.parentRunId"] == parent.info.run_id
        and item.info.status in ("FINISHED", "KILLED")
        for item in children
    )
    assert parent.info.status == "FINISHED" and parent.data.tags["winner"] == best.name

    logs = {
        trial.name: (sweep_folder / "trials" / trial.name / "metrics.jsonl").read_bytes()
        for trial in whole
    }
    again = run(sweep, sweep_folder)  # the same command: nothing is trained again
    assert [trial.name for trial in again] == [trial.name for trial in trials]
    for name, log in logs.items():
        assert (sweep_folder / "trials" / name / "metrics.jsonl").read_bytes() == log
    assert promote(again, sweep_folder)[1] == "1"
