import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from s2vgan.checkpoints import load_checkpoint, save_checkpoint
from s2vgan.config import Config, LossConfig, ModelConfig, TrainConfig
from s2vgan.dataset import GroupDataset
from s2vgan.errors import DatasetError, RunError
from s2vgan.training import (
    Batch,
    Sampler,
    TrainState,
    fit_face,
    pretrain_audio,
    train_step,
    wants_bf16,
)
from s2vgan.validation import validate, validation_rows

CONFIG = Config(
    model=ModelConfig(width=8),
    train=TrainConfig(lr_g=1e-3, batch=8, amp="off", pretrain_steps=30),
)
PAPER = Config(
    model=ModelConfig(
        z_dim=10, width=8, audio_features="waveform", audio_past=0, audio_ahead=0,
        audio_dropout=0, frame_features="shared", initial_state="zero", carry_state=False,
        mean_face=False, pose_dim=0, discriminator_gru_after=0, spectral_norm=False,
    ),
    loss=LossConfig("bce", gan=1, l1=0, ssim=0, mouth=1, audio=0),
    train=TrainConfig(batch=8, sequence=1, amp="off", pretrain_steps=0, ema=0, clip=0),
)  # fmt: skip
NO_GRU = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, kind="no_gru"))


@pytest.fixture(scope="module")
def dataset(toy_data: Path) -> GroupDataset:
    return GroupDataset.load(toy_data)


@pytest.fixture(autouse=True)
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def start(dataset: GroupDataset, config: Config = CONFIG) -> tuple[TrainState, Sampler]:
    rows = dataset.split()[0]
    state = TrainState.create(config, dataset.spec)
    fit_face(state, dataset, rows)
    sequences = dataset.sequences(rows, config.train.sequence)
    batch = config.train.batch // config.train.sequence
    return state, Sampler(sequences, batch, config.train.seed)


def steps(state: TrainState, sampler: Sampler, dataset: GroupDataset, count: int) -> list[float]:
    seen = []
    for _ in range(count):
        rows = sampler.rows(state.step, 0, 1)
        losses = train_step(state, Batch.gather(dataset, rows, state.config, state.device))
        seen.append(losses["loss_g"].item())
    return seen


def test_the_sampler_shares_each_pass_out_once() -> None:
    sampler = Sampler(np.arange(24)[:, None], batch=4, seed=3)
    passes = [
        np.concatenate([sampler.rows(step, rank, 2) for step in range(6 * p, 6 * p + 6)
                        for rank in (0, 1)]).ravel()
        for p in (0, 1)
    ]  # fmt: skip
    assert sorted(passes[0]) == sorted(passes[1]) == list(range(24))
    assert list(passes[0]) != list(passes[1])
    alone = sampler.rows(2, 0, 1)
    shared = np.concatenate([sampler.rows(2, rank, 2) for rank in (0, 1)])
    np.testing.assert_array_equal(alone, shared)


def test_fewer_sequences_than_a_batch_are_refused() -> None:
    with pytest.raises(DatasetError, match=r"3 sequences .* train\.batch"):
        Sampler(np.arange(3)[:, None], batch=4, seed=0)


@pytest.mark.parametrize("config", [CONFIG, NO_GRU], ids=["gru", "no_gru"])
def test_it_overfits_one_batch(dataset: GroupDataset, config: Config) -> None:
    state, sampler = start(dataset, config)
    batch = Batch.gather(dataset, sampler.rows(0, 0, 1), config, state.device)
    first = train_step(state, batch)
    for _ in range(50):
        last = train_step(state, batch)
    assert last["loss/l1"] < 0.5 * first["loss/l1"]
    assert last["loss/audio"] < 0.5 * first["loss/audio"]
    assert state.step == 51 and state.skipped == 0


def test_pretraining_teaches_the_mouth(dataset: GroupDataset) -> None:
    state, _ = start(dataset)
    errors = [values["pretrain_audio"] for values in pretrain_audio(state, dataset, np.arange(102))]
    assert len(errors) == 30
    assert np.mean(errors[-5:]) < 0.8 * np.mean(errors[:5])


@pytest.mark.parametrize("config", [CONFIG, NO_GRU, PAPER], ids=["gru", "no_gru", "paper"])
def test_a_resumed_run_equals_an_unbroken_one(
    dataset: GroupDataset, config: Config, tmp_path: Path
) -> None:
    whole, sampler = start(dataset, config)
    unbroken = steps(whole, sampler, dataset, 6)
    state, sampler = start(dataset, config)
    first = steps(state, sampler, dataset, 3)
    state.seconds = 12.5
    save_checkpoint(state, tmp_path, dataset.info.sha256)
    resumed = TrainState.create(config, dataset.spec)
    assert load_checkpoint(resumed, tmp_path, dataset.info.sha256) == []
    assert (resumed.step, resumed.seconds) == (3, 12.5)
    assert first + steps(resumed, sampler, dataset, 3) == unbroken
    for module in ("g", "d", "ema"):
        ours, theirs = (getattr(s, module).state_dict() for s in (resumed, whole))
        for name, value in ours.items():
            assert torch.equal(value, theirs[name]), f"{module}.{name}"


