"""The metrics by name: what each measures, in which range, and which direction is better.

A metric turns a :class:`Stretch` (generated and real frames of the same instants) into *terms*, a
few numbers per frame whose sums decide its value: a mean is (sum, count), a ratio two sums, a
correlation three. So everything is computed in one pass, and an interval comes from resampling
the sums of blocks of time (:func:`estimate`), for a correlation as for a mean.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from s2vgan.metrics import image
from s2vgan.metrics.mouth import mouth_opening_luma
from s2vgan.metrics.perceptual import Lpips
from s2vgan.regions import MOUTH, UPPER

Opening = Callable[[np.ndarray], np.ndarray]

_BATCH = 64  # frames turned to float at a time
_STILL = 1e-12  # variance, or mean change, under which nothing moves


@dataclass(frozen=True)
class Instruments:
    """What metrics measure with.

    Attributes:
        opening: mouth opening of (N, S, S, 3) uint8 frames, for mouth_r and mouth_amplitude.
        lpips: perceptual distance, or None where its weights are missing.
        device: of the tensors handed to ``lpips``.
    """

    opening: Opening = mouth_opening_luma
    lpips: Lpips | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Stretch:
    """Generated and real frames of the same instants, without a gap in time.

    Attributes:
        generated: (N, S, S, 3) uint8.
        real: like generated.
        frames_per_group: T; the first frame is the first of a group.
    """

    generated: np.ndarray
    real: np.ndarray
    frames_per_group: int = 3

    def __post_init__(self) -> None:
        if self.generated.shape != self.real.shape:
            raise ValueError(f"generated {self.generated.shape}, real {self.real.shape}")

    @cached_property
    def starts_group(self) -> np.ndarray:
        """(N,) bool: the frame is the first of its group."""
        return np.arange(len(self.real)) % self.frames_per_group == 0


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        title: for people.
        low: end of its range.
        high: other end.
        best: which end is better; ``one``: the ratio 1.
        unit: or what a ratio is taken to.
        source: definition.
        terms: (N, K) float64 per frame of a stretch; None where an instrument is missing.
        combine: sums of terms (..., K) to values (...,); NaN where undefined.
    """

    title: str
    low: float
    high: float
    best: Literal["lower", "higher", "one"]
    unit: str
    source: str
    terms: Callable[[Stretch, Instruments], np.ndarray | None]
    combine: Callable[[np.ndarray], np.ndarray]

    def declaration(self) -> dict[str, object]:
        """Range, direction, unit and source as JSON values; an endless range ends with null."""
        return {
            "title": self.title,
            "range": [self.low, self.high if math.isfinite(self.high) else None],
            "best": self.best,
            "unit": self.unit,
            "source": self.source,
        }


@dataclass(frozen=True)
class Estimate:
    """A metric's value and its 95 % interval; the ends are None where no interval can be had."""

    value: float
    low: float | None = None
    high: float | None = None


def _ratio(sums: np.ndarray) -> np.ndarray:
    """First sum over second; NaN where the second is nothing."""
    above, below = sums[..., 0], sums[..., 1]
    return np.where(below > _STILL, above / np.where(below > _STILL, below, 1), np.nan)


def _correlation(sums: np.ndarray) -> np.ndarray:
    """Pearson's r from sums of xx, yy and xy of centred series; 0 where one of them is still."""
    power = sums[..., 0] * sums[..., 1]
    moves = (sums[..., 0] > _STILL) & (sums[..., 1] > _STILL)
    r = np.where(moves, sums[..., 2] / np.sqrt(np.where(moves, power, 1)), 0.0)
    return r.clip(-1, 1)  # rounding can carry it past its ends


def _amplitude(sums: np.ndarray) -> np.ndarray:
    return np.sqrt(_ratio(sums))


def _seam(sums: np.ndarray) -> np.ndarray:
    """Change at group starts over change inside groups, generated over the same of real."""
    return _ratio(np.stack([_ratio(sums[..., :2]), _ratio(sums[..., 2:])], axis=-1))


def _per_frame(
    compare: Callable[[Tensor, Tensor], Tensor], stretch: Stretch, device: str = "cpu"
) -> np.ndarray:
    """(N, 2): the value of each pair of frames, and 1."""
    parts = []
    with torch.inference_mode():
        for start in range(0, len(stretch.real), _BATCH):
            chunk = slice(start, start + _BATCH)
            made = image.to_float(stretch.generated[chunk]).to(device)
            true = image.to_float(stretch.real[chunk]).to(device)
            parts.append(compare(made, true).double().cpu().numpy())
    values = np.concatenate(parts)
    return np.stack([values, np.ones_like(values)], axis=1)


def _framewise(
    compare: Callable[[Tensor, Tensor], Tensor],
) -> Callable[[Stretch, Instruments], np.ndarray]:
    return lambda stretch, _: _per_frame(compare, stretch)


def _mouth_mse(made: Tensor, true: Tensor) -> Tensor:
    rows, columns = MOUTH.slices(made.shape[-1])
    return image.mse(made[..., rows, columns], true[..., rows, columns])


def _lpips(stretch: Stretch, instruments: Instruments) -> np.ndarray | None:
    if instruments.lpips is None:
        return None
    return _per_frame(instruments.lpips, stretch, instruments.device)


def _products(opening: Opening, stretch: Stretch) -> np.ndarray:
    """(N, 3): xx, yy, xy of the generated and the real opening, each without its mean."""
    made = opening(stretch.generated).astype(np.float64)
    true = opening(stretch.real).astype(np.float64)
    made, true = made - made.mean(), true - true.mean()
    # A frame held still measures the same up to rounding: that is no motion.
    made[np.abs(made) < 1e-6 * np.abs(true).max()] = 0
    return np.stack([made * made, true * true, made * true], axis=1)


