"""Fixed codes of a face, fitted once on training time: its pose and its mouth.

Head pose is not in the speech, so a pixel loss alone drives a generator to a still mean face. The
pose code hands the pose over as a condition; the mouth code is what the audio encoder learns to
predict. Both are principal components of luma, and are stored with the model.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2vgan.regions import MOUTH, UPPER

MOUTH_DIM = 8  # the opening and 7 components
POSE_GRID = (16, 32)  # luma of the upper face is averaged to this many rows and columns
MOUTH_GRID = (16, 24)


def luma(frames: Tensor) -> Tensor:
    """BT.601 luma of (N, 3, S, S) RGB in [-1, 1] as (N, 1, S, S) in [-1, 1]."""
    red, green, blue = frames.split(1, dim=1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


class FaceCodes(nn.Module):
    """Pose code and mouth code of real frames, each component of unit variance on training time.

    Args:
        pose_dim: P, number of pose components; 0 for none.
    """

    pose_mean: Tensor
    pose_basis: Tensor
    mouth_mean: Tensor
    mouth_basis: Tensor
    mouth_from_pose: Tensor
    opening_mean: Tensor
    opening_std: Tensor
    reference_pose: Tensor

    def __init__(self, pose_dim: int) -> None:
        super().__init__()
        self.pose_dim = pose_dim
        pose, mouth = POSE_GRID[0] * POSE_GRID[1], MOUTH_GRID[0] * MOUTH_GRID[1]
        rank = max(pose_dim, 1)  # the mouth code is freed of pose even where G is given none
        self.register_buffer("pose_mean", torch.zeros(pose))
        self.register_buffer("pose_basis", torch.zeros(pose, rank))
        self.register_buffer("mouth_mean", torch.zeros(mouth))
        self.register_buffer("mouth_basis", torch.zeros(mouth, MOUTH_DIM - 1))
        self.register_buffer("mouth_from_pose", torch.zeros(rank, mouth))
        self.register_buffer("opening_mean", torch.zeros(()))
        self.register_buffer("opening_std", torch.ones(()))
        self.register_buffer("reference_pose", torch.zeros(pose_dim))

    @torch.no_grad()
    def fit(self, frames: Tensor) -> None:
        """Fit on (N, 3, S, S) frames of training time in [-1, 1]; N of 500 to 2,000 is plenty."""
        upper = self._upper(frames)
        self.pose_mean.copy_(upper.mean(0))
        self.pose_basis.copy_(_whitened_basis(upper - self.pose_mean, self.pose_basis.shape[1]))
        pose = self._pose(upper)
        mouth = self._mouth(frames)
        self.mouth_mean.copy_(mouth.mean(0))
        mouth = mouth - self.mouth_mean
        self.mouth_from_pose.copy_(pose.T @ mouth / max(len(frames) - 1, 1))  # pose is orthonormal
        free = mouth - pose @ self.mouth_from_pose
        self.mouth_basis.copy_(_whitened_basis(free, MOUTH_DIM - 1))
        opening = _opening(frames)
        self.opening_mean.copy_(opening.mean())
        self.opening_std.copy_(opening.std().clamp_min(1e-6))
        # The median and not a real frame's pose: nearer to most frames, so held best.
        self.reference_pose.copy_(pose.median(0).values[: self.pose_dim])

    @torch.no_grad()
    def pose(self, frames: Tensor) -> Tensor:
        """Pose code (N, P) of (N, 3, S, S) real frames in [-1, 1]."""
        return self._pose(self._upper(frames))[:, : self.pose_dim]

    @torch.no_grad()
    def mouth(self, frames: Tensor) -> Tensor:
        """Mouth code (N, MOUTH_DIM) of (N, 3, S, S) real frames: opening, then components."""
        pose = self._pose(self._upper(frames))
        free = self._mouth(frames) - self.mouth_mean - pose @ self.mouth_from_pose
        opening = (_opening(frames) - self.opening_mean) / self.opening_std
        return torch.cat([opening.unsqueeze(1), free @ self.mouth_basis], 1)

    def _pose(self, upper: Tensor) -> Tensor:
        return (upper - self.pose_mean) @ self.pose_basis

    def _upper(self, frames: Tensor) -> Tensor:
        region = luma(frames)[(..., *UPPER.slices(frames.shape[-1]))]
        return F.adaptive_avg_pool2d(region, POSE_GRID).flatten(1)

    def _mouth(self, frames: Tensor) -> Tensor:
        region = luma(frames)[(..., *MOUTH.slices(frames.shape[-1]))]
        return F.adaptive_avg_pool2d(region, MOUTH_GRID).flatten(1)


def _opening(frames: Tensor) -> Tensor:
    """Deviation of luma inside the mouth, (N,): an open mouth is dark, with teeth in it."""
    return luma(frames)[(..., *MOUTH.slices(frames.shape[-1]))].flatten(1).std(1)


def _whitened_basis(centred: Tensor, rank: int) -> Tensor:
    """(pixels, rank) basis that gives (N, pixels) data scores of unit variance."""
    _, singular, rows = torch.linalg.svd(centred, full_matrices=False)
    basis = torch.zeros(centred.shape[1], rank, dtype=centred.dtype)
    found = min(rank, int((singular > 1e-5 * singular[0].clamp_min(1e-12)).sum()))
    deviations = singular[:found] / max(len(centred) - 1, 1) ** 0.5
    # The sign of a singular vector is arbitrary: fix it, so that codes do not depend on LAPACK.
    chosen = rows[:found]
    signs = torch.sign(chosen.gather(1, chosen.abs().argmax(1, keepdim=True)))
    basis[:, :found] = (chosen * signs / deviations.unsqueeze(1)).T
    return basis
