"""The method's experiment trains each recipe once, goes on after Ctrl-C, and refuses another's."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines import table1
from pipelines.trainings import Training
from s2vgan.errors import ConfigError, RunError
from s2vgan.runlog import read_log, read_run

SMALL = ("--train.batch", "4", "--model.width", "4", "--train.steps", "400")
ROOT = Path(__file__).resolve().parents[2]


def test_each_recipe_has_its_configuration_and_the_first_seeds_come_first(toy_data: Path) -> None:
    out = Path("out")
    runs = table1.trainings(out, 10, 3, tuple(table1.RECIPES), ())
    names = [training.run.name for training in runs]
    assert names[:5] == [f"{name}-0" for name in table1.RECIPES]
    assert sorted(names[5:]) == sorted(f"{n}-{seed}" for n in table1.SEEDED for seed in (1, 2))
    configs = {training.run.name: training.config for training in runs}
    kinds = {name: config.model.kind for name, config in configs.items()}
    assert kinds["wav2pix-0"] == "wav2pix"
    assert kinds["paper_gru-0"] == kinds["base_gru-2"] == "gru"
    assert kinds["paper_no_gru-0"] == kinds["base_no_gru-1"] == "no_gru"
    assert configs["paper_gru-0"].loss.l1 == 0 and configs["base_gru-0"].loss.l1 > 0
    assert [configs[f"base_gru-{seed}"].train.seed for seed in range(3)] == [0, 1, 2]
    assert {config.train.minutes for config in configs.values()} == {10}


def test_a_run_of_other_settings_is_refused_by_name(toy_data: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "base_gru-0"
    mine = Training(run, toy_data, ("--steps", "5"))
    run.mkdir(parents=True)
    config = mine.config.to_dict()
    (run / "config.json").write_text(json.dumps(config))
    about = {"data": str(toy_data), "status": "FINISHED"}
    (run / "run.json").write_text(json.dumps(about))
    assert mine.is_finished()
    (run / "run.json").write_text(json.dumps(about | {"status": "KILLED"}))
    assert not mine.is_finished()
    config["train"]["lr_g"] = 1.0
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match=r"base_gru-0.*train\.lr_g"):
        mine.is_finished()
    (run / "run.json").write_text(json.dumps(about | {"data": "/elsewhere"}))
    with pytest.raises(RunError, match="dataset"):
        mine.is_finished()


def test_a_training_that_fails_names_its_log(toy_data: Path, tmp_path: Path) -> None:
    training = Training(tmp_path / "run", toy_data, ("--workers", "0", "--train.batch", "4096"))
    with pytest.raises(RunError, match=r"fewer than one batch.*run\.log"):
        training.finish()


def test_wrong_settings_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    for settings in ({"minutes": 0.0}, {"seeds": 0}, {}):
        with pytest.raises(ConfigError):
            table1.run(None, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_interrupted_experiment_goes_on(toy_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(toy_data, out / "data")
    command = [sys.executable, "-m", "pipelines.table1", "--out", str(out), "--minutes", "10"]
    command += ["--recipes", "base_no_gru", "base_gru", "--settings", *SMALL]
    first, second = (out / "runs" / name for name in ("base_no_gru-0", "base_gru-0"))

    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    while child.poll() is None and not any(line["step"] >= 10 for line in read_log(first)):
        time.sleep(0.2)
    child.send_signal(signal.SIGINT)
    said = child.communicate(timeout=300)[0].decode()
    assert child.returncode == 130, said
    assert "the same command goes on" in said
    stopped = read_run(first)
    assert stopped["status"] == "KILLED" and 10 <= stopped["step"] < 400
    assert not second.exists()

    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "2 runs of 10 minutes, 0 of them done" in ended.stdout
    for run in (first, second):
        assert read_run(run)["status"] == "FINISHED"
        assert read_run(run)["step"] == 400
    rows = json.loads((out / "report" / "metrics.json").read_text())["rows"]
    assert {"base_no_gru-0", "base_gru-0"} <= {row["name"] for row in rows}

    # A third time nothing is trained.
    before = (second / "run.json").stat().st_mtime_ns
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 0 and "2 of them done" in again.stdout
    assert (second / "run.json").stat().st_mtime_ns == before
