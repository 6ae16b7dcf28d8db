import json
from pathlib import Path

import pytest

from s2vgan import cluster
from s2vgan.config import Config
from s2vgan.errors import RunError, ServiceError
from s2vgan.tracking.store import connect
from tune import sweep
from tune.sweep import Sweep, main, trial_config
from tune.trials import METRIC, Trial, table, trial_name


def test_every_pair_of_rates_runs_with_each_kind() -> None:
    grid = Sweep(Config(), "data", lr_g=(1e-4, 2e-4), lr_d=(3e-4,)).points
    assert len(grid) == 4
    assert {(point["lr_g"], point["kind"]) for point in grid} == {
        (1e-4, "gru"),
        (1e-4, "no_gru"),
        (2e-4, "gru"),
        (2e-4, "no_gru"),
    }


def test_a_trial_differs_in_what_it_tries_alone() -> None:
    base = Config()
    tried = trial_config(base, {"kind": "no_gru", "lr_g": 1e-3, "lr_d": 2e-3}).to_dict()
    assert tried["model"].pop("kind") == "no_gru"
    assert (tried["train"].pop("lr_g"), tried["train"].pop("lr_d")) == (1e-3, 2e-3)
    same = base.to_dict()
    del same["model"]["kind"], same["train"]["lr_g"], same["train"]["lr_d"]
    assert tried == same


def test_the_command_line_reaches_the_sweep(
    toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {}

    def run(wanted: Sweep, out: Path) -> list[object]:
        asked["sweep"] = wanted
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "run", run)
    file = tmp_path / "x.yaml"
    file.write_text("model: {width: 8}\ntrain: {batch: 4}\n")
    words = f"--data {toy_data} --out {tmp_path} --config {file} --lr-g 1e-3 2e-3 --steps 7"
    assert main([*words.split(), "--kinds", "gru"]) == 130
    wanted = asked["sweep"]
    assert wanted.config.model.width == 8 and wanted.config.train.batch == 4
    assert wanted.config.train.steps == 7 and wanted.config.train.minutes == 0
    assert wanted.lr_g == (1e-3, 2e-3) and wanted.kinds == ("gru",) and wanted.lr_d == Sweep.lr_d


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--lr-g 1e-4 1e-4", "given twice"),
        ("--workers 0", "at least 1"),
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
) -> None:
    out = tmp_path / "sweep"
    assert main(["--data", str(toy_data), "--out", str(out), *words.split()]) == 2
    assert sentence in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_holds_one_sweep(
    toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Sweep(Config(), str(toy_data)).to_dict()
    (tmp_path / "sweep.json").write_text(json.dumps({"settings": settings, "mlflow_run": None}))
    assert main(["--data", str(toy_data), "--out", str(tmp_path), "--lr-g", "1e-2"]) == 2
    assert "another lr_g" in capsys.readouterr().err


def test_a_sweep_that_cannot_start_ray_closes_its_run(
    toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)

    def connect_to_ray() -> None:
        raise ServiceError("no cluster here")

    monkeypatch.setattr(cluster, "connect", connect_to_ray)
    with pytest.raises(ServiceError, match="no cluster here"):
        sweep.run(Sweep(Config(), str(toy_data)), tmp_path / "sweep")
    parent = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["mlflow_run"]
    assert connect(store).get_run(parent).info.status == "KILLED"


def test_the_table_is_printed_before_mlflow_is_asked(
    toy_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = [Trial("a", {}, "done", 10, {METRIC: 0.5})]
    monkeypatch.setattr(sweep, "run", lambda *_: found)
    words = ["--data", str(toy_data), "--out", str(tmp_path)]

    def refuse(*_: object) -> None:
        raise RunError("cannot be registered")

    monkeypatch.setattr(sweep, "promote", refuse)
    assert main(words) == 2
    said = capsys.readouterr()
    assert table(found) in said.out and "cannot be registered" in said.err
    monkeypatch.setattr(sweep, "promote", lambda *_: (found[0], "1"))
    for champion in (True, False):
        monkeypatch.setattr(sweep, "is_champion", lambda _, answer=champion: answer)
        assert main(words) == 0
        said = capsys.readouterr()
        assert "models:/s2vgan/1" in said.out
        assert ("is now" in said.out) == champion


def test_names_stay_apart() -> None:
    points = Sweep(Config(), "data", lr_g=(1e-4, 1.5e-4), lr_d=(1e-5, 1e-4)).points
    assert len({trial_name(point) for point in points}) == len(points) == 8
