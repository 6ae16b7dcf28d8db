"""What a run looks at while it trains: a quick reading of held-out time, and sample pictures."""

from dataclasses import dataclass

import numpy as np
import torch
import torchvision
from torch import Tensor

from s2vgan.batches import Batch
from s2vgan.dataset import GroupDataset
from s2vgan.losses import reconstruction_losses
from s2vgan.metrics import score
from s2vgan.models import Face
from s2vgan.regions import MOUTH
from s2vgan.training import TrainState

PIECE = 30  # groups (3 s) in one validated stretch: the state is carried over all of it
PIECES = 15
SAMPLE_GROUPS = (2, 7, 12, 17, 22, 27)  # of the first piece, so that pictures can be compared


def validation_rows(dataset: GroupDataset, held_out: np.ndarray) -> np.ndarray:
    """(B, K) rows of up to 15 stretches of up to 30 contiguous groups, spread over held-out time.

    Empty, of shape (0, 0), where there is no held-out time.
    """
    segments = dataset.segments(held_out)
    if not segments:
        return np.empty((0, 0), np.int64)
    length = min(PIECE, max(len(part) for part in segments))
    pieces = [
        part[start : start + length]
        for part in segments
        for start in range(0, len(part) - length + 1, length)
    ]
    chosen = np.linspace(0, len(pieces) - 1, min(PIECES, len(pieces))).astype(int)
    return np.stack([pieces[number] for number in chosen])


@dataclass(frozen=True)
class Samples:
    """What people look at, of the same moments at every evaluation.

    Attributes:
        picture: (H, W, 3) uint8 RGB, some real frames above the generated ones.
        film: (n, S, 2 S, 3) uint8 RGB, the first stretch, real frames left of the generated ones.
        speech: (m,) float32 in [-1, 1), what is said meanwhile.
    """

    picture: np.ndarray
    film: np.ndarray
    speech: np.ndarray


@torch.inference_mode()
def validate(
    state: TrainState, dataset: GroupDataset, rows: np.ndarray
) -> tuple[dict[str, float], Samples]:
    """Read the averaged generator on held-out time, its pose held at the reference.

    Args:
        state: of the run.
        dataset: that ``rows`` belong to.
        rows: (B, K) from :func:`validation_rows`.

    Returns:
        ``val/l1`` (on [-1, 1]), ``val/ssim``, ``val/mouth_r`` (correlation of mouth opening
        with the real one, luma estimator), ``val/mouth_r_shuffled`` (the same with the speech of
        another moment: near 0 unless the reading is blind), ``val/mouth_amplitude`` (ratio to
        real), ``val/sharpness`` (likewise), ``val/variation`` and ``val/audio_effect`` (see
        :func:`changes`), ``val/score``; and the samples.
    """
    face = state.ema.eval()
    batch = Batch.gather(dataset, rows, state.config, state.device)
    reference, seed = batch.reference, state.config.train.seed
    fake = speak_windows(face, batch.audio, seed, reference)
    other = _other_moments(batch.audio)
    shuffled = speak_windows(face, other, seed, reference)
    real_opening, opening, wrong = (
        face.codes.mouth(frames.flatten(0, 1), reference)[:, 0]
        for frames in (batch.frames, fake, shuffled)
    )
    stretches = zip(fake, batch.frames, strict=True)  # one at a time: SSIM takes memory
    pixels = [
        reconstruction_losses(made[None], real[None], 1.0, face.spec.frames_per_group)
        for made, real in stretches
    ]
    values = {
        "l1": torch.stack([found["l1"] for found in pixels]).mean().item(),
        "ssim": 1 - torch.stack([found["ssim"] for found in pixels]).mean().item(),
        "mouth_r": correlation(opening, real_opening),
        "mouth_r_shuffled": correlation(wrong, real_opening),
        "sharpness": (gradient_energy(fake) / gradient_energy(batch.frames)).item(),
        "mouth_amplitude": (opening.std() / real_opening.std().clamp_min(1e-6)).item(),
        **changes(batch.frames, fake, shuffled, face.spec.frames_per_group),
    }
    values["score"] = score(values)
    readings = {f"val/{name}": value for name, value in values.items()}
    pair = torch.cat([batch.frames[0], fake[0]], -1)
    samples = Samples(
        sample_picture(batch.frames, fake, face.spec.frames_per_group),
        ((pair + 1) * 127.5).round().byte().movedim(1, -1).contiguous().cpu().numpy(),
        dataset.speech(rows[0]),
    )
    return readings, samples


