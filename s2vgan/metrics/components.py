"""Components of the mouth that the pose of the head does not explain."""

from dataclasses import dataclass

import numpy as np

from s2vgan.metrics.image import region_luma
from s2vgan.regions import MOUTH, UPPER

COMPONENTS = 5
FEWEST_FRAMES = 300  # that components can be fitted on

_MOUTH_SIDE, _UPPER_SIDE = 16, 16  # pixels that the regions are shrunk to, either way
_POSE = 8  # components of the upper face, which tell the pose of the head


@dataclass(frozen=True, eq=False)
class MouthComponents:
    """Principal components of the mouth's luma, freed of what the upper face predicts.

    Attributes:
        upper_mean: (256,) of the upper face's luma.
        upper_basis: (256, 8) its principal components.
        mouth_mean: (256,) of the mouth's luma.
        mouth_from_upper: (8, 256) regression of the mouth on the upper face's components.
        basis: (256, 5), of unit variance on training time.
    """

    upper_mean: np.ndarray
    upper_basis: np.ndarray
    mouth_mean: np.ndarray
    mouth_from_upper: np.ndarray
    basis: np.ndarray

    @classmethod
    def fit(cls, frames: np.ndarray) -> "MouthComponents":
        """Find them in real frames (N, S, S, 3) uint8 of training time.

        Raises:
            ValueError: if there are fewer than FEWEST_FRAMES.
        """
        if len(frames) < FEWEST_FRAMES:
            raise ValueError(f"components of the mouth need at least {FEWEST_FRAMES} frames")
        upper = region_luma(frames, UPPER, _UPPER_SIDE)
        mouth = region_luma(frames, MOUTH, _MOUTH_SIDE)
        upper_mean, mouth_mean = upper.mean(axis=0), mouth.mean(axis=0)
        upper_basis = principal(upper - upper_mean, _POSE)
        pose = (upper - upper_mean) @ upper_basis
        regression = np.linalg.lstsq(pose, mouth - mouth_mean, rcond=None)[0]
        free = mouth - mouth_mean - pose @ regression
        basis = principal(free, COMPONENTS)
        spread = (free @ basis).std(axis=0)
        return cls(upper_mean, upper_basis, mouth_mean, regression, basis / spread.clip(1e-9))

    def read(self, frames: np.ndarray) -> np.ndarray:
        """Components (N, 5) of (N, S, S, 3) uint8 frames."""
        pose = (region_luma(frames, UPPER, _UPPER_SIDE) - self.upper_mean) @ self.upper_basis
        free = region_luma(frames, MOUTH, _MOUTH_SIDE) - self.mouth_mean
        return (free - pose @ self.mouth_from_upper) @ self.basis


def principal(centred: np.ndarray, count: int) -> np.ndarray:
    """The main directions of centred rows (N, D) as unit vectors (D, count), strongest first."""
    return np.linalg.eigh(centred.T @ centred)[1][:, ::-1][:, :count]
