import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from s2vgan.batches import Batch, Sampler
from s2vgan.checkpoints import load_checkpoint, save_checkpoint
from s2vgan.config import Config, LossConfig, ModelConfig, TrainConfig
from s2vgan.dataset import GroupDataset
from s2vgan.errors import DatasetError, RunError
from s2vgan.models import TalkingFace
from s2vgan.people import with_references
from s2vgan.training import TrainState, fit_face, pretrain_audio, train_step, wants_bf16

CONFIG = Config(
    model=ModelConfig(width=8),
    train=TrainConfig(lr_g=1e-3, batch=8, amp="off", pretrain_steps=30, gain=6.0),
)
PAPER = Config(
    model=ModelConfig(
        z_dim=10, width=8, audio_features="waveform", audio_past=0, audio_ahead=0,
        audio_dropout=0, frame_features="shared", initial_state="zero", carry_state=False,
        mean_face=False, pose_dim=0, discriminator_gru_after=0, spectral_norm=False,
    ),
    loss=LossConfig("bce", gan=1, l1=0, ssim=0, seam=0, mouth=1, audio=0),
    train=TrainConfig(batch=8, sequence=1, amp="off", pretrain_steps=0, ema=0, clip=0),
)  # fmt: skip
WAV2PIX = Config(
    model=ModelConfig(
        kind="wav2pix", z_dim=0, width=8, audio_features="waveform", audio_past=0.5,
        audio_ahead=0.5, audio_dropout=0, initial_state="zero", carry_state=False,
        mean_face=False, pose_dim=0,
    ),
    loss=LossConfig("lsgan", wrong=1, gan=1, features=100, l1=50, ssim=0, seam=0, mouth=1, audio=0),
    train=TrainConfig(
        lr_d=4e-4, lr_g=1e-3, batch=4, sequence=1, stride=1, amp="off", pretrain_steps=0, ema=0,
        clip=0,
    ),
)  # fmt: skip
NO_GRU = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, kind="no_gru"))
IDENTITY = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, identity=True))

KINDS = {
    "gru": CONFIG, "no_gru": NO_GRU, "paper": PAPER, "wav2pix": WAV2PIX, "identity": IDENTITY
}  # fmt: skip


@pytest.fixture(scope="module")
def dataset(toy_data: Path) -> GroupDataset:
    dataset = GroupDataset.load(toy_data)
    return with_references(dataset, dataset.split()[0])


@pytest.fixture(autouse=True)
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def start(dataset: GroupDataset, config: Config = CONFIG) -> tuple[TrainState, Sampler]:
    rows = dataset.split()[0]
    state = TrainState.create(config, dataset.spec)
    fit_face(state, dataset, rows)
    return state, Sampler.over(dataset, rows, config.train)


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


