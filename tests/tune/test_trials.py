import json
from pathlib import Path
from typing import Any

import pytest

from s2vgan import cluster
from s2vgan.config import TrainConfig
from s2vgan.runlog import RunLog, read_run, update_run
from s2vgan.tracking.store import connect
from tune.search import METRIC
from tune.space import KIND, LR_D, LR_G, trial_name
from tune.trials import Trial, collect, resources, settle, started_points

POINTS: list[dict[str, Any]] = [
    {KIND: kind, LR_G: lr_g, LR_D: 1e-4} for lr_g in (1e-4, 4e-4) for kind in ("gru", "no_gru")
]
STEPS = TrainConfig(steps=1000, minutes=0)
WON = "D has won: it tells all right."


def write_log(sweep: Path, point: dict[str, Any], scores: dict[int, float], *warnings: str) -> Path:
    run = sweep / "trials" / trial_name(point)
    log = RunLog(run)
    for step, score in scores.items():
        log.write(step, step * 0.06, {"loss_g": 1.0})
        log.write(step, step * 0.06, {METRIC: score}, warnings)
    log.write(max(scores) + 5, 99.0, {"loss_g": 1.0})
    return run


def test_trials_are_read_from_their_own_logs(tmp_path: Path) -> None:
    whole, early, failed, silent = POINTS
    write_log(tmp_path, whole, {500: 0.1, 1000: 0.3})
    write_log(tmp_path, early, {500: 0.4})
    run = write_log(tmp_path, failed, {500: 0.9})
    (run / "error.txt").write_text("its worker's sentence.")
    trials = collect(POINTS, tmp_path, STEPS, {run.name: ValueError("a traceback")})
    found = [(trial.name, trial.status, trial.step) for trial in trials]
    assert found == [
        (trial_name(early), "early", 500),
        (trial_name(whole), "done", 1000),
        (trial_name(failed), "failed", 500),
        (trial_name(silent), "failed", 0),
    ]
    assert trials[1].readings == {METRIC: 0.3}, "the latest, without the losses"
    assert [trial.reason for trial in trials] == [
        "the scheduler let better trials go on.",
        "",
        "its worker's sentence.",
        "it gave no reading",
    ]


def test_a_trial_without_hope_says_why_it_was_stopped(tmp_path: Path) -> None:
    write_log(tmp_path, POINTS[0], {500: 0.1, 750: 0.2}, WON)
    write_log(tmp_path, POINTS[1], {750: 0.1, 1000: 0.1}, WON)
    stopped, done = collect(POINTS[:2], tmp_path, STEPS, {})
    assert (stopped.status, stopped.reason) == ("stopped", WON)
    assert done.status == "done", "its budget was spent before the second sign"


@pytest.mark.parametrize(("minutes", "status"), [(0.5, "done"), (2.0, "early")])
def test_a_budget_in_minutes_is_spent_too(tmp_path: Path, minutes: float, status: str) -> None:
    write_log(tmp_path, POINTS[0], {500: 0.1})  # after 30 s
    [trial] = collect(POINTS[:1], tmp_path, TrainConfig(minutes=minutes), {})
    assert trial.status == status


@pytest.mark.parametrize(
    ("gpus", "workers", "reserved", "words"),
    [
        (0, 1, {"CPU": 1.0}, "1 CPU"),
        (2, 1, {"CPU": 1.0, "GPU": 1.0}, "1 CPU and 1 GPU"),
        (1, 1, {"CPU": 1.0}, "1 CPU"),
        (0, 2, {"CPU": cluster.TRIAL_CPU}, "2 workers of 1 CPU, and 0.1 CPU beside"),
        (4, 2, {"CPU": cluster.TRIAL_CPU}, "2 workers of 1 CPU and 1 GPU, and 0.1 CPU beside"),
    ],
)
def test_a_single_worker_trains_inside_its_trial(
    gpus: int,
    workers: int,
    reserved: dict[str, float],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 16.0, "GPU": float(gpus)})
    assert resources(workers, slots=2) == (reserved, words)


def test_points_that_a_search_found_are_read_from_their_runs(tmp_path: Path) -> None:
    for point in POINTS[:2]:
        run = write_log(tmp_path, point, {500: 0.1})
        (run / "point.json").write_text(json.dumps(point))
    assert started_points(tmp_path) == POINTS[:2]


def test_mlflow_is_told_once_how_a_trial_ended(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/mlflow.db"
    trials = [
        Trial(trial_name(POINTS[0]), POINTS[0], "stopped", 750, {METRIC: 0.2}, WON),
        Trial(trial_name(POINTS[1]), POINTS[1], "failed", 0, {}, "the disk is full."),
        Trial(trial_name(POINTS[2]), POINTS[2], "done", 1000, {METRIC: 0.3}),
        Trial("never_began", POINTS[3], "failed", 0, {}, "no folder."),
    ]
    for trial, point in zip(trials[:3], POINTS, strict=False):
        run = write_log(tmp_path, point, {500: 0.1, 750: 0.2})
        (run / "config.json").write_text("{}")
        update_run(
            run, name=trial.name, data="d", dataset="0" * 64, parent=None, tags={"run_folder": "r"},
            begun=1000, ended=None, status="RUNNING", step=750, mlflow_run=None, told=None,
        )  # fmt: skip
        (run / "model").mkdir()
        (run / "model" / "manifest.json").write_text("{}")
    settle(trials, tmp_path, store)
    about = [read_run(tmp_path / "trials" / trial.name) for trial in trials]
    assert [item.get("status") for item in about] == ["FINISHED", "FAILED", "FINISHED", None]
    client = connect(store)
    stopped = client.get_run(about[0]["mlflow_run"])
    assert stopped.info.status == "FINISHED"
    assert stopped.data.tags["sweep_status"] == "stopped"
    assert stopped.data.tags["sweep_reason"] == WON
    assert stopped.data.metrics[METRIC] == 0.2
    assert [item.path for item in client.list_artifacts(about[0]["mlflow_run"])] == ["model"]
    assert client.get_run(about[1]["mlflow_run"]).info.status == "FAILED"
    assert "sweep_status" not in client.get_run(about[2]["mlflow_run"]).data.tags
    settle(trials, tmp_path, store)
    assert [read_run(tmp_path / "trials" / trial.name) for trial in trials] == about
