"""Small sweeps on two cores: nested Ray Tune and Ray Train, failures, kills, and the champion."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from s2vgan import tracking
from s2vgan.config import Config
from s2vgan.runlog import read_log, read_run
from s2vgan.synthesis import Synthesizer
from s2vgan.tracking.store import connect
from tests.integration.test_chaos import below, eventually
from tune.search import METRIC
from tune.settings import Sweep
from tune.space import KIND, LR_D, LR_G, Choices, Space, trial_name
from tune.sweep import run

STEPS, EVERY = 150, 10  # of the trials that are killed, and between their evaluations


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_survives_a_failure_makes_a_champion_and_is_not_run_twice(
    ray_cluster: None, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    train = {"batch": 4, "steps": 8, "minutes": 0, "evaluate_every": 4, "pretrain_steps": 2}
    config = Config.from_dict({"model": {"width": 4}, "train": train})
    space = Space({LR_G: Choices((1e-4, 9e-4)), LR_D: Choices((1e-4,))})
    sweep = Sweep(config, str(toy_data), space)
    folder = tmp_path / "sweep"
    broken = [trial_name(point) for point in space.grid() if point[LR_G] == 9e-4]
    for name in broken:  # a file where the run's folder would be
        (folder / "trials").mkdir(parents=True, exist_ok=True)
        (folder / "trials" / name).touch()

    trials, promotion = run(sweep, folder)

    assert [trial.name for trial in trials if trial.status == "failed"] == broken
    whole = [trial for trial in trials if trial.status != "failed"]
    assert {trial.point[KIND] for trial in whole} == {"gru", "no_gru"}
    assert all(trial.step >= 4 and METRIC in trial.readings for trial in whole)
    best = max(whole, key=lambda trial: trial.readings[METRIC])
    assert promotion.winner == best.name
    assert (promotion.version, promotion.crowned) == ("1", True)
    assert tracking.find_champion() == "models:/s2vgan/1"
    champion = Synthesizer.load(tracking.fetch_model(tracking.CHAMPION))
    assert champion.config.model.kind == best.point[KIND]
    assert champion.speak(np.zeros(4800, np.float32)).shape == (9, 32, 32, 3)
    assert (folder / "evaluation" / "metrics.json").is_file()
    assert promotion.sentence in (folder / "report.html").read_text()

    client = connect(store)
    experiment = client.get_experiment_by_name(tracking.EXPERIMENT)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    [parent] = [item for item in runs if item.info.run_name == "sweep"]
    children = [item for item in runs if item is not parent]
    assert {item.info.run_name for item in children} == {trial.name for trial in whole}
    for item in children:
        assert item.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert item.info.status == "FINISHED" and "loss_g" in item.data.metrics
        stored = {file.path for file in client.list_artifacts(item.info.run_id)}
        assert stored >= {"model", "samples"}
        assert item.inputs is not None and len(item.inputs.dataset_inputs) == 1
    assert parent.info.status == "FINISHED" and parent.data.tags["winner"] == best.name
    assert parent.inputs is not None and len(parent.inputs.dataset_inputs) == 1
    pictures = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert pictures >= {"report.html", "parallel_coordinates.png", "curves.png"}
    lineage = tracking.trace(tracking.CHAMPION)
    assert lineage.sweep == "sweep" and len(lineage.sources) == 2

    logs = {
        trial.name: (folder / "trials" / trial.name / "metrics.jsonl").read_bytes()
        for trial in whole
    }
    again, decided = run(sweep, folder)  # the same command: nothing is trained again
    assert [trial.name for trial in again] == [trial.name for trial in trials]
    for name, log in logs.items():
        assert (folder / "trials" / name / "metrics.jsonl").read_bytes() == log
    assert decided == promotion


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.chaos
def test_a_killed_worker_resumes_and_a_killed_driver_trains_nothing_twice(
    toy_data: Path, tmp_path: Path
) -> None:
    said, sweep = tmp_path / "said.txt", tmp_path / "sweep"
    environment = os.environ | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"}
    command = [
        sys.executable, "tune/sweep.py", "--data", str(toy_data), "--out", str(sweep),
        "--lr-g", "1e-4", "2e-4", "4e-4", "--lr-d", "1e-4", "--kinds", "gru", "--scheduler", "fifo",
        "--steps", str(STEPS), "--model.width", "4", "--train.batch", "4",
        "--train.pretrain_steps", "2", "--train.evaluate_every", str(EVERY),
    ]  # fmt: skip

    def runs() -> list[Path]:
        return sorted((sweep / "trials").glob("gru_*"))

    def steps(trial: Path) -> list[int]:
        return [line["step"] for line in read_log(trial) if METRIC in line]

    with said.open("w") as stream:
        process = subprocess.Popen(
            command, env=environment, stdout=stream, stderr=stream, start_new_session=True
        )

    def while_alive(condition: object) -> object:
        assert process.poll() is None, said.read_text()
        return condition

    # One trial has finished, and another is on its way: its worker is killed.
    eventually(
        lambda: while_alive([r for r in runs() if read_run(r).get("status") == "FINISHED"]), 500
    )
    finished = [item for item in runs() if read_run(item).get("status") == "FINISHED"]

    def underway() -> list[Path]:
        found = [item for item in runs() if item not in finished and 3 <= len(steps(item)) <= 9]
        return [item for item in found if read_run(item)["status"] == "RUNNING"]

    [victim, *_] = eventually(lambda: while_alive(underway()), 500)
    before = steps(victim)
    for pid, line in below(process.pid).items():
        if "RayTrainWorker" in line:
            os.kill(pid, signal.SIGKILL)
    eventually(lambda: while_alive(steps(victim)[-1:] > before[-1:]), 500)
    assert steps(victim)[: len(before) - 1] == before[:-1], "from its last checkpoint"
    assert steps(victim) == list(range(EVERY, steps(victim)[-1] + 1, EVERY))

    # The driver is killed: what is finished is not trained again, the others go on.
    finished = [item for item in runs() if read_run(item).get("status") == "FINISHED"]
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = {item: (item / "metrics.jsonl").read_text() for item in runs()}
    reached = {item: steps(item)[-1] for item in runs() if steps(item)}
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert again.returncode == 0, again.stdout + again.stderr
    for trial in finished:
        assert [line for line in read_log(trial) if "loss_g" in line] == [
            line for line in map(json.loads, kept[trial].splitlines()) if "loss_g" in line
        ]
    for trial in runs():
        assert sorted(set(steps(trial))) == list(range(EVERY, STEPS + 1, EVERY))
        first = (trial / "metrics.jsonl").read_text()[:500]
        assert trial not in reached or first == kept[trial][:500], "not from the start"
    told = json.loads((sweep / "trials.json").read_text())
    assert {trial["status"] for trial in told["trials"]} == {"done"}
    assert told["promotion"]["crowned"]
