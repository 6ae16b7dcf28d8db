"""The winner's way to the registry; the evaluation itself is replaced by what it would find."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from s2vgan import tracking
from s2vgan.config import Config, TrainConfig
from s2vgan.errors import RunError
from s2vgan.tracking.store import connect
from tests.test_score import row
from tune import promotion
from tune.promotion import promote, retrain
from tune.search import METRIC
from tune.trials import Trial


class Court:
    """A sweep whose models read as they are told to.

    Attributes:
        r: mouth_r of each model by its run's name; those left out cannot be measured.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.r, self.asked = folder, dict[str, float](), 0

    def evaluate(self, data: str, runs: list[Path], out: Path) -> Any:
        self.asked += 1
        names = {run: json.loads((run / "manifest.json").read_text())["name"] for run in runs}
        rows = [row("x", str(run), self.r[name]) for run, name in names.items() if name in self.r]
        return SimpleNamespace(metrics={"rows": rows})

    def trial(self, name: str, score: float = 0.5, tracked: bool = True) -> Trial:
        model = self.folder / "trials" / name / "model"
        model.mkdir(parents=True)
        (model / "manifest.json").write_text(json.dumps({"name": name, "mlflow_run": ""}))
        run_id = tracking.Tracker().start(name, {}) if tracked else None
        (model.parent / "run.json").write_text(json.dumps({"mlflow_run": run_id}))
        return Trial(name, {}, "done", 10, {METRIC: score})


@pytest.fixture
def court(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Court:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    made = Court(tmp_path / "sweep")
    monkeypatch.setattr(promotion, "evaluate", made.evaluate)
    monkeypatch.setattr(promotion, "write_report", lambda *_: None)
    return made


def test_a_winner_is_champion_only_if_it_beats_the_present_one(court: Court) -> None:
    court.r = {"first": 0.5, "worse": 0.4, "better": 0.6}
    first = promote([court.trial("first")], court.folder, "data")
    assert (first.version, first.crowned, first.champion) == ("1", True, None)
    assert "there was none before" in first.sentence
    version = connect(first.mlflow).get_model_version("s2vgan", "1")
    assert float(version.tags["score"]) == pytest.approx(first.score, rel=1e-4)
    assert version.tags["mouth_r"] == "0.5"

    worse = promote([court.trial("worse")], court.folder, "data")
    assert (worse.version, worse.crowned, worse.champion) == ("2", False, "models:/s2vgan/1")
    assert worse.champion_score == first.score and worse.champion_score > worse.score
    assert "models:/s2vgan/1 stays champion" in worse.sentence
    assert tracking.find_champion() == "models:/s2vgan/1"

    better = promote([court.trial("better")], court.folder, "data")
    assert (better.version, better.crowned) == ("3", True) and "new champion" in better.sentence
    assert tracking.find_champion() == "models:/s2vgan/3"


def test_force_overrides_also_afterwards(court: Court) -> None:
    court.r = {"first": 0.5, "worse": 0.4, "worst": 0.3}
    promote([court.trial("first")], court.folder, "data")
    worse = [court.trial("worse")]
    assert promote(worse, court.folder, "data", force=True).crowned
    assert tracking.find_champion() == "models:/s2vgan/2"
    worst = [court.trial("worst")]
    assert not promote(worst, court.folder, "data").crowned
    asked = court.asked
    again = promote(worst, court.folder, "data")
    assert again.version == "3" and not again.crowned and court.asked == asked, "told once"
    forced = promote(worst, court.folder, "data", force=True)
    assert forced.crowned and "by --force" in forced.sentence
    assert tracking.find_champion() == "models:/s2vgan/3"
    assert json.loads((court.folder / "trials.json").read_text())["promotion"]["crowned"]


def test_a_champion_that_cannot_be_measured_here_stays(court: Court) -> None:
    court.r = {"large": 0.5}
    promote([court.trial("large")], court.folder, "data")
    court.r = {"small": 0.9}
    small = promote([court.trial("small")], court.folder, "data")
    assert not small.crowned and small.champion_score is None
    assert "cannot be measured on this dataset" in small.sentence


def test_a_retrained_winner_is_another_model(court: Court) -> None:
    court.r = {"a": 0.5, "winner": 0.7}
    trials = [court.trial("a")]
    promote(trials, court.folder, "data")
    court.trial("winner")
    longer = promote(trials, court.folder, "data", retrained=court.folder / "trials" / "winner")
    assert (longer.winner, longer.how, longer.version, longer.crowned) == (
        "a",
        "retrain",
        "2",
        True,
    )


def test_a_winner_that_mlflow_was_not_told_of_is_not_registered(court: Court) -> None:
    court.r = {"a": 0.5}
    trials = [court.trial("a", tracked=False)]
    lost = promote(trials, court.folder, "data")
    assert lost.version is None and not lost.crowned and "not registered" in lost.sentence
    run_id = tracking.Tracker().start("a", {})
    (court.folder / "trials" / "a" / "run.json").write_text(json.dumps({"mlflow_run": run_id}))
    assert promote(trials, court.folder, "data").version == "1", "it is, once MLflow knows"


def test_the_trials_are_kept_where_mlflow_refuses_the_winner(
    court: Court, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise RunError("cannot be registered")

    court.r = {"a": 0.5}
    monkeypatch.setattr(tracking, "register", refuse)
    with pytest.raises(RunError, match="cannot be registered"):
        promote([court.trial("a")], court.folder, "data")
    written = json.loads((court.folder / "trials.json").read_text())
    assert written["promotion"] is None and written["trials"][0]["name"] == "a"


def test_no_model_no_champion(court: Court) -> None:
    failed = [Trial("a", {}, "failed", reason="the disk is full")]
    with pytest.raises(RunError, match=r"no trial gave a model \(the disk is full\)"):
        promote(failed, court.folder, "data")
    assert not court.folder.exists()


def test_a_winner_is_trained_anew_for_longer_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[Any, ...]] = []

    def train(config: Config, data: str, run: Path, workers: int, **more: Any) -> None:
        """Is interrupted at its first checkpoint, and goes on with it."""
        begun.append((config, data, run, workers, more))
        (run / "checkpoints").mkdir(parents=True, exist_ok=True)
        (run / "checkpoints" / "step_0000010.pt").touch()
        if not more["resume"]:
            raise KeyboardInterrupt
        (run / "run.json").write_text(json.dumps({"status": "FINISHED"}))

    monkeypatch.setattr(promotion, "train", train)
    base = Config(train=TrainConfig(steps=100, minutes=2, lr_g=3e-4))

    def again() -> Path:
        return retrain(base, "data", tmp_path, 2, 3.0, "parent", "A. Speaker")

    with pytest.raises(KeyboardInterrupt):
        again()
    assert again() == again() == tmp_path / "winner"
    assert [more.pop("resume") for *_, more in begun] == [False, True]
    assert begun[0] == begun[1]
    config, data, run, workers, more = begun[0]
    assert config == Config(train=TrainConfig(steps=300, minutes=6, lr_g=3e-4))
    assert (data, run, workers) == ("data", tmp_path / "winner", 2)
    assert more == {"name": "winner", "parent": "parent", "consent": "A. Speaker"}