def _sharpness(stretch: Stretch, _: Instruments) -> np.ndarray:
    frames = (stretch.generated, stretch.real)
    return np.stack([image.gradient_energy(part) for part in frames], axis=1)


def _flicker(stretch: Stretch, _: Instruments) -> np.ndarray:
    rows, columns = UPPER.slices(stretch.real.shape[1])
    frames = (stretch.generated, stretch.real)
    return np.stack([image.change(part, rows, columns) for part in frames], axis=1)


def _seam_terms(stretch: Stretch, _: Instruments) -> np.ndarray:
    made, true = image.change(stretch.generated), image.change(stretch.real)
    starts = stretch.starts_group
    return np.stack([made * starts, made * ~starts, true * starts, true * ~starts], axis=1)


_MSE_UNIT = "squared, on [-1, 1]; a quarter of this on [0, 1]"
_CENTRED = "each piece of up to 10 s about its own mean"
_SSIM_SOURCE = "Wang et al. 2004; Gaussian window 11, sigma 1.5"

METRICS: dict[str, Metric] = {
    "mse": Metric(
        "MSE", 0, 4, "lower", _MSE_UNIT, "mean squared error over all pixels",
        _framewise(image.mse), _ratio,
    ),
    "psnr": Metric(
        "PSNR", 0, image.PSNR_CAP, "higher", "dB, data range 2", "mean over frames, capped",
        _framewise(image.psnr), _ratio,
    ),
    "ssim": Metric(
        "SSIM", -1, 1, "higher", "data range 1 on [0, 1]", _SSIM_SOURCE,
        _framewise(image.ssim), _ratio,
    ),
    "lpips": Metric(
        "LPIPS", 0, math.inf, "lower", "AlexNet, v0.1, on [-1, 1]", "Zhang et al. 2018",
        _lpips, _ratio,
    ),
    "mouth_mse": Metric(
        "mouth MSE", 0, 4, "lower", _MSE_UNIT, "MSE inside the mouth region",
        _framewise(_mouth_mse), _ratio,
    ),
    "mouth_r": Metric(
        "mouth r", -1, 1, "higher", "correlation",
        "mouth opening of generated against real frames, by the estimator named in the report, "
        f"{_CENTRED}; 0 where nothing moves",
        lambda stretch, instruments: _products(instruments.opening, stretch), _correlation,
    ),
    "mouth_r_luma": Metric(
        "mouth r (luma)", -1, 1, "higher", "correlation",
        "the same with the standard deviation of luma in the mouth region as its opening",
        lambda stretch, _: _products(mouth_opening_luma, stretch), _correlation,
    ),
    "mouth_amplitude": Metric(
        "mouth amplitude", 0, math.inf, "one", "ratio to real",
        f"standard deviation of mouth opening, generated over real, {_CENTRED}",
        lambda stretch, instruments: _products(instruments.opening, stretch), _amplitude,
    ),
    "sharpness": Metric(
        "sharpness", 0, math.inf, "one", "ratio to real",
        "mean squared luma gradient, generated over real; noise is above 1",
        _sharpness, _ratio,
    ),
    "flicker": Metric(
        "flicker", 0, math.inf, "one", "ratio to real",
        "mean frame-to-frame luma change of the upper face, generated over real; 0 is frozen",
        _flicker, _ratio,
    ),
    "seam": Metric(
        "seam", 0, math.inf, "one", "ratio to real",
        "luma change across group boundaries over change inside groups, generated over real",
        _seam_terms, _seam,
    ),
}  # fmt: skip


def measure(
    stretch: Stretch, instruments: Instruments, names: Iterable[str] = METRICS
) -> dict[str, np.ndarray]:
    """Terms (N, K) of each metric; a metric whose instrument is missing is left out."""
    found = {name: METRICS[name].terms(stretch, instruments) for name in names}
    return {name: terms.astype(np.float64) for name, terms in found.items() if terms is not None}


def estimate(name: str, blocks: np.ndarray, draws: int = 1000, seed: int = 0) -> Estimate | None:
    """Value and 95 % percentile bootstrap interval of a metric (Efron and Tibshirani 1993).

    Args:
        name: of the metric.
        blocks: (B, K) sums of its terms over blocks of time, which are resampled whole: frames
            next to each other are far from independent.
        draws: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        The estimate, without an interval for fewer than 3 blocks; None where it is undefined.
    """
    combine = METRICS[name].combine
    value = float(combine(blocks.sum(axis=0)))
    if not math.isfinite(value):
        return None
    if len(blocks) < 3:
        return Estimate(value)
    picks = np.random.default_rng(seed).integers(0, len(blocks), (draws, len(blocks)))
    drawn = combine(blocks[picks].sum(axis=1))
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return Estimate(value)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(value, float(low), float(high))


def values(
    stretches: Iterable[Stretch],
    instruments: Instruments | None = None,
    names: Iterable[str] = METRICS,
) -> dict[str, float]:
    """Metrics over some stretches, without intervals: for validation during training.

    Args:
        stretches: at least one.
        instruments: luma opening and no LPIPS by default.
        names: of the metrics.

    Returns:
        Value by name; a metric that is undefined there (a ratio of nothing) is absent.
    """
    instruments = instruments or Instruments()
    sums: dict[str, np.ndarray] = {}
    for stretch in stretches:
        for name, terms in measure(stretch, instruments, names).items():
            sums[name] = sums.get(name, 0) + terms.sum(axis=0)
    found = {name: float(METRICS[name].combine(total)) for name, total in sums.items()}
    return {name: value for name, value in found.items() if math.isfinite(value)}
