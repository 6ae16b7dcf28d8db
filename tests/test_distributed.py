"""DDP as plain processes over gloo: what a trainer of Ray's would do, without Ray."""

import dataclasses
import functools
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, multiprocessing

from s2vgan import book
from s2vgan.batches import Batch
from s2vgan.config import Config, LossConfig, ModelConfig, TrainConfig
from s2vgan.errors import DatasetError, RunError
from s2vgan.loop import Launch, train_loop
from s2vgan.runlog import read_log, read_run
from s2vgan.spec import GroupSpec
from s2vgan.tracking import tracking_uri
from s2vgan.training import TrainState, train_step

CONFIG = Config(model=ModelConfig(width=4), train=TrainConfig(amp="off"))
COMPILED = dataclasses.replace(CONFIG, train=TrainConfig(amp="off", compile=True))
IDENTITY = Config(model=ModelConfig(width=4, identity=True), train=TrainConfig(amp="off"))
WAV2PIX = Config(
    ModelConfig(
        kind="wav2pix", z_dim=0, width=4, audio_features="waveform", audio_past=0.5,
        audio_ahead=0.5, audio_dropout=0, initial_state="zero", mean_face=False, pose_dim=0,
    ),
    LossConfig("lsgan", wrong=1, features=100, seam=0, audio=0),
    TrainConfig(amp="off", pretrain_steps=0),
)  # fmt: skip


def _join(rank: int, port: int) -> None:
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)


def _same(value: torch.Tensor) -> bool:
    values = [torch.zeros_like(value) for _ in range(2)]
    distributed.all_gather(values, value.detach().contiguous())
    return torch.equal(*values)


def _train_on_different_data(rank: int, port: int, config: Config) -> None:
    _join(rank, port)
    if config.train.compile:
        torch.compile = functools.partial(torch.compile, backend="aot_eager")
    spec = GroupSpec(size=32)
    state = TrainState.create(config, spec, rank=rank, world=2)
    random = torch.Generator().manual_seed(rank)
    _, samples = spec.window(config.model.audio_past, config.model.audio_ahead)
    batch = Batch(
        torch.randn(4, 2, samples, generator=random) * 0.1,
        torch.rand(4, 6, 3, 32, 32, generator=random) * 2 - 1,
        torch.rand(4, 3, 32, 32, generator=random) * 2 - 1 if config.model.identity else None,
    )
    state.face.codes.fit(batch.frames.flatten(0, 1))  # another fit on every rank
    assert not _same(state.face.codes.pose_mean)
    state.distribute()
    before = next(state.g.parameters()).clone()
    for _ in range(2):
        train_step(state, batch)
    assert not torch.equal(next(state.g.parameters()), before)
    for module in (state.g, state.d):
        assert all(_same(value) for value in module.parameters())
    assert all(_same(value) for value in state.face.codes.buffers())
    distributed.destroy_process_group()


def _miss_the_data_on_one_rank(rank: int, port: int, data: str, out: str) -> None:
    _join(rank, port)
    launch = Launch(CONFIG, data if rank == 0 else "/nowhere", out, "run", "sqlite:///unused.db")
    if rank == 0:
        train_loop(launch, torch.device("cpu"), rank, 2, None)  # returns: nothing to train with
    else:
        with pytest.raises(DatasetError):
            train_loop(launch, torch.device("cpu"), rank, 2, None)
    distributed.destroy_process_group()


def _find_a_checkpoint_on_one_rank(rank: int, port: int, data: str, runs: list[str]) -> None:
    _join(rank, port)
    launch = Launch(_brief(3), data, runs[rank], "run", tracking_uri())
    if rank == 0:
        train_loop(launch, torch.device("cpu"), rank, 2, None)  # returns: nobody to train with
    else:
        with pytest.raises(RunError, match="worker 1 finds no checkpoint there, and worker 0 step"):
            train_loop(launch, torch.device("cpu"), rank, 2, None)
    distributed.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(CONFIG, id="gru"),
        pytest.param(COMPILED, id="compiled", marks=pytest.mark.slow),
        pytest.param(WAV2PIX, id="wav2pix"),
        pytest.param(IDENTITY, id="identity"),
    ],
)
def test_two_ranks_stay_equal(config: Config) -> None:
    # An assertion that fails in one of the processes is raised again here.
    multiprocessing.spawn(_train_on_different_data, (_free_port(), config), 2)