def _other_moments(audio: Tensor) -> Tensor:
    """Windows (B, K, L) of another stretch each, rolled in time by random steps.

    Random, because sentences of one length would otherwise stay in step with each other.
    """
    random = np.random.default_rng(0)
    count, length = audio.shape[:2]
    stretches = (np.arange(count) + (random.integers(1, count) if count > 1 else 0)) % count
    steps = random.integers(0, length, (count, 1)) if count > 1 else np.array([[length // 2]])
    return audio[stretches[:, None], (np.arange(length) + steps) % length]


def speak_windows(face: Face, audio: Tensor, seed: int, reference: Tensor | None = None) -> Tensor:
    """Frames (B, K * T, 3, S, S) of (B, K, L) windows, with the reference pose.

    ``reference`` are the frames (B, 3, S, S) of who speaks, where the model has an identity.
    """
    noise = torch.Generator().manual_seed(seed)
    z = torch.randn(*audio.shape[:2], face.config.z_dim, generator=noise).to(audio.device)
    pose = face.codes.reference_pose.expand(*audio.shape[:2], face.spec.frames_per_group, -1)
    who = [None] * len(audio) if reference is None else reference.split(1)
    stretches = zip(audio.split(1), z.split(1), pose.split(1), who, strict=True)
    return torch.cat(  # one by one: bounds the memory
        [face.speak(audio, z, pose, None, reference) for audio, z, pose, reference in stretches]
    )


def changes(real: Tensor, fake: Tensor, shuffled: Tensor, per_group: int) -> dict[str, float]:
    """How much the mouth changes, in all its pixels, as ratios to the real one's.

    Args:
        real: frames (B, K * per_group, 3, S, S) in [-1, 1].
        fake: generated from their speech.
        shuffled: generated from other speech, with the same noise.
        per_group: frames in a group.

    Returns:
        ``variation``: deviation of the generated mouths from group to group; 0 where all groups
        are the same, near 1 as real. ``audio_effect``: how far the mouths of true and of other
        speech are apart; 0 where G does not hear, 1 as far as real mouths of different moments.
    """
    mouth = (..., *MOUTH.slices(real.shape[-1]))
    real, fake, shuffled = (
        frames[mouth].unflatten(1, (-1, per_group)).flatten(0, 1)
        for frames in (real, fake, shuffled)
    )
    usual = real.var(0).mean().sqrt().clamp_min(1e-6)
    return {
        "variation": (fake.var(0).mean().sqrt() / usual).item(),
        # Two independent moments are sqrt(2) deviations apart.
        "audio_effect": ((fake - shuffled).square().mean().div(2).sqrt() / usual).item(),
    }


def gradient_energy(frames: Tensor) -> Tensor:
    """Mean squared luma gradient of frames (..., 3, S, S): how sharp they are."""
    grey = frames.mean(-3)
    return grey.diff(dim=-1).square().mean() + grey.diff(dim=-2).square().mean()


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's r of two (N,) series in [-1, 1]; 0 where one does not move."""
    a, b = a - a.mean(), b - b.mean()
    norm = a.norm() * b.norm()
    return (a @ b / norm).item() if norm > 1e-9 else 0.0


def sample_picture(real: Tensor, fake: Tensor, per_group: int) -> np.ndarray:
    """(H, W, 3) uint8 RGB: real frames above the generated ones at fixed moments of one stretch."""
    moments = [
        group * per_group + frame
        for group in SAMPLE_GROUPS
        if (group + 1) * per_group <= real.shape[1]
        for frame in range(per_group)
    ] or list(range(real.shape[1]))
    both = torch.cat([real[0, moments], fake[0, moments]])
    grid = torchvision.utils.make_grid((both + 1) / 2, nrow=len(moments), padding=1)
    return (grid * 255).round().byte().movedim(0, -1).contiguous().cpu().numpy()
