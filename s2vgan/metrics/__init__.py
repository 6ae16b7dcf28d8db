"""Metrics; each declares its range, its direction and its source.

``image``, ``mouth``, ``components``, ``sync``, ``perceptual`` and ``networks`` hold the measures,
``stretch`` what they are taken of, ``terms`` what they count, ``registry`` the metrics by name,
``statistics`` their intervals, and ``score`` the one number of a sweep.
"""

from s2vgan.metrics.components import MouthComponents
from s2vgan.metrics.image import DATA_RANGE, mse, psnr, ssim, ssim_map, to_float
from s2vgan.metrics.mouth import FIT_FRAMES, OpeningEstimator, mouth_opening_luma
from s2vgan.metrics.networks import IdentityModel, SyncNet
from s2vgan.metrics.perceptual import find_trunk, load_lpips
from s2vgan.metrics.registry import METRICS, Metric, measure, values
from s2vgan.metrics.score import score
from s2vgan.metrics.statistics import Estimate, difference, estimate, over_seeds
from s2vgan.metrics.stretch import Instruments, Opening, Stretch
from s2vgan.metrics.sync import CANDIDATES, SyncMeter

__all__ = [
    "CANDIDATES",
    "DATA_RANGE",
    "FIT_FRAMES",
    "METRICS",
    "Estimate",
    "IdentityModel",
    "Instruments",
    "Metric",
    "MouthComponents",
    "Opening",
    "OpeningEstimator",
    "Stretch",
    "SyncMeter",
    "SyncNet",
    "difference",
    "estimate",
    "find_trunk",
    "load_lpips",
    "measure",
    "mouth_opening_luma",
    "mse",
    "over_seeds",
    "psnr",
    "score",
    "ssim",
    "ssim_map",
    "to_float",
    "values",
]