def test_a_rank_that_cannot_start_leaves_no_other_waiting(toy_data: Path, tmp_path: Path) -> None:
    arguments = (_free_port(), str(toy_data), str(tmp_path / "run"))
    multiprocessing.spawn(_miss_the_data_on_one_rank, arguments, 2)
    assert not (tmp_path / "run").exists()


def test_ranks_that_would_begin_at_different_steps_say_so(toy_data: Path, tmp_path: Path) -> None:
    shared, own = tmp_path / "shared", tmp_path / "own"
    _train(0, 0, 1, str(toy_data), str(shared), 3)
    log = read_log(shared)
    runs = [str(shared), str(own)]
    arguments = (_free_port(), str(toy_data), runs)
    multiprocessing.spawn(_find_a_checkpoint_on_one_rank, arguments, 2)
    assert not own.exists()
    assert read_log(shared) == log


def _brief(steps: int) -> Config:
    train = TrainConfig(
        steps=steps, minutes=0, batch=8, pretrain_steps=2, evaluate_every=3, amp="off"
    )
    return Config(ModelConfig(width=4), train=train)


def _train(rank: int, port: int, world: int, data: str, out: str, steps: int) -> None:
    if world > 1:
        _join(rank, port)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    launch = Launch(_brief(steps), data, out, "run", tracking_uri())
    train_loop(launch, torch.device("cpu"), rank, world, None)
    if world > 1:
        distributed.destroy_process_group()


def _checkpoint(run: Path, step: int) -> dict[str, Any]:
    path = run / "checkpoints" / f"step_{step:07d}.pt"
    return dict(torch.load(path, weights_only=True))


def test_a_resumed_run_of_two_ranks_equals_an_unbroken_one(toy_data: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for run, steps in ((whole, 6), (broken, 3), (broken, 6)):
        arguments = (_free_port(), 2, str(toy_data), str(run), steps)
        multiprocessing.spawn(_train, arguments, 2)
    ours, theirs = _checkpoint(broken, 6), _checkpoint(whole, 6)
    for part in ("g", "d", "ema"):
        for name, value in ours[part].items():
            assert torch.equal(value, theirs[part][name]), f"{part}.{name}"
    for part in ("opt_g", "opt_d"):
        for number, state in ours[part]["state"].items():
            for name, value in state.items():
                assert torch.equal(value, theirs[part]["state"][number][name]), f"{part}.{name}"
    assert ours["best"] == theirs["best"]


def test_two_ranks_go_on_with_the_run_of_one(toy_data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    multiprocessing.spawn(_train, (0, 1, str(toy_data), str(run), 3), 1)
    first = _checkpoint(run, 3)
    multiprocessing.spawn(_train, (_free_port(), 2, str(toy_data), str(run), 6), 2)
    last = _checkpoint(run, 6)
    assert last["seconds"] > first["seconds"]
    assert all(value.isfinite().all() for value in last["g"].values())
    assert [line["step"] for line in read_log(run) if "val/score" in line] == [3, 6]


def _lose_the_disk(rank: int, port: int, data: str, out: str) -> None:
    def full(*_: object) -> None:
        raise RunError("the disk is full")

    book.save_checkpoint = full  # type: ignore[assignment]
    if rank == 0:
        with pytest.raises(RunError, match="the disk is full"):
            _train(rank, port, 2, data, out, 100)
    else:
        _train(rank, port, 2, data, out, 100)  # returns: it was told


def test_a_rank_that_cannot_write_leaves_no_other_waiting(toy_data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    multiprocessing.spawn(_lose_the_disk, (_free_port(), str(toy_data), str(run)), 2)
    assert read_run(run)["status"] == "FAILED"
    assert read_log(run)[-1]["step"] == 10, "the next step at which they agree"
