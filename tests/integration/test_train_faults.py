"""A training that is killed or interrupted, or whose disk is full, started as a user does it."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from s2vgan import artifact
from s2vgan.runlog import read_log, read_run
from s2vgan.tracking.store import connect
from tests.integration.test_chaos import below, eventually, small_disk

pytestmark = [pytest.mark.chaos, pytest.mark.slow]
EVERY = 20  # steps between checkpoints
__all__ = ["small_disk"]  # a fixture


class Training:
    """``s2vgan train`` in a process group of its own, as a terminal would start it."""

    def __init__(self, data: Path, folder: Path, workers: int) -> None:
        self.run, self.said, self.workers = folder / "run", folder / "said.txt", workers
        self.uri = f"sqlite:///{folder}/mlflow.db"
        self.environment = os.environ | {"MLFLOW_TRACKING_URI": self.uri}
        self.command = [
            sys.executable, "-m", "s2vgan.cli", "train", "--data", str(data), "--out",
            str(self.run), "--workers", str(workers), "--model.width", "4", "--train.batch", "8",
            "--train.evaluate_every", str(EVERY), "--train.pretrain_steps", "2",
            "--train.amp", "off",
        ]  # fmt: skip

    def start(self, *arguments: str) -> "subprocess.Popen[bytes]":
        with self.said.open("a") as said:
            self.process = subprocess.Popen(
                [*self.command, *arguments],
                env=self.environment, stdout=said, stderr=said, start_new_session=True,
            )  # fmt: skip
        return self.process

    def wait_for(self, condition: Callable[[], object]) -> None:
        def done() -> object:
            assert self.process.poll() is None, self.said.read_text()
            return condition()

        eventually(done, 300)

    def steps(self, name: str = "loss_g") -> list[int]:
        return [line["step"] for line in read_log(self.run) if name in line]

    def checkpoints(self) -> list[int]:
        return sorted(int(path.stem[5:]) for path in (self.run / "checkpoints").glob("*.pt"))


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.ray)])
def test_an_interrupted_training_goes_on_where_it_was(
    workers: int, toy_data: Path, tmp_path: Path
) -> None:
    training = Training(toy_data, tmp_path, workers)
    process = training.start("--steps", "100000")
    training.wait_for(lambda: training.steps() and training.steps()[-1] >= EVERY + 10)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: every process hears it
    assert process.wait() == 130, training.said.read_text()
    said = training.said.read_text()
    assert "Traceback" not in said and "ending with a checkpoint" in said
    step = training.checkpoints()[-1]
    assert f"Stopped at step {step}; " in said and "interrupted" in said
    assert training.steps()[-1] <= step < training.steps()[-1] + 10, "no step was lost"
    about = read_run(training.run)
    assert (about["status"], about["step"]) == ("KILLED", step)
    client = connect(training.uri)
    assert client.get_run(about["mlflow_run"]).info.status == "KILLED"
    before = (training.run / "metrics.jsonl").read_text()

    assert training.start("--steps", str(step + 15), "--resume").wait() == 0
    log = (training.run / "metrics.jsonl").read_text()
    assert log.startswith(before)
    assert artifact.load(training.run).manifest["step"] == step + 15
    assert read_run(training.run)["mlflow_run"] == about["mlflow_run"]
    history = client.get_metric_history(about["mlflow_run"], "loss_g")
    assert [item.step for item in history] == training.steps(), "each step is told once"


@pytest.mark.ray
def test_a_killed_worker_costs_one_interval_at_most(toy_data: Path, tmp_path: Path) -> None:
    training = Training(toy_data, tmp_path, 2)
    process = training.start("--steps", "80")
    training.wait_for(lambda: training.steps() and training.steps()[-1] >= 2 * EVERY + 10)
    workers = [pid for pid, line in below(process.pid).items() if "RayTrainWorker" in line]
    assert len(workers) == 2
    log = training.run / "metrics.jsonl"
    first = log.stat().st_ino
    os.kill(workers[0], signal.SIGKILL)
    reached = training.steps()[-1]
    training.wait_for(lambda: log.stat().st_ino != first)  # whoever goes on writes it anew
    assert training.steps()[-1] >= reached - EVERY - 10
    assert process.wait(300) == 0, training.said.read_text()
    assert "Traceback" not in training.said.read_text()
    assert artifact.load(training.run).manifest["step"] == 80
    assert training.steps() == list(range(10, 81, 10))
    assert training.steps("val/score") == [20, 40, 60, 80]
    history = connect(training.uri).get_metric_history(
        read_run(training.run)["mlflow_run"], "loss_g"
    )
    assert [item.step for item in history] == training.steps()


FULL = """
set -e; disk=$1 room=$2; shift 2; mount -t tmpfs -o size="$room" none "$disk"
status=0; "$@" || status=$?; echo "status $status"; cp -a "$disk/run" "$disk/../full"
mount -o remount,size=100% "$disk"; resume=; ls "$disk"/run/checkpoints/*.pt && resume=--resume
"$@" $resume; cp -a "$disk/run" "$disk/../again"
"""


@pytest.mark.parametrize(
    ("workers", "kilobytes", "left"),
    [
        (0, 2600, []),
        (0, 14000, [20]),
        pytest.param(2, 14000, [20], marks=pytest.mark.ray),
    ],
)
def test_on_a_full_disk_the_last_checkpoint_is_left(
    small_disk: None, workers: int, kilobytes: int, left: list[int], toy_data: Path, tmp_path: Path
) -> None:
    """A tmpfs that only the command sees, with room for a model of 1.6 MB, or for two and a
    checkpoint of 6.5 MB; then there is room for all."""
    disk = tmp_path / "disk"
    disk.mkdir()
    training = Training(toy_data, disk, workers)
    command = [*training.command, "--steps", "45"]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", FULL, "sh", str(disk), f"{kilobytes}k", *command],
        env=training.environment | {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db"},
        capture_output=True, text=True, timeout=400,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "status 2" in said and "Traceback" not in said, said
    assert re.search(rf"s2vgan: {disk}/run/(best|model|checkpoints/step_0000\d+.pt): cannot", said)
    assert "No space left on device" in said and "make room there" in said
    full = Training(toy_data, tmp_path, workers)
    full.run = tmp_path / "full"
    assert full.checkpoints() == left
    assert not list(full.run.rglob("*.tmp")) and read_run(full.run)["status"] == "FAILED"
    again = Training(toy_data, tmp_path, workers)
    again.run = tmp_path / "again"
    assert again.steps() == [10, 20, 30, 40, 45]
    assert artifact.load(again.run).manifest["step"] == 45
