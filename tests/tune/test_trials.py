import json
from pathlib import Path
from typing import Any

import pytest

from s2vgan import tracking
from s2vgan.config import TrainConfig
from s2vgan.errors import RunError
from s2vgan.runlog import RunLog
from tune.trials import METRIC, Trial, collect, is_champion, promote, table, trial_name

POINTS: list[dict[str, Any]] = [
    {"kind": kind, "lr_g": lr_g, "lr_d": 1e-4}
    for lr_g in (1e-4, 4e-4)
    for kind in ("gru", "no_gru")
]
STEPS = TrainConfig(steps=100, minutes=0)


def write_log(sweep: Path, params: dict[str, Any], scores: dict[int, float]) -> Path:
    run = sweep / "trials" / trial_name(params)
    log = RunLog(run)
    for step, score in scores.items():
        log.write(step, step * 0.6, {"loss_g": 1.0})
        log.write(step, step * 0.6, {METRIC: score})
    log.write(max(scores) + 5, 99.0, {"loss_g": 1.0})
    return run


def test_trials_are_read_from_their_own_logs(tmp_path: Path) -> None:
    whole, early, failed, silent = POINTS
    write_log(tmp_path, whole, {50: 0.1, 100: 0.3})
    write_log(tmp_path, early, {50: 0.4})
    run = write_log(tmp_path, failed, {50: 0.9})
    (run / "error.txt").write_text("its worker's sentence.")
    trials = collect(POINTS, tmp_path, STEPS, {run.name: ValueError("a traceback")})
    found = [(trial.name, trial.status, trial.step) for trial in trials]
    assert found == [
        (trial_name(early), "early", 50),
        (trial_name(whole), "done", 100),
        (trial_name(failed), "failed", 50),
        (trial_name(silent), "failed", 0),
    ]
    assert trials[1].readings == {METRIC: 0.3}, "the latest, without the losses"
    assert [trial.reason for trial in trials[2:]] == [
        "its worker's sentence.",
        "it gave no reading",
    ]


@pytest.mark.parametrize(("minutes", "status"), [(0.5, "done"), (2.0, "early")])
def test_a_budget_in_minutes_is_spent_too(tmp_path: Path, minutes: float, status: str) -> None:
    write_log(tmp_path, POINTS[0], {50: 0.1})  # after 30 s
    [trial] = collect(POINTS[:1], tmp_path, TrainConfig(minutes=minutes), {})
    assert trial.status == status


def test_a_name_tells_what_was_tried() -> None:
    names = [trial_name(point) for point in POINTS]
    assert names[0] == "gru_g0.0001_d0.0001" and len(set(names)) == len(POINTS)


def test_the_table_shows_every_trial() -> None:
    trials = [
        Trial("a", {}, "done", 100, {METRIC: 0.5, "val/mouth_r": 0.25}),
        Trial("broken", {}, "failed", reason="the disk is full."),
    ]
    head, first, second, reason = table(trials).splitlines()
    assert METRIC in head and "0.5000" in first and "0.2500" in first
    assert second.split()[:2] == ["broken", "failed"] and "the disk is full." in reason


def test_the_best_is_promoted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def register(model: Path, run_id: str, metrics: dict[str, float]) -> str:
        calls.append((model.parent.name, run_id, metrics))
        return str(len(calls))

    monkeypatch.setattr(tracking, "register", register)
    trials = [Trial("a", {}, "done", 10, {METRIC: 0.5}), Trial("b", {}, "early", 5, {METRIC: 0.1})]
    for trial in trials:
        model = tmp_path / "trials" / trial.name / "model"
        model.mkdir(parents=True)
        (model / "manifest.json").write_text(json.dumps({"mlflow_run": ""}))  # told too late
        (model.parent / "run.json").write_text(json.dumps({"mlflow_run": f"run of {trial.name}"}))
    assert promote(trials, tmp_path) == (trials[0], "1")
    assert promote(trials, tmp_path) == (trials[0], "1"), "the same sweep, told once"
    assert promote(trials[::-1], tmp_path) == (trials[1], "2")
    assert calls == [("a", "run of a", {METRIC: 0.5}), ("b", "run of b", {METRIC: 0.1})]
    written = json.loads((tmp_path / "trials.json").read_text())
    assert written["winner"] == "b" and len(written["trials"]) == 2
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    assert promote(trials[::-1], tmp_path) == (trials[1], "3"), "another store has none yet"
    assert not is_champion("3"), "that store was never asked to register it"


def test_the_trials_are_kept_where_mlflow_refuses_the_winner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def register(*_: object) -> str:
        raise RunError("cannot be registered")

    monkeypatch.setattr(tracking, "register", register)
    model = tmp_path / "trials" / "a" / "model"
    model.mkdir(parents=True)
    (model / "manifest.json").write_text("{}")
    (model.parent / "run.json").write_text(json.dumps({"mlflow_run": "run of a"}))
    with pytest.raises(RunError, match="cannot be registered"):
        promote([Trial("a", {}, "done", 10, {METRIC: 0.5})], tmp_path)
    written = json.loads((tmp_path / "trials.json").read_text())
    assert written["winner"] == "a" and written["version"] is None


def test_a_version_is_the_champion_until_another_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    assert not is_champion("1")
    model = tmp_path / "model"
    model.mkdir()
    (model / "manifest.json").write_text("{}")
    run_id = tracking.Tracker().start("run", {})
    assert run_id is not None
    for version in ("1", "2"):
        assert tracking.register(model, run_id, {}) == version
        assert is_champion(version)
    assert not is_champion("1")


def test_no_model_no_champion(tmp_path: Path) -> None:
    failed = [Trial("a", {}, "failed", reason="the disk is full")]
    with pytest.raises(RunError, match=r"no trial gave a model \(the disk is full\)"):
        promote(failed, tmp_path)
    assert not list(tmp_path.iterdir())
