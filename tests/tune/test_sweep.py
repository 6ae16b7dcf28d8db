import json
from pathlib import Path

import pytest

from s2vgan import cluster
from s2vgan.config import Config
from s2vgan.errors import RunError, ServiceError
from s2vgan.tracking.store import connect
from tune import sweep
from tune.promotion import Promotion
from tune.search import METRIC
from tune.settings import Sweep, make_parser, sweep_of
from tune.space import KIND, LR_D, LR_G, Choices, LogRange, Space
from tune.sweep import main
from tune.trials import Trial

SPACE = Space({LR_G: Choices((1e-4, 4e-4)), LR_D: Choices((1e-4, 4e-4))})


def asked(*words: str) -> Sweep:
    return sweep_of(make_parser().parse_args(["--data", "d", "--out", "o", *words]))


def test_the_default_is_two_rates_each_with_and_without_gru() -> None:
    found = asked()
    assert found.space == SPACE and found.total == 8
    assert (found.search, found.scheduler) == ("grid", "asha")


def test_the_command_line_reaches_the_sweep(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("model: {width: 8}\ntrain: {batch: 4}\nvary: ['loss.gan=0.01,0.02']\n")
    found = asked(
        "--config", str(file), "--lr-g", "1e-3", "2e-3", "--lr-d", "1e-5..1e-3", "--steps", "7",
        "--kinds", "gru", "--search", "random", "--samples", "3", "--seed", "5",
        "--consent", "A. Speaker, in writing",
    )  # fmt: skip
    assert found.config.model.width == 8 and found.config.train.batch == 4
    assert found.config.train.steps == 7 and found.config.train.minutes == 0
    assert found.space.kinds == ("gru",)
    assert found.space.dimensions == {
        LR_G: Choices((1e-3, 2e-3)),
        LR_D: LogRange(1e-5, 1e-3),
        "loss.gan": Choices((0.01, 0.02)),
    }
    assert found.consent == found.to_dict()["consent"] == "A. Speaker, in writing"
    assert found.points == found.space.draws(3, 5) and found.total == 3
    assert asked("--search", "optuna", "--lr-g", "1e-5..1e-3").points is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--lr-g 1e-4 1e-4", "each once"),
        ("--kinds gru gru", "a kind is given twice"),
        ("--vary train.lr_g=1e-4", "give each field once"),
        ("--vary loss.gan", "as FIELD=VALUES"),
        ("--vary loss.gan=-1", "loss.gan is -1"),
        ("--lr-g 1e-5..1e-3", "a grid needs values"),
        ("--search optuna", "no field has a range"),
        ("--samples 0", "at least 1"),
        ("--workers 0", "at least 1"),
        ("--seed 4294967296", "use 0 to 4294967295"),
        ("--seed -1 --search random", "use 0 to 4294967295"),
        ("--workers 5", "shared out evenly"),
        ("--data nowhere", "no dataset here"),
        ("--train.batch 3", "not a multiple"),
        ("--train.held_out 0.01", "too short to hold 1% out"),
    ],
)
def test_what_cannot_run_is_a_sentence_before_anything_starts(
    words: str,
    sentence: str,
    toy_data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())  # of Optuna
    out = tmp_path / "sweep"
    assert main(["--data", str(toy_data), "--out", str(out), *words.split()]) == 2
    assert sentence in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_holds_one_sweep(
    toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Sweep(Config(), str(toy_data), SPACE).to_dict()
    (tmp_path / "sweep.json").write_text(json.dumps({"settings": settings, "mlflow_run": None}))
    assert main(["--data", str(toy_data), "--out", str(tmp_path), "--lr-g", "1e-2"]) == 2
    assert "another space" in capsys.readouterr().err


def test_a_sweep_that_cannot_start_ray_closes_its_run(
    toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)

    def connect_to_ray() -> None:
        raise ServiceError("no cluster here")

    monkeypatch.setattr(cluster, "connect", connect_to_ray)
    with pytest.raises(ServiceError, match="no cluster here"):
        sweep.run(Sweep(Config(), str(toy_data), SPACE), tmp_path / "sweep")
    parent = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["mlflow_run"]
    assert connect(store).get_run(parent).info.status == "FAILED"


def test_table_and_report_are_there_before_mlflow_is_asked(
    toy_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    trial = Trial("gru_a", {KIND: "gru", LR_G: 1e-4}, "done", 10, {METRIC: 0.5})
    monkeypatch.setattr(sweep, "_fit", lambda *_: {})
    monkeypatch.setattr(sweep, "collect", lambda *_: [trial])
    words = ["--data", str(toy_data), "--out", str(tmp_path / "sweep")]

    def refuse(*_: object, **__: object) -> None:
        raise RunError("cannot be registered")

    monkeypatch.setattr(sweep, "promote", refuse)
    assert main(words) == 2
    said = capsys.readouterr()
    assert "gru_a" in said.out and "cannot be registered" in said.err
    assert "gru_a" in (tmp_path / "sweep" / "report.html").read_text()

    def crown(*_: object, force: bool, **__: object) -> Promotion:
        (tmp_path / "sweep" / "trials.json").write_text("{}")
        return Promotion("gru_a", "as-is", "m", "", "1", 0.5, None, None, force, f"forced: {force}")

    monkeypatch.setattr(sweep, "promote", crown)
    assert main([*words, "--force"]) == 0
    assert "forced: True" in capsys.readouterr().out
    assert "forced: True" in (tmp_path / "sweep" / "report.html").read_text()
    store = connect(f"sqlite:///{tmp_path}/mlflow.db")
    parent = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["mlflow_run"]
    stored = {item.path for item in store.list_artifacts(parent)}
    assert stored == {"report.html", "parallel_coordinates.png", "curves.png", "trials.json"}
    assert store.get_run(parent).info.status == "FINISHED"