def test_a_damaged_checkpoint_is_named_and_the_older_one_used(
    dataset: GroupDataset, tmp_path: Path
) -> None:
    state, sampler = start(dataset)
    for _ in range(3):
        steps(state, sampler, dataset, 1)
        save_checkpoint(state, tmp_path, dataset.info.sha256)
    kept = sorted(path.name for path in tmp_path.glob("*.pt"))
    assert kept == ["step_0000002.pt", "step_0000003.pt"]
    newest = tmp_path / "step_0000003.pt"
    newest.write_bytes(newest.read_bytes()[:-1] + b"?")
    again = TrainState.create(CONFIG, dataset.spec)
    sentences = load_checkpoint(again, tmp_path, dataset.info.sha256)
    assert again.step == 2 and len(sentences) == 1 and "step_0000003.pt is damaged" in sentences[0]
    (tmp_path / "step_0000002.sha256").unlink()
    with pytest.raises(RunError, match="no whole checkpoint"):
        load_checkpoint(again, tmp_path, dataset.info.sha256)


def test_resuming_something_else_is_refused(dataset: GroupDataset, tmp_path: Path) -> None:
    state, _ = start(dataset)
    save_checkpoint(state, tmp_path, dataset.info.sha256)
    with pytest.raises(RunError, match="another dataset"):
        load_checkpoint(state, tmp_path, "0" * 64)
    changed = dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, lr_d=1.0))
    with pytest.raises(RunError, match=r"train\.lr_d"):
        load_checkpoint(TrainState.create(changed, dataset.spec), tmp_path, dataset.info.sha256)
    longer = dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, minutes=99))
    load_checkpoint(TrainState.create(longer, dataset.spec), tmp_path, dataset.info.sha256)


def test_a_step_without_a_finite_gradient_changes_nothing(dataset: GroupDataset) -> None:
    state, sampler = start(dataset)
    batch = Batch.gather(dataset, sampler.rows(0, 0, 1), CONFIG, state.device)
    train_step(state, batch)
    kept = {
        "g": {name: value.clone() for name, value in state.g.state_dict().items()},
        "ema": {name: value.clone() for name, value in state.ema.state_dict().items()},
    }
    nan = float("nan")
    train_step(
        state, dataclasses.replace(batch, frames=batch.frames * nan, audio=batch.audio * nan)
    )
    assert state.skipped == 2  # D's update and G's
    for module, values in kept.items():
        for name, value in getattr(state, module).state_dict().items():
            assert torch.equal(value, values[name]), f"{module}.{name}"


@pytest.mark.parametrize("config", [CONFIG, NO_GRU, PAPER], ids=["gru", "no_gru", "paper"])
def test_bf16_trains_weights_of_full_precision(dataset: GroupDataset, config: Config) -> None:
    mixed = dataclasses.replace(config, train=dataclasses.replace(config.train, amp="bf16"))
    state, sampler = start(dataset, mixed)
    before = {name: value.clone() for name, value in state.g.named_parameters()}
    assert np.isfinite(steps(state, sampler, dataset, 2)).all()
    assert state.skipped == 0
    moved = [not torch.equal(value, before[name]) for name, value in state.g.named_parameters()]
    assert sum(moved) > len(moved) / 2
    assert all(value.dtype == torch.float32 for value in state.g.parameters())
    assert wants_bf16("bf16", state.device) and not wants_bf16("off", state.device)


def test_the_average_follows_the_weights(dataset: GroupDataset) -> None:
    state, sampler = start(dataset)
    steps(state, sampler, dataset, 3)
    name, weight = next(iter(state.face.generator.named_parameters()))
    average = dict(state.ema.generator.named_parameters())[name]
    assert not torch.equal(weight, average)
    torch.testing.assert_close(weight, average, atol=0.05, rtol=0)
    paper, sampler = start(dataset, PAPER)
    assert paper.ema is paper.g


def test_validation_reads_held_out_time(dataset: GroupDataset) -> None:
    state, _ = start(dataset)
    rows = validation_rows(dataset, dataset.split()[1])
    assert rows.shape == (2, 9) and set(rows.ravel()) == set(dataset.split()[1])
    readings, picture = validate(state, dataset, rows)
    assert set(readings) == {
        "val/l1", "val/ssim", "val/mouth_r", "val/mouth_r_shuffled", "val/mouth_amplitude",
        "val/sharpness", "val/score",
    }  # fmt: skip
    assert all(np.isfinite(list(readings.values())))
    assert picture.dtype == np.uint8 and picture.shape[-1] == 3
    again, _ = validate(state, dataset, rows)
    assert again == readings
    assert validation_rows(dataset, np.empty(0, np.int64)).size == 0
