"""Metrics; each declares its range, its direction and its source.

``image`` and ``mouth`` hold the measures, ``perceptual`` LPIPS, ``registry`` the metrics by name,
``score`` the one number that a sweep maximises.
"""

from s2vgan.metrics.image import DATA_RANGE, mse, psnr, ssim, ssim_map, to_float
from s2vgan.metrics.mouth import FIT_FRAMES, OpeningEstimator, mouth_opening_luma
from s2vgan.metrics.perceptual import find_trunk, load_lpips
from s2vgan.metrics.registry import (
    METRICS,
    Estimate,
    Instruments,
    Metric,
    Stretch,
    estimate,
    measure,
    values,
)
from s2vgan.metrics.score import score

__all__ = [
    "DATA_RANGE",
    "FIT_FRAMES",
    "METRICS",
    "Estimate",
    "Instruments",
    "Metric",
    "OpeningEstimator",
    "Stretch",
    "estimate",
    "find_trunk",
    "load_lpips",
    "measure",
    "mouth_opening_luma",
    "mse",
    "psnr",
    "score",
    "ssim",
    "ssim_map",
    "to_float",
    "values",
]
