"""The losses of D and G. Their weights are data: the keys of ``LossConfig``."""

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from s2vgan.config import LossConfig
from s2vgan.metrics import ssim_map
from s2vgan.regions import MOUTH


def discriminator_loss(form: str, real: Tensor, fake: Tensor) -> Tensor:
    """What D minimises, from its logits (N,) of real and of generated groups.

    bce: -log D(x) - log(1 - D(G(z))) (Goodfellow et al. 2014, eq. 1); hinge: max(0, 1 - D(x)) +
    max(0, 1 + D(G(z))) (Lim and Ye 2017).
    """
    if form == "bce":
        return F.softplus(-real).mean() + F.softplus(fake).mean()
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def adversarial_loss(form: str, fake: Tensor) -> Tensor:
    """What G minimises, from D's logits (N,) of generated groups.

    bce: the non-saturating -log D(G(z)) (Goodfellow et al. 2014, sec. 3); hinge: -D(G(z)).
    """
    return F.softplus(-fake).mean() if form == "bce" else -fake.mean()


def reconstruction_losses(fake: Tensor, real: Tensor, mouth: float) -> dict[str, Tensor]:
    """Pixel losses of frames (N, 3, S, S) on [-1, 1], with the mouth weighed ``mouth`` times.

    Returns:
        ``l1``: mean absolute error, [0, 2]; ``ssim``: 1 - SSIM, [0, 2].
    """
    size = fake.shape[-1]
    weight = fake.new_ones(size, size)
    weight[MOUTH.slices(size)] = mouth
    weight /= weight.mean()
    return {
        "l1": ((fake - real).abs() * weight).mean(),
        "ssim": ((1 - ssim_map(fake, real, data_range=2.0)) * weight).mean(),
    }


def weighted_sum(config: LossConfig, terms: dict[str, Tensor]) -> Tensor:
    """Sum of the terms, each times the weight that the configuration gives its name."""
    weights = dataclasses.asdict(config)
    return torch.stack([weights[name] * value for name, value in terms.items()]).sum()
