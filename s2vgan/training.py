"""The training step, its state, and checkpoints. No Ray, no MLflow; I/O only in checkpoints."""

import copy
import hashlib
import os
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from s2vgan.config import Config
from s2vgan.dataset import GroupDataset
from s2vgan.errors import DatasetError, RunError
from s2vgan.groups import GroupSpec
from s2vgan.losses import (
    adversarial_loss,
    discriminator_loss,
    reconstruction_losses,
    weighted_sum,
)
from s2vgan.models import TalkingFace, build_discriminator

FIT_FRAMES = 1500  # frames of training time that the face codes are fitted on
PRETRAIN_BATCH = 64  # windows; the audio encoder alone is cheap
PRETRAIN_RATE = 1e-3
KEPT_CHECKPOINTS = 2


@dataclass(frozen=True)
class Batch:
    """One step's work of one rank: B sequences of K groups.

    Attributes:
        audio: (B, K, L) float32 windows of speech in [-1, 1).
        frames: (B, K * T, 3, S, S) float32 in [-1, 1].
    """

    audio: Tensor
    frames: Tensor

    @classmethod
    def gather(
        cls, dataset: GroupDataset, rows: np.ndarray, config: Config, device: torch.device
    ) -> "Batch":
        """The batch of (B, K) dataset rows."""
        model = config.model
        audio = torch.from_numpy(dataset.windows(rows, model.audio_past, model.audio_ahead))
        frames = torch.from_numpy(dataset.frames[rows])
        if device.type == "cuda":
            audio, frames = audio.pin_memory(), frames.pin_memory()
        audio = audio.to(device, non_blocking=True)
        frames = frames.to(device, non_blocking=True).flatten(1, 2).movedim(-1, 2)
        return cls(audio, frames.float() / 127.5 - 1)


@dataclass(frozen=True)
class Sampler:
    """Which sequences each step trains on: a shuffled pass after another, without any state.

    Attributes:
        sequences: (M, K) rows of the dataset.
        batch: sequences a step over all ranks.
        seed: of the shuffles.
    """

    sequences: np.ndarray
    batch: int
    seed: int

    def __post_init__(self) -> None:
        if len(self.sequences) < self.batch:
            raise DatasetError(
                f"the training time holds {len(self.sequences)} sequences of "
                f"{self.sequences.shape[1]} groups, fewer than one batch of {self.batch}: lower "
                "train.batch or extract more video."
            )

    def rows(self, step: int, rank: int, world: int) -> np.ndarray:
        """(batch / world, K) rows of a step's share."""
        share = self.batch // world
        positions = step * self.batch + rank * share + np.arange(share)
        epochs, places = np.divmod(positions, len(self.sequences))
        chosen = np.empty(share, np.int64)
        for epoch in np.unique(epochs):
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.sequences))
            chosen[epochs == epoch] = order[places[epochs == epoch]]
        return self.sequences[chosen]


@dataclass
class TrainState:
    """Everything that a run is made of; a checkpoint holds all of it.

    Noise is drawn from the seed, the step and the rank, and batches from the seed and the step:
    there is no random state to keep, and a resumed run equals an unbroken one.

    Attributes:
        config: of the run.
        g: the :class:`TalkingFace`, or DDP around it.
        d: the discriminator, or DDP around it.
        ema: exponential moving average of ``g``; ``g`` itself where the configuration has none.
        opt_g: optimiser of ``g``.
        opt_d: optimiser of ``d``.
        step: steps done.
        seconds: of training done.
        skipped: steps left out because a gradient was not finite.
        rank: of this process.
        world: number of processes.
    """

    config: Config
    g: nn.Module
    d: nn.Module
    ema: TalkingFace
    opt_g: torch.optim.Adam
    opt_d: torch.optim.Adam
    step: int = 0
    seconds: float = 0.0
    skipped: int = 0
    rank: int = 0
    world: int = 1

    @property
    def face(self) -> TalkingFace:
        """``g`` without DDP."""
        face = unwrapped(self.g)
        assert isinstance(face, TalkingFace)
        return face

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.g.parameters()).device

    @classmethod
    def create(
        cls,
        config: Config,
        spec: GroupSpec,
        device: torch.device | str = "cpu",
        rank: int = 0,
        world: int = 1,
    ) -> "TrainState":
        """New networks and optimisers, the same on every rank; not wrapped in DDP yet."""
        torch.manual_seed(config.train.seed)
        face = TalkingFace(config.model, spec).to(device).to(memory_format=torch.channels_last)
        judge = build_discriminator(config.model, spec).to(device)
        judge = judge.to(memory_format=torch.channels_last)
        train = config.train
        betas = (train.beta1, train.beta2)
        return cls(
            config=config,
            g=face,
            d=judge,
            ema=copy.deepcopy(face) if train.ema else face,
            opt_g=torch.optim.Adam(face.parameters(), train.lr_g, betas),
            opt_d=torch.optim.Adam(judge.parameters(), train.lr_d, betas),
            rank=rank,
            world=world,
        )

    def distribute(self) -> None:
        """Wrap both networks in DDP over the initialised process group.

        BatchNorm statistics stay local to a rank: broadcasting them between two forwards before
        one backward is an error on CUDA.
        """
        devices = [self.device] if self.device.type == "cuda" else None
        self.g = DistributedDataParallel(self.g, device_ids=devices, broadcast_buffers=False)
        self.d = DistributedDataParallel(self.d, device_ids=devices, broadcast_buffers=False)


