"""What goes wrong while a run trains, and that it goes on as if nothing had happened."""

import dataclasses
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from s2vgan import artifact, book, checkpoints, interrupt, ledger, tracking
from s2vgan.cli import main
from s2vgan.config import Config, ModelConfig, TrainConfig
from s2vgan.errors import RunError
from s2vgan.groups import Group
from s2vgan.runlog import RunLog, read_run
from s2vgan.spec import GroupSpec
from s2vgan.tracking import store
from s2vgan.train import train
from tests.conftest import write_video

SPEC = GroupSpec(size=32)
SHORT = [
    "--workers", "0", "--model.width", "4", "--train.batch", "4", "--train.evaluate_every", "2",
    "--train.pretrain_steps", "1", "--train.amp", "off",
]  # fmt: skip


def config(steps: int, **changes: Any) -> Config:
    quick = TrainConfig(
        steps=steps, minutes=0, batch=4, evaluate_every=2, pretrain_steps=1, amp="off"
    )
    return Config(ModelConfig(width=4), train=dataclasses.replace(quick, **changes))


def test_of_a_damaged_checkpoint_the_user_hears_and_the_run_goes_on(
    toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    command = ["train", "--data", str(toy_data), "--out", str(run), *SHORT]
    assert main([*command, "--steps", "4"]) == 0
    whole = {path.name: path.read_bytes() for path in (run / "checkpoints").glob("*.pt")}
    (run / "checkpoints" / "step_0000004.pt").write_bytes(b"torn")
    capsys.readouterr()
    assert main([*command, "--steps", "4", "--resume"]) == 0
    assert "step_0000004.pt is damaged and was passed over" in capsys.readouterr().err
    again = torch.load(run / "checkpoints" / "step_0000004.pt", weights_only=True)
    (tmp_path / "whole.pt").write_bytes(whole["step_0000004.pt"])
    first = torch.load(tmp_path / "whole.pt", weights_only=True)
    for module in ("g", "d", "ema"):
        for name, value in first[module].items():
            assert torch.equal(value, again[module][name]), f"{module}.{name}"
    for path in (run / "checkpoints").glob("*.pt"):
        path.write_bytes(b"torn")
    assert main([*command, "--steps", "6", "--resume"]) == 2
    said = capsys.readouterr().err
    assert "no whole checkpoint to resume from" in said and "Traceback" not in said
    history = connect_history(run, "loss_g")
    assert [step for step, _ in history] == [4], "a step that was done again is told once"


def connect_history(run: Path, name: str, uri: str | None = None) -> list[tuple[int, float]]:
    client = store.connect(uri or tracking.tracking_uri())
    found = client.get_metric_history(read_run(run)["mlflow_run"], name)
    return [(item.step, item.value) for item in found]


@pytest.mark.parametrize("full", ["log", "picture", "model", "checkpoint", "about"])
def test_a_full_disk_is_named_and_the_run_goes_on_when_there_is_room(
    full: str,
    toy_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tmp_path / "run"
    command = ["train", "--data", str(toy_data), "--out", str(run), *SHORT]
    assert main([*command, "--steps", "2"]) == 0
    before = (run / "metrics.jsonl").read_bytes()

    def no_room(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    owner, name, file = {
        "log": (json, "dumps", "metrics.jsonl"),
        "picture": (Path, "write_bytes", "samples/step_0000004.png"),
        "model": (artifact, "save_file", "model"),
        "checkpoint": (torch, "save", "checkpoints/step_0000004.pt"),
        "about": (checkpoints, "write_text", "checkpoints/step_0000004.pt"),
    }[full]
    capsys.readouterr()
    with monkeypatch.context() as patch:
        if full == "log":
            owner, name = RunLog, "write"

            def write(log: RunLog, *_: Any) -> None:
                with book.writing(log.path):
                    no_room()

            patch.setattr(owner, name, write)
        else:
            patch.setattr(owner, name, no_room)
        assert main([*command, "--steps", "5", "--resume"]) == 2
    said = capsys.readouterr().err
    assert f"{run}/{file}: cannot be written (No space left on device)" in said
    assert "make room" in said and "Traceback" not in said
    assert (run / "metrics.jsonl").read_bytes().startswith(before)
    assert read_run(run)["status"] == "FAILED"
    [kept] = (run / "checkpoints").glob("*.pt")
    assert kept.name == "step_0000002.pt" and not list(run.rglob("*.tmp"))
    assert main([*command, "--steps", "5", "--resume"]) == 0
    assert artifact.load(run).manifest["step"] == 5


# Datasets


def groups(count: int, length: int) -> list[Group]:
    """Segments of so many groups each."""
    random = np.random.default_rng(0)
    return [
        Group(
            number // length,
            number + number // length,  # a gap after each segment
            random.integers(0, 255, SPEC.frame_shape).astype(np.uint8),
            random.integers(-9, 9, SPEC.samples_per_group).astype(np.int16),
            np.zeros((3, 4), np.int16),
        )
        for number in range(count)
    ]


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def of_another_spec(path: Path) -> None:
    table = pq.read_table(path)
    about = {
        key: value.replace(b'"size": 32', b'"size": 64').replace(b'"size":32', b'"size":64')
        for key, value in table.schema.metadata.items()
    }
    assert about != table.schema.metadata
    pq.write_table(table.replace_schema_metadata(about), path)


@pytest.mark.parametrize("spoil", [torn, of_another_spec])
def test_a_spoilt_groups_file_is_named_and_nothing_begun(
    spoil: Callable[[Path], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    for name in ("first", "second"):
        write_video(data, name, groups(30, 30), SPEC)
    ledger.write_dataset(data, SPEC)
    file = data / "groups" / "second.parquet"
    whole = file.read_bytes()
    spoil(file)
    command = ["train", "--data", str(data), "--out", str(run), *SHORT, "--steps", "2"]
    assert main(command) == 2
    said = capsys.readouterr().err
    assert "second" in said and "Traceback" not in said
    assert not run.exists()
    file.write_bytes(whole)
    assert main(command) == 0


def test_one_video_is_enough_and_short_segments_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", *SHORT, "--train.sequence", "4", "--steps", "2"]
    for name, length in (("one", 40), ("short", 3)):
        write_video(tmp_path / name, "only", groups(40, length), SPEC)
        ledger.write_dataset(tmp_path / name, SPEC)
    run = tmp_path / "run"
    assert main([*command, "--data", str(tmp_path / "short"), "--out", str(run)]) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path}/short: the training time holds 0 sequences of 4 groups" in said
    assert "train.sequence" in said and not run.exists()
    assert main([*command, "--data", str(tmp_path / "one"), "--out", str(run)]) == 0
    assert (
        main(
            [
                *command[:-4],
                "--steps",
                "2",
                "--resume",
                "--data",
                str(tmp_path / "short"),
                "--out",
                str(run),
            ]
        )
        == 2
    )
    assert "another dataset" in capsys.readouterr().err


# The best model


def test_the_best_model_is_kept_beside_the_latest(
    toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.5, 0.7, float("nan"), 0.6, 0.65, 0.8])
    real = book.validate

    def validate(*args: Any) -> Any:
        readings, samples = real(*args)
        return readings | {"val/score": next(scores)}, samples

    monkeypatch.setattr(book, "validate", validate)

    def steps() -> tuple[int, int]:
        found = (artifact.load(run / name).manifest["step"] for name in ("model", "best"))
        return next(found), next(found)

    run = train(config(8), toy_data, tmp_path / "run", workers=0)
    assert steps() == (8, 4)
    assert artifact.find(run) == run / "model"
    train(config(10), toy_data, run, workers=0, resume=True)
    assert steps() == (10, 4), "the best score outlives the process"
    assert artifact.load(run / "best").manifest["readings"]["val/score"] == 0.7
    shutil.rmtree(run / "best")  # killed while it was replaced
    train(config(12), toy_data, run, workers=0, resume=True)
    assert steps() == (12, 12)
    with tracking.fetch_model(f"runs:/{read_run(run)['mlflow_run']}/best") as kept:
        assert artifact.load(kept).manifest["step"] == 12


def test_a_finished_run_is_resumed_without_being_evaluated_again(
    toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(config(4), toy_data, tmp_path / "run", workers=0)
    log, model = (run / "metrics.jsonl").read_text(), (run / "model" / "manifest.json").read_bytes()
    evaluated: list[int] = []
    real = book.RunBook.evaluate

    def evaluate(self: book.RunBook) -> dict[str, float]:
        evaluated.append(4)
        return real(self)

    monkeypatch.setattr(book.RunBook, "evaluate", evaluate)
    train(config(4), toy_data, run, workers=0, resume=True)
    assert not evaluated
    assert (run / "metrics.jsonl").read_text() == log
    assert (run / "model" / "manifest.json").read_bytes() == model
    assert read_run(run)["status"] == "FINISHED" and tracking.is_delivered(run)

    # Interrupted after its last step: the checkpoint is there, its evaluation is not.
    kept = [
        line for line in log.splitlines() if '"val/score"' not in line or '"step": 4' not in line
    ]
    assert len(kept) == len(log.splitlines()) - 1
    (run / "metrics.jsonl").write_text("".join(line + "\n" for line in kept))
    train(config(4), toy_data, run, workers=0, resume=True)
    assert evaluated == [4]


# MLflow


# Ctrl-C


def test_the_first_interrupt_asks_and_the_second_ends(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interrupt.deferred(tmp_path) as asked:
        os.kill(os.getpid(), signal.SIGINT)
        assert asked.is_set() and (tmp_path / interrupt.STOP).exists()
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before
    assert not (tmp_path / interrupt.STOP).exists()


def test_a_job_that_does_not_end_when_asked_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setattr(interrupt, "PATIENCE", 0.2)
    asked, end = threading.Event(), threading.Event()
    asked.set()
    with pytest.raises(KeyboardInterrupt):
        interrupt.supervise(lambda: print(end.wait()), asked)
    end.set()
    with pytest.raises(RunError, match="its own"):
        interrupt.supervise(_fail, threading.Event())


def _fail() -> None:
    raise RunError("its own")
