"""The training step and its state. No Ray, no MLflow, no I/O."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from s2vgan.batches import Batch
from s2vgan.config import Config
from s2vgan.dataset import GroupDataset
from s2vgan.errors import DatasetError
from s2vgan.losses import (
    BOUNDARY,
    adversarial_loss,
    discriminator_loss,
    feature_loss,
    reconstruction_losses,
    rejection_loss,
    weighted_sum,
)
from s2vgan.models import Discriminator, Face, TalkingFace, build_discriminator, build_face
from s2vgan.people import stored_people
from s2vgan.spec import GroupSpec

FIT_FRAMES = 1500  # frames of training time that the face codes are fitted on
PRETRAIN_BATCH = 64  # windows; the audio encoder alone is cheap
PRETRAIN_RATE = 1e-3


@dataclass
class TrainState:
    """Everything that a run is made of; a checkpoint holds all of it, and nothing more is needed.

    What a run might be thought to need besides has no state here. The rest of a run is a function
    of the seed, the step and the rank: noise and dropout are drawn from a generator that each step
    seeds anew, on every rank, and the sampler finds the batches of any step. Learning rates are
    constant: there is no scheduler. bf16 has the range of fp32: there is no scaler. Buffers that
    differ between ranks (statistics of BatchNorm) are read by rank 0 alone. So a resumed run
    equals an unbroken one, bit for bit on the CPU.

    Attributes:
        config: of the run.
        g: the :class:`Face`, or DDP around it.
        d: the discriminator, or DDP around it.
        ema: exponential moving average of ``g``; ``g`` itself where the configuration has none.
        opt_g: optimiser of ``g``.
        opt_d: optimiser of ``d``.
        step: steps done.
        seconds: of training done.
        best: highest ``val/score`` of an evaluation so far.
        rank: of this process.
        world: number of processes.
        skips: () int64 on the device, see :attr:`skipped`.
    """

    config: Config
    g: nn.Module
    d: nn.Module
    ema: Face
    opt_g: torch.optim.Adam
    opt_d: torch.optim.Adam
    step: int = 0
    seconds: float = 0.0
    best: float = float("-inf")
    rank: int = 0
    world: int = 1
    skips: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.int64))

    @property
    def skipped(self) -> int:
        """Updates of ``g`` or ``d`` left out, their gradient not being finite."""
        return int(self.skips.item())

    @property
    def face(self) -> Face:
        """``g`` without DDP."""
        face = unwrapped(self.g)
        assert isinstance(face, Face)
        return face

    @property
    def judge(self) -> Discriminator:
        """``d`` without DDP."""
        judge = unwrapped(self.d)
        assert isinstance(judge, Discriminator)
        return judge

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
        train, pictures = config.train, torch.channels_last  # for tensor cores, and for AMX
        face = build_face(config.model, spec).to(device).to(memory_format=pictures)
        judge = build_discriminator(config.model, spec).to(device).to(memory_format=pictures)
        ema = copy.deepcopy(face) if train.ema else face
        if train.compile:  # in place: DDP wraps them, and checkpoints name their weights, as ever
            face.compile()
            judge.compile()
        betas = (train.beta1, train.beta2)
        return cls(
            config=config,
            g=face,
            d=judge,
            ema=ema,
            opt_g=torch.optim.Adam(face.parameters(), train.lr_g, betas, fused=True),
            opt_d=torch.optim.Adam(judge.parameters(), train.lr_d, betas, fused=True),
            rank=rank,
            world=world,
            skips=torch.zeros((), dtype=torch.int64, device=device),
        )

    def distribute(self) -> None:
        """Wrap both networks in DDP over the initialised process group.

        Buffers (face codes, BatchNorm statistics) are rank 0's to begin with; after that BatchNorm
        statistics stay local: sending them around between two forwards before one backward is an
        error on CUDA.
        """
        for module in (self.g, self.d):
            for buffer in module.buffers():
                distributed.broadcast(buffer, src=0)
        devices = [self.device] if self.device.type == "cuda" else None
        self.g = DistributedDataParallel(self.g, device_ids=devices, broadcast_buffers=False)
        self.d = DistributedDataParallel(self.d, device_ids=devices, broadcast_buffers=False)


def wants_bf16(amp: str, device: torch.device) -> bool:
    """Whether to compute in bf16: asked for, or ``auto`` on a processor that is fast at it."""
    if amp != "auto":
        return amp == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    known = torch.cpu.get_capabilities()
    return device.type == "cpu" and bool(known.get("amx_bf16") or known.get("avx512_bf16"))


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside DDP, or the module itself."""
    return module.module if isinstance(module, DistributedDataParallel) else module