def wants_bf16(amp: str, device: torch.device) -> bool:
    """Whether to compute in bf16: asked for, or ``auto`` on a processor that is fast at it."""
    if amp != "auto":
        return amp == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and bool(torch.cpu.get_capabilities().get("amx_bf16"))


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside DDP, or the module itself."""
    return module.module if isinstance(module, DistributedDataParallel) else module


def fit_face(state: TrainState, dataset: GroupDataset, rows: np.ndarray) -> None:
    """Fit the face codes and the mean face on frames spread evenly over the training rows."""
    chosen = rows[np.linspace(0, len(rows) - 1, min(len(rows), FIT_FRAMES // 3)).astype(int)]
    frames = Batch.gather(dataset, chosen[:, None], state.config, state.device).frames
    frames = frames.flatten(0, 1)
    state.face.codes.fit(frames)
    state.face.generator.set_mean_face(frames.mean(0))
    state.ema.load_state_dict(state.face.state_dict())


def pretrain_audio(
    state: TrainState, dataset: GroupDataset, rows: np.ndarray
) -> Iterator[dict[str, float]]:
    """Teach the audio encoder the mouth before G and D meet it, so that the speech counts.

    Yields:
        ``pretrain_audio``, the mean squared error of the mouth code (1 is its variance), a step.
    """
    config, face = state.config, state.face
    parts = [*face.audio_encoder.parameters(), *face.mouth_head.parameters()]
    optimiser = torch.optim.Adam(parts, PRETRAIN_RATE)
    random = np.random.default_rng([config.train.seed, 1])
    face.train()
    for _ in range(config.train.pretrain_steps):
        chosen = random.choice(rows, min(PRETRAIN_BATCH, len(rows)), replace=False)
        batch = Batch.gather(dataset, chosen[:, None], config, state.device)
        loss = mouth_error(face, face.mouth(face.encode(batch.audio)), batch.frames)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        yield {"pretrain_audio": loss.item()}
    state.ema.load_state_dict(face.state_dict())


def mouth_error(face: TalkingFace, predicted: Tensor, frames: Tensor) -> Tensor:
    """Mean squared error of predicted mouth codes (B, K, T, MOUTH_DIM), of unit variance."""
    target = face.codes.mouth(frames.flatten(0, 1)).view_as(predicted)
    return F.mse_loss(predicted.float(), target)


def train_step(state: TrainState, batch: Batch) -> dict[str, Tensor]:
    """One step of D, then one of G, on the same generated frames.

    Returns:
        Detached scalars by name: ``loss_d``, ``loss_g`` (the weighted sum), each term of it,
        ``d_real`` and ``d_fake`` (share of real and generated groups that D tells right),
        ``norm_g`` and ``norm_d`` (norms of the gradients).
    """
    config, face = state.config, state.face
    spec, device = face.spec, state.device
    groups, frames_per_group = batch.audio.shape[1], spec.frames_per_group
    form = config.loss.adversarial
    mixed = wants_bf16(config.train.amp, device)

    # All randomness of the step, dropout included, comes from here: nothing to keep for a resume.
    torch.manual_seed(_mix(config.train.seed, state.step, state.rank))
    z = torch.randn(*batch.audio.shape[:2], config.model.z_dim).to(device)
    pose = face.codes.pose(batch.frames.flatten(0, 1))
    pose = pose.view(len(batch.frames), groups, frames_per_group, config.model.pose_dim)
    shake = torch.randn(pose.shape).to(device)
    pose = pose + config.train.pose_noise * shake

    def as_groups(frames: Tensor) -> Tensor:
        return frames.unflatten(1, (groups, frames_per_group)).flatten(0, 1)

    state.g.train()
    state.d.train()
    with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
        fake, code, mouth = state.g(batch.audio, z, pose)
        real_groups, fake_groups = as_groups(batch.frames), as_groups(fake)
        heard = code.detach().flatten(0, 1)  # D judges the pair; it does not shape the code
        # Batches of one kind, as in DCGAN: in a mixed one BatchNorm would tell D which is which.
        real = state.d(real_groups, heard).float()
        unreal = state.d(fake_groups.detach(), heard).float()
        loss_d = discriminator_loss(form, real, unreal)
    state.opt_d.zero_grad()
    loss_d.backward()
    norm_d = _update(state, state.d, state.opt_d)

    judge = unwrapped(state.d)
    judge.requires_grad_(False)
    with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
        judged = judge(fake_groups, heard).float()
    judge.requires_grad_(True)
    terms = {
        "gan": adversarial_loss(form, judged),
        **reconstruction_losses(
            fake.flatten(0, 1).float(), batch.frames.flatten(0, 1), config.loss.mouth
        ),
        "audio": mouth_error(face, mouth, batch.frames),
    }
    loss_g = weighted_sum(config.loss, terms)
    state.opt_g.zero_grad()
    loss_g.backward()
    norm_g = _update(state, state.g, state.opt_g)
    if config.train.ema:
        # A fixed decay would remember the untrained start for thousands of steps.
        _average(state.ema, face, min(config.train.ema, (1 + state.step) / (10 + state.step)))
    state.step += 1
    seen = {
        "loss_d": loss_d,
        "loss_g": loss_g,
        **{f"loss/{name}": value for name, value in terms.items()},
        "d_real": (real > 0).float().mean(),
        "d_fake": (unreal < 0).float().mean(),
        "norm_g": norm_g,
        "norm_d": norm_d,
    }
    return {name: value.detach() for name, value in seen.items()}


def _mix(*numbers: int) -> int:
    """One seed out of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _update(state: TrainState, module: nn.Module, optimiser: torch.optim.Adam) -> Tensor:
    """One optimiser step with its gradient clipped, or none if the gradient is not finite.

    DDP has averaged the gradients: the norm, and so the decision, is the same on every rank.
    """
    limit = state.config.train.clip or float("inf")
    norm = torch.nn.utils.clip_grad_norm_(module.parameters(), limit)
    if torch.isfinite(norm):
        optimiser.step()
    else:
        state.skipped += 1
    return norm


