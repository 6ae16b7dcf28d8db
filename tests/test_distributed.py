"""DDP as plain processes over gloo: what a trainer of Ray's would do, without Ray."""

import socket
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

from s2vgan.batches import Batch
from s2vgan.config import Config, LossConfig, ModelConfig, TrainConfig
from s2vgan.errors import DatasetError
from s2vgan.spec import GroupSpec
from s2vgan.train import Launch, train_loop
from s2vgan.training import TrainState, train_step

CONFIG = Config(model=ModelConfig(width=4), train=TrainConfig(amp="off"))
IDENTITY = Config(model=ModelConfig(width=4, identity=True), train=TrainConfig(amp="off"))
WAV2PIX = Config(
    ModelConfig(
        kind="wav2pix", z_dim=0, width=4, audio_features="waveform", audio_past=0.5,
        audio_ahead=0.5, audio_dropout=0, initial_state="zero", mean_face=False, pose_dim=0,
    ),
    LossConfig("lsgan", wrong=1, features=100, audio=0),
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("config", [CONFIG, WAV2PIX, IDENTITY], ids=["gru", "wav2pix", "identity"])
def test_two_ranks_stay_equal(config: Config) -> None:
    # An assertion that fails in one of the processes is raised again here.
    multiprocessing.spawn(_train_on_different_data, (_free_port(), config), 2)


def test_a_rank_that_cannot_start_leaves_no_other_waiting(toy_data: Path, tmp_path: Path) -> None:
    arguments = (_free_port(), str(toy_data), str(tmp_path / "run"))
    multiprocessing.spawn(_miss_the_data_on_one_rank, arguments, 2)
    assert not (tmp_path / "run").exists()
