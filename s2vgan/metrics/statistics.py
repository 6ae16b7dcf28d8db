"""Intervals: of a value over time, of a difference on the same time, and over seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from s2vgan.metrics.registry import METRICS

DRAWS = 1000  # of a bootstrap
_FEWEST_BLOCKS = 3  # that an interval can be had from
# Two-sided 95 % quantiles of Student's t for 1 to 30 degrees of freedom (any table of it).
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % interval; the ends are None where no interval can be had."""

    value: float
    low: float | None = None
    high: float | None = None

    def to_dict(self) -> dict[str, float | None]:
        """As in metrics.json."""
        return {"value": self.value, "ci_low": self.low, "ci_high": self.high}


def estimate(name: str, blocks: np.ndarray, draws: int = DRAWS, seed: int = 0) -> Estimate | None:
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
    return _interval(name, [blocks], [1.0], draws, seed)


def difference(
    name: str, a: Sequence[np.ndarray], b: Sequence[np.ndarray], seed: int = 0
) -> Estimate | None:
    """How much more of a metric ``a`` has than ``b`` on the same blocks: a paired bootstrap.

    Args:
        name: of the metric.
        a: (B, K) sums for each run of the one recipe; the mean of its runs counts.
        b: the same of the other recipe, of the same blocks.
        seed: of the bootstrap.

    Returns:
        The estimate of a - b; None where it is undefined.
    """
    weights = [1 / len(a)] * len(a) + [-1 / len(b)] * len(b)
    return _interval(name, [*a, *b], weights, DRAWS, seed)


def over_seeds(values: Sequence[float]) -> dict[str, float]:
    """Mean, standard deviation and 95 % t interval of the mean, of at least 2 values.

    Raises:
        ValueError: if there are fewer.
    """
    if len(values) < 2:
        raise ValueError("a spread needs at least 2 values")
    mean, spread = float(np.mean(values)), float(np.std(values, ddof=1))
    half = _T95[min(len(values) - 1, len(_T95)) - 1] * spread / math.sqrt(len(values))
    ends = {"low": mean - half, "high": mean + half}
    return {"mean": mean, "sd": spread, **ends, "n": len(values)}


def _interval(
    name: str, runs: Sequence[np.ndarray], weights: Sequence[float], draws: int, seed: int
) -> Estimate | None:
    """A weighted sum of a metric's values; all runs are resampled alike."""
    combine = METRICS[name].combine

    def total(pick: np.ndarray | None) -> np.ndarray:
        chosen = (run.sum(axis=0) if pick is None else run[pick].sum(axis=1) for run in runs)
        parts = (weight * combine(sums) for weight, sums in zip(weights, chosen, strict=True))
        return np.asarray(sum(parts))

    value = float(total(None))
    if not math.isfinite(value):
        return None
    count = len(runs[0])
    if count < _FEWEST_BLOCKS:
        return Estimate(value)
    drawn = total(np.random.default_rng(seed).integers(0, count, (draws, count)))
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return Estimate(value)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Estimate(value, float(low), float(high))