def fit_face(state: TrainState, dataset: GroupDataset, rows: np.ndarray) -> None:
    """Fit what is not trained on frames spread over the training rows.

    That are the face codes, the mean face, and the reference frames that the model stores.
    """
    count = min(len(rows), FIT_FRAMES // dataset.spec.frames_per_group)
    chosen = rows[np.linspace(0, len(rows) - 1, count).astype(int)]
    batch = Batch.gather(dataset, chosen[:, None], state.config, state.device)
    frames, reference, people = batch.frames.flatten(0, 1), batch.reference, None
    if reference is not None:
        assert dataset.references is not None
        reference = reference.repeat_interleave(len(frames) // len(reference), 0)
        pictures = dataset.references[stored_people(dataset)]
        people = torch.from_numpy(pictures).movedim(-1, 1).contiguous().to(state.device)
    state.face.fit(frames, reference, people)
    state.ema.load_state_dict(state.face.state_dict())


def pretrain_audio(
    state: TrainState, dataset: GroupDataset, rows: np.ndarray
) -> Iterator[dict[str, float]]:
    """Teach the audio encoder the mouth before G and D meet it, so that the speech counts.

    Yields:
        ``pretrain_audio``, the mean squared error of the mouth code (1 is its variance), a step.

    Raises:
        DatasetError: if it is not finite: there is no training yet that could go on without a step.
    """
    config, face = state.config, state.face
    if not config.train.pretrain_steps:
        return
    assert isinstance(face, TalkingFace)  # the configuration refuses it for other kinds
    parts = [*face.audio_encoder.parameters(), *face.mouth_head.parameters()]
    optimiser = torch.optim.Adam(parts, PRETRAIN_RATE)
    random = np.random.default_rng([config.train.seed, 1])
    face.train()
    for _ in range(config.train.pretrain_steps):
        chosen = random.choice(rows, min(PRETRAIN_BATCH, len(rows)), replace=False)
        batch = Batch.gather(dataset, chosen[:, None], config, state.device)
        mouth = face.mouth(face.encode(batch.audio))
        loss = mouth_error(face, mouth, batch.frames, batch.reference)
        if not torch.isfinite(loss):
            raise DatasetError(
                "the audio encoder's first lessons give no finite error; `s2vgan data DATA` shows "
                "what the dataset holds, and --train.pretrain_steps 0 leaves them out."
            )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        yield {"pretrain_audio": loss.item()}
    state.ema.load_state_dict(face.state_dict())


def mouth_error(
    face: Face, predicted: Tensor, frames: Tensor, reference: Tensor | None = None
) -> Tensor:
    """Mean squared error of predicted mouth codes (B, K, T, MOUTH_DIM), of unit variance."""
    target = face.codes.mouth(frames.flatten(0, 1), reference).view_as(predicted)
    return F.mse_loss(predicted.float(), target)


def train_step(state: TrainState, batch: Batch) -> dict[str, Tensor]:
    """One step of D, then one of G, on the same generated frames.

    Returns:
        Detached scalars by name: ``loss_d``, ``loss_g`` (the weighted sum), each term of it,
        ``d_real`` and ``d_fake`` (share of real and generated groups that D tells right),
        ``norm_g`` and ``norm_d`` (norms of the gradients).
    """
    config, face, judge = state.config, state.face, state.judge
    device, form = state.device, config.loss.adversarial
    audio, frames = face.lesson(batch.audio, batch.frames)
    groups, frames_per_group = audio.shape[1], frames.shape[1] // audio.shape[1]
    mixed = wants_bf16(config.train.amp, device)

    # All randomness of the step, dropout included, comes from here: nothing to keep for a resume.
    torch.manual_seed(_mix(config.train.seed, state.step, state.rank))
    z = torch.randn(*audio.shape[:2], config.model.z_dim, device=device)
    pose = face.codes.pose(frames.flatten(0, 1), batch.reference)
    pose = pose.view(len(frames), groups, frames_per_group, config.model.pose_dim)
    if config.train.gain:
        level = config.train.gain * (2 * torch.rand(len(audio), 1, 1, device=device) - 1)  # dB
        audio = audio * 10 ** (level / 20)

    def as_groups(frames: Tensor) -> Tensor:
        return frames.unflatten(1, (groups, frames_per_group)).flatten(0, 1)

    state.g.train()
    state.d.train()
    statistics = [*face.buffers(), *judge.buffers()]
    before = [buffer.clone() for buffer in statistics]
    with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
        fake, code, mouth = state.g(audio, z, pose, None, batch.reference)
        real_groups, fake_groups = as_groups(frames), as_groups(fake)
        heard = code.detach().flatten(0, 1)  # D judges the pair; it does not shape the code
        # Batches of one kind, as in DCGAN: in a mixed one BatchNorm would tell D which is which.
        real = state.d(real_groups, heard).float()
        unreal = state.d(fake_groups.detach(), heard).float()
        loss_d = discriminator_loss(form, real, unreal)
        if config.loss.wrong:  # the frames of the batch's next sequence: another moment
            wrong = state.d(real_groups.roll(groups, 0), heard).float()
            loss_d = loss_d + config.loss.wrong * rejection_loss(form, wrong)
    state.opt_d.zero_grad()
    loss_d.backward()
    norm_d, finite_d = _update(state, state.d, state.opt_d)

    judge.requires_grad_(False)
    terms = {}
    with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
        if config.loss.features:
            features = judge.features(fake_groups)
            judged = judge.compare(features, heard).float()
            terms["features"] = feature_loss(features, judge.features(real_groups))
        else:
            judged = judge(fake_groups, heard).float()
    judge.requires_grad_(True)
    terms["gan"] = adversarial_loss(form, judged)
    wanted = config.loss.l1 + config.loss.ssim + config.loss.seam > 0
    with torch.set_grad_enabled(wanted):  # else they are only logged
        terms |= reconstruction_losses(fake.float(), frames, config.loss.mouth, frames_per_group)
    if mouth is not None:
        terms["audio"] = mouth_error(face, mouth, frames, batch.reference)
    loss_g = weighted_sum(config.loss, terms)
    state.opt_g.zero_grad()
    loss_g.backward()
    norm_g, finite_g = _update(state, state.g, state.opt_g)
    for buffer, old in zip(statistics, before, strict=True):
        # BatchNorm that has seen what was not finite forgets it.
        buffer.copy_(torch.where(finite_g & finite_d, buffer, old))
    if config.train.ema:
        # A fixed decay would remember the untrained start for thousands of steps.
        decay = min(config.train.ema, (1 + state.step) / (10 + state.step))
        _average(state.ema, face, finite_g * (1 - decay))
    state.step += 1
    seen = {
        "loss_d": loss_d,
        "loss_g": loss_g,
        **{f"loss/{name}": value for name, value in terms.items()},
        "d_real": (real > BOUNDARY[form]).float().mean(),
        "d_fake": (unreal < BOUNDARY[form]).float().mean(),
        "norm_g": norm_g,
        "norm_d": norm_d,
    }
    return {name: value.detach() for name, value in seen.items()}


def _mix(*numbers: int) -> int:
    """One seed out of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _update(
    state: TrainState, module: nn.Module, optimiser: torch.optim.Adam
) -> tuple[Tensor, Tensor]:
    """One optimiser step with its gradient clipped, or none if the gradient is not finite.

    DDP has averaged the gradients: the norm, and so the decision, is the same on every rank. It is
    made where the gradient lies, so that nobody waits for the GPU to say.

    Returns:
        The norm before clipping, and whether it is finite, a () bool.
    """
    limit = state.config.train.clip or float("inf")
    norm = torch.nn.utils.clip_grad_norm_(module.parameters(), limit)
    finite = torch.isfinite(norm)
    # As GradScaler has it: the fused Adam changes nothing, its own state included, where this is 1.
    optimiser.found_inf = (~finite).float()  # type: ignore[attr-defined]
    optimiser.step()
    state.skips += ~finite
    return norm, finite


@torch.no_grad()
def _average(ema: nn.Module, current: nn.Module, share: Tensor) -> None:
    """Move ``ema`` by a () share of the way to ``current``."""
    for weight, new_weight in zip(ema.parameters(), current.parameters(), strict=True):
        weight.lerp_(new_weight, share)
    for buffer, new_buffer in zip(ema.buffers(), current.buffers(), strict=True):
        buffer.copy_(new_buffer)