def test_a_pass_over_one_video_or_equal_ones_is_a_plain_shuffle() -> None:
    sequences = np.arange(24)[:, None]
    for video in (None, np.zeros(24, np.int32), np.arange(24, dtype=np.int32) // 8):
        sampler = Sampler(sequences, batch=4, seed=3, video=video)
        for step in (0, 5, 6, 23, 1):
            epoch, place = divmod(4 * step, 24)
            order = np.random.default_rng([3, epoch]).permutation(24)
            np.testing.assert_array_equal(
                sampler.rows(step, 0, 1), sequences[order[place : place + 4]]
            )


def test_a_long_video_does_not_drown_the_short_ones() -> None:
    video = np.repeat([0, 3, 5], [1600, 100, 4])  # numbers of videos without training time skipped
    sampler = Sampler(np.arange(1704)[:, None], batch=8, seed=0, video=video)
    seen = np.concatenate([sampler.rows(step, 0, 1).ravel() for step in range(213)])
    shares = np.bincount(video[seen])[[0, 3, 5]] / len(seen)
    np.testing.assert_allclose(shares, np.array([40, 10, 2]) / 52, atol=0.01)
    again = Sampler(np.arange(1704)[:, None], batch=8, seed=0, video=video)
    np.testing.assert_array_equal(again.rows(200, 0, 1).ravel(), seen[1600:1608])
    # Nothing of the long video is left out for ever, nor met twice before the rest.
    later = np.concatenate([sampler.rows(step, 0, 1).ravel() for step in range(2 * 213)])
    counts = np.bincount(later, minlength=1704)[:1600]
    assert counts.min() >= 1 and counts.max() <= 2


@pytest.mark.parametrize(("balance", "shares"), [(1.0, [1600, 100, 4]), (0.0, [1, 1, 1])])
def test_balance_goes_from_length_to_none(balance: float, shares: list[int]) -> None:
    video = np.repeat([0, 1, 2], [1600, 100, 4])
    sampler = Sampler(np.arange(1704)[:, None], batch=8, seed=0, video=video, balance=balance)
    seen = np.concatenate([sampler.rows(step, 0, 1).ravel() for step in range(213)])
    found = np.bincount(video[seen]) / len(seen)
    np.testing.assert_allclose(found, np.array(shares) / sum(shares), atol=0.01)


def test_the_key_sets_the_balance(dataset: GroupDataset) -> None:
    train = dataclasses.replace(CONFIG.train, balance=0.25)
    assert Sampler.over(dataset, dataset.split()[0], train).balance == 0.25


def test_fewer_sequences_than_a_batch_are_refused() -> None:
    with pytest.raises(DatasetError, match=r"3 sequences .* train\.batch"):
        Sampler(np.arange(3)[:, None], batch=4, seed=0)


def test_one_pair_a_second(dataset: GroupDataset) -> None:
    rows = dataset.split()[0]  # 2 videos of 51 groups, 5.1 s
    pairs = Sampler.over(dataset, rows, WAV2PIX.train).sequences
    assert pairs.shape == (10, 1)
    assert dataset.index[pairs[:, 0]].tolist() == 2 * [5, 15, 25, 35, 45]  # at .5 s, 1.5 s, ...
    assert dataset.video[pairs[:, 0]].tolist() == 5 * [0] + 5 * [1]
    half = dataclasses.replace(WAV2PIX.train, stride=0.5, sequence=2)
    assert dataset.index[Sampler.over(dataset, rows, half).sequences[:4]].tolist() == [
        [2, 3], [7, 8], [12, 13], [17, 18],
    ]  # fmt: skip


def test_wav2pix_learns_the_face(dataset: GroupDataset) -> None:
    state, sampler = start(dataset, WAV2PIX)
    batch = Batch.gather(dataset, sampler.rows(0, 0, 1), WAV2PIX, state.device)
    first = train_step(state, batch)
    assert {"loss/gan", "loss/l1", "loss/features"} <= set(first) and "loss/audio" not in first
    weighted = first["loss/gan"] + 50 * first["loss/l1"] + 100 * first["loss/features"]
    torch.testing.assert_close(first["loss_g"], weighted)
    for _ in range(40):
        last = train_step(state, batch)
    assert last["loss/l1"] < 0.7 * first["loss/l1"]
    assert state.skipped == 0


def test_gain_changes_how_loud_each_sequence_is_and_nothing_else(dataset: GroupDataset) -> None:
    state, sampler = start(dataset)
    heard = []
    state.g.register_forward_pre_hook(lambda _, inputs: heard.append(inputs[0]))
    batch = Batch.gather(dataset, sampler.rows(0, 0, 1), CONFIG, state.device)
    train_step(state, batch)
    loud = batch.audio.abs() > 1e-3
    for said, given, where in zip(heard[0], batch.audio, loud, strict=True):
        level = said[where] / given[where]
        torch.testing.assert_close(level, level[:1].expand_as(level))
        assert 10 ** (-6 / 20) <= level[0] <= 10 ** (6 / 20) and level[0] != 1


def test_wrong_speech_and_features_work_with_any_kind(dataset: GroupDataset) -> None:
    loss = dataclasses.replace(CONFIG.loss, wrong=1.0, features=10.0)
    config = dataclasses.replace(CONFIG, loss=loss)
    losses = []
    for chosen in (CONFIG, config):
        state, sampler = start(dataset, chosen)
        batch = Batch.gather(dataset, sampler.rows(0, 0, 1), chosen, state.device)
        losses.append(train_step(state, batch))
    assert losses[1]["loss/features"] > 0 and "loss/features" not in losses[0]
    added = losses[1]["loss_d"] - losses[0]["loss_d"]
    assert added == pytest.approx(1, abs=0.5)  # hinge, of logits near 0


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


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
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


@pytest.mark.parametrize("config", [CONFIG, PAPER], ids=["base", "paper"])
def test_a_step_without_a_finite_gradient_changes_nothing(
    dataset: GroupDataset, config: Config
) -> None:
    state, sampler = start(dataset, config)
    batch = Batch.gather(dataset, sampler.rows(0, 0, 1), config, state.device)
    train_step(state, batch)
    kept = {
        "d": {name: value.clone() for name, value in state.d.state_dict().items()},
        "g": {name: value.clone() for name, value in state.g.state_dict().items()},
        "ema": {name: value.clone() for name, value in state.ema.state_dict().items()},
    }
    nan = float("nan")
    train_step(
        state, dataclasses.replace(batch, frames=batch.frames * nan, audio=batch.audio * nan)
    )
    assert state.skipped == 2  # D's update and G's
    for optimiser in (state.opt_g, state.opt_d):
        assert all(one["step"] == 1 for one in optimiser.state.values())
        assert all(torch.isfinite(one["exp_avg"]).all() for one in optimiser.state.values())
    for module, values in kept.items():
        for name, value in getattr(state, module).state_dict().items():
            assert torch.equal(value, values[name]), f"{module}.{name}"


@pytest.mark.parametrize("config", KINDS.values(), ids=KINDS)
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


def test_a_compiled_run_is_the_same_run(
    dataset: GroupDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The graphs are traced as for a GPU, and run as they are: the compiler of C++ takes minutes.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    train = dataclasses.replace(CONFIG.train, compile=True)
    compiled = dataclasses.replace(CONFIG, model=ModelConfig(width=4), train=train)
    eager = dataclasses.replace(compiled, train=CONFIG.train)
    plain, sampler = start(dataset, eager)
    wanted = steps(plain, sampler, dataset, 4)
    torch._dynamo.utils.counters.clear()
    state, sampler = start(dataset, compiled)
    found = steps(state, sampler, dataset, 2)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 2  # G and D
    path = save_checkpoint(state, tmp_path, dataset.info.sha256)
    content = torch.load(path, weights_only=True)
    for part, module in (("g", plain.g), ("d", plain.d), ("ema", plain.ema)):
        assert set(content[part]) == set(module.state_dict())
    resumed = TrainState.create(compiled, dataset.spec)
    load_checkpoint(resumed, tmp_path, dataset.info.sha256)
    found_later = steps(state, sampler, dataset, 2)
    assert steps(resumed, sampler, dataset, 2) == found_later
    np.testing.assert_allclose(found + found_later, wanted, rtol=1e-3)
    torch._dynamo.reset()


def test_gradients_are_clipped(dataset: GroupDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the optimisers see is no longer than the limit, and points the same way."""
    config = dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, clip=1e-3))
    state, sampler = start(dataset, config)
    batch = Batch.gather(dataset, sampler.rows(0, 0, 1), config, state.device)
    seen: list[float] = []
    real = torch.optim.Adam.step

    def step(optimiser: torch.optim.Adam) -> None:
        [group] = optimiser.param_groups
        found = [one.grad for one in group["params"] if one.grad is not None]
        seen.append(torch.nn.utils.get_total_norm(found).item())
        real(optimiser)

    for optimiser in (state.opt_d, state.opt_g):
        monkeypatch.setattr(optimiser, "step", functools.partial(step, optimiser))
    told = train_step(state, batch)
    assert min(told["norm_d"], told["norm_g"]) > 1e-2  # before
    np.testing.assert_allclose(seen, 1e-3, rtol=0.05)


def test_lessons_without_a_finite_error_are_refused(dataset: GroupDataset) -> None:
    state, _ = start(dataset)
    assert isinstance(state.face, TalkingFace)
    next(iter(state.face.mouth_head.parameters())).data.fill_(float("nan"))
    with pytest.raises(DatasetError, match="pretrain_steps 0"):
        next(pretrain_audio(state, dataset, dataset.split()[0]))


def test_the_average_follows_the_weights(dataset: GroupDataset) -> None:
    state, sampler = start(dataset)
    steps(state, sampler, dataset, 3)
    name, weight = next(iter(state.face.generator.named_parameters()))
    average = dict(state.ema.generator.named_parameters())[name]
    assert not torch.equal(weight, average)
    torch.testing.assert_close(weight, average, atol=0.05, rtol=0)
    paper, sampler = start(dataset, PAPER)
    assert paper.ema is paper.g
