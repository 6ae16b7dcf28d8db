import math

import pytest
import torch

from s2vgan.config import LossConfig
from s2vgan.losses import (
    adversarial_loss,
    discriminator_loss,
    feature_loss,
    reconstruction_losses,
    rejection_loss,
    weighted_sum,
)
from s2vgan.regions import MOUTH


def test_adversarial_losses_have_their_known_values() -> None:
    zero, two = torch.zeros(3), torch.full((3,), 2.0)
    assert discriminator_loss("bce", zero, zero).item() == pytest.approx(2 * math.log(2))
    assert adversarial_loss("bce", zero).item() == pytest.approx(math.log(2))
    assert discriminator_loss("hinge", zero, zero).item() == 2
    assert discriminator_loss("hinge", two, -two).item() == 0
    assert adversarial_loss("hinge", two).item() == -2
    assert discriminator_loss("lsgan", two, -two).item() == pytest.approx(1.1**2 + 4)
    assert discriminator_loss("lsgan", zero + 0.9, zero).item() == pytest.approx(0)
    assert adversarial_loss("lsgan", zero).item() == 1
    for form in ("bce", "hinge", "lsgan"):
        assert rejection_loss(form, zero - 0.1) < rejection_loss(form, two)
    for form in ("bce", "hinge"):  # D wants real high and generated low, G wants the opposite
        assert discriminator_loss(form, two, -two) < discriminator_loss(form, -two, two)
        assert adversarial_loss(form, two) < adversarial_loss(form, -two)


def test_an_error_in_the_mouth_weighs_more() -> None:
    real = torch.zeros(1, 6, 3, 64, 64)
    in_mouth, elsewhere = real.clone(), real.clone()
    in_mouth[:, 3, :, *MOUTH.slices(64)][..., 5:10, 5:10] = 0.5
    elsewhere[:, 3, :, 5:10, 5:10] = 0.5
    for name in ("l1", "ssim", "seam"):
        even = [reconstruction_losses(fake, real, 1.0, 3)[name] for fake in (in_mouth, elsewhere)]
        torch.testing.assert_close(*even, rtol=0.05, atol=0)
        heavy = [reconstruction_losses(fake, real, 3.0, 3)[name] for fake in (in_mouth, elsewhere)]
        assert heavy[0] / heavy[1] == pytest.approx(3.0, rel=0.1)
    assert reconstruction_losses(real, real, 3.0, 3)["ssim"].item() == pytest.approx(0, abs=1e-6)
    l1 = reconstruction_losses(real + 0.5, real, 3.0, 3)["l1"].item()
    assert l1 == pytest.approx(0.5)  # a weight, not a factor: an even error keeps its size


def test_seam_is_the_error_of_the_change_from_group_to_group() -> None:
    real = torch.rand(2, 9, 3, 32, 32)

    def seam(fake: torch.Tensor, real: torch.Tensor = real) -> float:
        return reconstruction_losses(fake, real, 1.0, 3)["seam"].item()

    assert seam(real + 0.5) == pytest.approx(0, abs=1e-6)  # the change is right
    inside = real.clone()
    inside[:, [1, 4, 7]] = 0
    assert seam(inside) == 0
    later = real.clone()
    later[:, 3:] += 0.25  # one of the two seams
    assert seam(later) == pytest.approx(0.125, abs=1e-6)
    assert seam(real[:, :3] + 1, real[:, :3]) == 0  # one group has none


def test_features_are_matched_in_the_mean_of_the_batch() -> None:
    real = torch.randn(8, 4, 2, 2)
    assert feature_loss(real.flip(0), real).item() == pytest.approx(0, abs=1e-9)
    assert feature_loss(real + 3, real).item() == pytest.approx(9, rel=1e-5)


def test_weights_are_looked_up_by_name() -> None:
    config = LossConfig(gan=0.5, l1=2.0, ssim=0.0)
    terms = {"gan": torch.tensor(4.0), "l1": torch.tensor(1.5), "ssim": torch.tensor(9.0)}
    assert weighted_sum(config, terms).item() == 5.0