@torch.no_grad()
def _average(ema: nn.Module, current: nn.Module, decay: float) -> None:
    for weight, new_weight in zip(ema.parameters(), current.parameters(), strict=True):
        weight.lerp_(new_weight, 1 - decay)
    for buffer, new_buffer in zip(ema.buffers(), current.buffers(), strict=True):
        buffer.copy_(new_buffer)


def save_checkpoint(state: TrainState, folder: Path, dataset: str) -> Path:
    """Write folder/step_XXXXXX.pt with its SHA-256 beside it; keep the latest two.

    Args:
        state: of rank 0.
        folder: of checkpoints; made if missing.
        dataset: the dataset's identity.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"step_{state.step:07d}.pt"
    temporary = target.with_suffix(".tmp")
    content = {
        "step": state.step,
        "seconds": state.seconds,
        "skipped": state.skipped,
        "config": state.config.to_dict(),
        "dataset": dataset,
        "g": unwrapped(state.g).state_dict(),
        "d": unwrapped(state.d).state_dict(),
        "ema": state.ema.state_dict(),
        "opt_g": state.opt_g.state_dict(),
        "opt_d": state.opt_d.state_dict(),
    }
    try:
        with temporary.open("wb") as stream:
            torch.save(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
        _digest_file(target).write_text(_sha256(temporary))
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    for old in sorted(folder.glob("step_*.pt"))[:-KEPT_CHECKPOINTS]:
        _digest_file(old).unlink(missing_ok=True)
        old.unlink()
    return target


def load_checkpoint(state: TrainState, folder: Path, dataset: str) -> list[str]:
    """Continue from the latest whole checkpoint; call before :meth:`TrainState.distribute`.

    Returns:
        Sentences about damaged checkpoints that were passed over.

    Raises:
        RunError: if no checkpoint is whole, or it belongs to another configuration or dataset.
    """
    damaged = []
    for path in sorted(folder.glob("step_*.pt"), reverse=True):
        digest = _digest_file(path)
        if digest.is_file() and digest.read_text() == _sha256(path):
            break
        damaged.append(f"{path} is damaged and was passed over.")
    else:
        raise RunError(
            " ".join([*damaged, f"{folder}: no whole checkpoint to resume from; start a new run."])
        )
    try:
        content = torch.load(path, map_location=state.device, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError) as error:
        raise RunError(f"{path}: cannot be loaded ({error}).") from error
    if content["dataset"] != dataset:
        raise RunError(
            f"{path}: was trained on another dataset ({content['dataset'][:12]}, now "
            f"{dataset[:12]}); give the same --data or start a new run."
        )
    changed = changed_keys(content["config"], state.config.to_dict())
    if changed:
        raise RunError(
            f"{path}: was trained with another {', '.join(changed)}; resume with the same "
            "configuration (only train.steps, train.minutes and train.evaluate_every may change) "
            "or start a new run."
        )
    unwrapped(state.g).load_state_dict(content["g"])
    unwrapped(state.d).load_state_dict(content["d"])
    if state.config.train.ema:
        state.ema.load_state_dict(content["ema"])
    state.opt_g.load_state_dict(content["opt_g"])
    state.opt_d.load_state_dict(content["opt_d"])
    state.step, state.seconds = content["step"], content["seconds"]
    state.skipped = content["skipped"]
    return damaged


def changed_keys(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Names of the settings that differ and decide the weights."""
    free = {"train.steps", "train.minutes", "train.evaluate_every"}
    names = [
        f"{section}.{key}"
        for section, values in new.items()
        for key, value in values.items()
        if old.get(section, {}).get(key) != value
    ]
    return [name for name in names if name not in free]


def _digest_file(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
