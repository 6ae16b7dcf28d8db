"""Small sweeps on two cores: nested Ray Tune and Ray Train, failures, kills, and the champion."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from s2vgan import artifact, detectors, tracking
from s2vgan.config import Config
from s2vgan.runlog import read_log, read_run
from s2vgan.synthesis import Synthesizer
from s2vgan.tracking.store import connect
from tests.integration.test_chaos import below, eventually
from tune.search import METRIC
from tune.settings import Sweep
from tune.space import KIND, LR_D, LR_G, Choices, LogRange, Space, trial_name
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
    sweep = Sweep(config, str(toy_data), space, consent="A. Speaker, in writing")
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
    with tracking.fetch_model(tracking.CHAMPION) as kept:
        champion = Synthesizer.load(kept)
    assert champion.config.model.kind == best.point[KIND]
    assert champion.manifest["consent"] == "A. Speaker, in writing"
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

    _, longer = run(sweep, folder, winner="retrain", retrain_times=2.0)  # only the winner is
    for name, log in logs.items():
        assert (folder / "trials" / name / "metrics.jsonl").read_bytes() == log
    assert (longer.winner, longer.how, longer.version) == (best.name, "retrain", "2")
    assert longer.champion == "models:/s2vgan/1" and longer.champion_score == promotion.score
    anew = artifact.load(folder / "winner")
    assert anew.manifest["step"] == 16 and anew.manifest["consent"] == "A. Speaker, in writing"
    assert anew.config.train == dataclasses.replace(champion.config.train, steps=16, minutes=0)
    told = client.get_run(read_run(folder / "winner")["mlflow_run"])
    assert told.data.tags["mlflow.parentRunId"] == parent.info.run_id
    parent = client.get_run(parent.info.run_id)
    assert parent.inputs is not None
    assert len(parent.inputs.dataset_inputs) == 1, "however often the command was given"
    assert told.info.status == "FINISHED"
    assert longer.sentence in (folder / "report.html").read_text()


@pytest.mark.ray
@pytest.mark.slow
def test_trials_without_hope_are_stopped_say_so_and_leave_their_process_to_others(
    ray_cluster: None, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    train = {"batch": 4, "steps": 1000, "minutes": 0, "evaluate_every": 250, "pretrain_steps": 0}
    config = Config.from_dict({"model": {"width": 4}, "train": train})
    space = Space({LR_G: Choices((1e-9, 2e-9, 3e-9)), LR_D: Choices((1e-4,))}, ("no_gru",))
    folder = tmp_path / "sweep"

    trials, promotion = run(Sweep(config, str(toy_data), space, scheduler="fifo"), folder)

    assert [trial.status for trial in trials] == ["stopped"] * 3, "such rates learn nothing"
    client = connect(store)
    for trial in trials:
        assert trial.step == 750 and trial.reason.startswith(detectors.HOPELESS)
        about = client.get_run(read_run(folder / "trials" / trial.name)["mlflow_run"])
        assert about.info.status == "FINISHED", "that it was stopped was the sweep's decision"
        assert about.data.tags["sweep_reason"] == trial.reason
    assert promotion.version == "1"
    assert trials[0].reason.partition(":")[0] in (folder / "report.html").read_text()


@pytest.mark.ray
@pytest.mark.slow
def test_optuna_suggests_what_runs_with_and_without_gru(
    ray_cluster: None, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optuna")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    train = {"batch": 4, "steps": 8, "minutes": 0, "evaluate_every": 2, "pretrain_steps": 2}
    config = Config.from_dict({"model": {"width": 4}, "train": train})
    space = Space({LR_G: LogRange(1e-5, 1e-3), LR_D: Choices((1e-4, 4e-4))})
    sweep = Sweep(config, str(toy_data), space, search="optuna", samples=2)

    trials, promotion = run(sweep, tmp_path / "sweep")

    assert len(trials) == 4 and {trial.status for trial in trials} <= {"done", "early"}
    points = [trial.point for trial in trials]
    for point in points:
        assert 1e-5 <= point[LR_G] <= 1e-3 and point[LR_D] in (1e-4, 4e-4)
        assert point | {KIND: "gru"} in points and point | {KIND: "no_gru"} in points
    assert promotion.crowned and promotion.winner == trials[0].name
    assert run(sweep, tmp_path / "sweep") == (trials, promotion), "found again, not trained again"


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
        if "ImplicitFunc" in line:  # Ray Tune's process of a trial
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
