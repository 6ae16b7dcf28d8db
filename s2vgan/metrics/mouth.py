"""How far a mouth is open, read off frames.

Two rulers, so that neither can be bent to a model:

- :func:`mouth_opening_luma` needs no data: an open mouth is dark inside, and its teeth are bright,
  so the luma of the mouth region spreads. Against the true openings of the rendered talking head
  r = .90, and of eight such measures it is the one that speech predicts best on a real clip.
- :class:`OpeningEstimator` is fitted on real frames of *training* time whose true openings are
  known (the rendered talking head), and then applied to real and generated frames alike.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from s2vgan.metrics.components import principal
from s2vgan.metrics.image import luma
from s2vgan.regions import MOUTH, UPPER, Region

# Frames are shrunk first: every crop size measures alike, a blurred mouth like a sharp one.
_LUMA_SIDE = 64
_SIDE = 32
_MOUTH_COMPONENTS = 24
_POSE = 8  # components of the upper face, which tell the pose of the head
_RIDGE = 1e-2  # of the largest variance of a component: no weight on fine detail
FIT_FRAMES = 3000  # enough to fit 32 numbers


def mouth_opening_luma(frames: np.ndarray) -> np.ndarray:
    """Standard deviation of luma inside the mouth region, (N,) on [0, .5].

    Args:
        frames: (N, S, S, 3) uint8.
    """
    rows, columns = MOUTH.slices(_LUMA_SIDE)
    return _shrink(frames, _LUMA_SIDE)[:, rows, columns].std(axis=(1, 2))


@dataclass(frozen=True, eq=False)
class OpeningEstimator:
    """Mouth opening as a linear filter over the luma of the crop.

    Attributes:
        weights: (32, 32) float32.
        bias: added to the sum of weighted luma.
    """

    weights: np.ndarray
    bias: float

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        """Openings (N,) of (N, S, S, 3) uint8 frames."""
        return _shrink(frames).reshape(len(frames), -1) @ self.weights.reshape(-1) + self.bias

    @classmethod
    def fit(cls, frames: np.ndarray, openings: np.ndarray) -> "OpeningEstimator":
        """Ridge regression from components of mouth and upper face to the true openings.

        Args:
            frames: (N, S, S, 3) uint8, real, of training time; FIT_FRAMES are enough.
            openings: (N,) true openings.
        """
        light, truth = _shrink(frames), openings
        mean = light.mean(axis=0)
        light -= mean
        filters = np.concatenate(
            [_components(light, MOUTH, _MOUTH_COMPONENTS), _components(light, UPPER, _POSE)]
        )
        codes = light.reshape(len(light), -1) @ filters.T
        gram = codes.T @ codes
        penalty = _RIDGE * gram.max() * np.eye(len(gram))
        solution = np.linalg.solve(gram + penalty, codes.T @ (truth - truth.mean()))
        weights = (solution @ filters).reshape(mean.shape).astype(np.float32)
        return cls(weights, float(truth.mean() - (weights * mean).sum()))


def _shrink(frames: np.ndarray, side: int = _SIDE) -> np.ndarray:
    """Luma of (N, S, S, 3) uint8 frames, averaged down to (N, side, side) float32."""
    light = torch.from_numpy(luma(frames))[:, None]
    return F.interpolate(light, size=(side, side), mode="area")[:, 0].numpy()


def _components(centred: np.ndarray, region: Region, count: int) -> np.ndarray:
    """Principal components of a region of (N, 32, 32) luma, as (count, 32 * 32) filters."""
    rows, columns = region.slices(_SIDE)
    part = centred[:, rows, columns]
    found = principal(part.reshape(len(part), -1), count).T
    filters = np.zeros((len(found), _SIDE, _SIDE), np.float32)
    filters[:, rows, columns] = found.reshape(len(found), *part.shape[1:])
    return filters.reshape(len(found), -1)
