"""The losses of D and G. Their weights are data: the keys of ``LossConfig``."""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from s2vgan.config import LossConfig
from s2vgan.metrics import ssim_map
from s2vgan.regions import MOUTH

REAL_LABEL = 0.9  # of lsgan; wav2pix's one-sided smoothing
# Logits above it call a group real: half-way between what D is trained to give.
BOUNDARY = {"bce": 0.0, "hinge": 0.0, "lsgan": REAL_LABEL / 2}


def discriminator_loss(form: str, real: Tensor, fake: Tensor) -> Tensor:
    """What D minimises, from its logits (N,) of real and of generated groups.

    bce: -log D(x) - log(1 - D(G(z))) (Goodfellow et al. 2014, eq. 1); hinge: max(0, 1 - D(x)) +
    max(0, 1 + D(G(z))) (Lim and Ye 2017); lsgan: (D(x) - 0.9)^2 + D(G(z))^2 (Mao et al. 2017,
    eq. 9, with smoothed labels).
    """
    if form == "bce":
        told_real = F.softplus(-real)
    elif form == "hinge":
        told_real = F.relu(1 - real)
    else:
        told_real = (real - REAL_LABEL).square()
    return told_real.mean() + rejection_loss(form, fake)


def rejection_loss(form: str, logits: Tensor) -> Tensor:
    """What D minimises to reject: its logits (N,) of generated groups, or of wrong speech."""
    if form == "bce":
        return F.softplus(logits).mean()
    return F.relu(1 + logits).mean() if form == "hinge" else logits.square().mean()


def chance(form: str, wrong: float) -> float:
    """What D minimises, where it knows no group and gives all the one logit that is best.

    Args:
        form: of the GAN objective.
        wrong: weight of real frames with wrong speech, which are to be rejected, too.
    """
    rejected = 1 + wrong  # against 1 of what is real
    if form == "hinge":
        return 2.0
    if form == "lsgan":
        return REAL_LABEL**2 * rejected / (1 + rejected)
    return math.log(1 + rejected) + rejected * math.log((1 + rejected) / rejected)


def adversarial_loss(form: str, fake: Tensor) -> Tensor:
    """What G minimises, from D's logits (N,) of generated groups.

    bce: the non-saturating -log D(G(z)) (Goodfellow et al. 2014, sec. 3); hinge: -D(G(z)); lsgan:
    (D(G(z)) - 1)^2.
    """
    if form == "bce":
        return F.softplus(-fake).mean()
    return -fake.mean() if form == "hinge" else (fake - 1).square().mean()


def feature_loss(fake: Tensor, real: Tensor) -> Tensor:
    """Squared error of the batch means of D's features (N, C, H, W) (Salimans et al. 2016, 3.1)."""
    return F.mse_loss(fake.float().mean(0), real.float().mean(0))


def reconstruction_losses(
    fake: Tensor, real: Tensor, mouth: float, per_group: int
) -> dict[str, Tensor]:
    """Pixel losses of sequences (B, K * T, 3, S, S) on [-1, 1].

    Args:
        fake: generated frames.
        real: the frames that they should be.
        mouth: how many times the mouth counts.
        per_group: T, frames of a group.

    Returns:
        ``l1``: mean absolute error, [0, 2]; ``ssim``: 1 - SSIM, [0, 2]; ``seam``: mean absolute
        error of the change from a group's last frame to the next one's first, [0, 4]; 0 where
        there is one group.
    """
    size = fake.shape[-1]
    weight = fake.new_ones(size, size)
    weight[MOUTH.slices(size)] = mouth
    weight /= weight.mean()
    error = fake - real
    seams = error[:, per_group::per_group] - error[:, per_group - 1 : -1 : per_group]
    likeness = ssim_map(fake.flatten(0, 1), real.flatten(0, 1))
    return {
        "l1": (error.abs() * weight).mean(),
        "ssim": ((1 - likeness) * weight).mean(),
        "seam": (seams.abs() * weight).mean() if seams.numel() else error.new_zeros(()),
    }


def weighted_sum(config: LossConfig, terms: dict[str, Tensor]) -> Tensor:
    """Sum of the terms, each times the weight that the configuration gives its name."""
    weights = dataclasses.asdict(config)
    return torch.stack([weights[name] * value for name, value in terms.items()]).sum()
