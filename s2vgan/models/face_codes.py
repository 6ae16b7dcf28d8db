"""Fixed codes of a face, fitted once on training time: its pose and its mouth.

Head pose is not in the speech, so a pixel loss alone drives a generator to a still mean face. The
pose code hands the pose over as a condition; the mouth code is what the audio encoder learns to
predict. Both are principal components of luma, and are stored with the model.

Where a model has an identity, both are of the difference to the person's reference frame: what
tells people apart is in the reference frame, and must not be in the pose.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from s2vgan.regions import MOUTH, UPPER, Region

MOUTH_DIM = 8  # the opening and 7 components
POSE_GRID = (16, 32)  # luma of the upper face is averaged to this many rows and columns
MOUTH_GRID = (16, 24)
REFERENCE_POSE = 8  # components of the pose, for the choice of a reference frame


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
    def fit(self, frames: Tensor, reference: Tensor | None = None) -> None:
        """Fit on frames of training time; 500 to 2,000 are plenty.

        Args:
            frames: (N, 3, S, S) in [-1, 1].
            reference: (N, 3, S, S) in [-1, 1], of who is in each; None where all are of one.
        """
        upper = self._upper(frames, reference)
        if reference is None:  # else the reference frame itself is the origin
            self.pose_mean.copy_(upper.mean(0))
        self.pose_basis.copy_(_whitened_basis(upper - self.pose_mean, self.pose_basis.shape[1]))
        pose = self._pose(upper)
        mouth = self._mouth(frames, reference)
        self.mouth_mean.copy_(mouth.mean(0))
        mouth = mouth - self.mouth_mean
        self.mouth_from_pose.copy_(pose.T @ mouth / max(len(frames) - 1, 1))  # pose is orthonormal
        free = mouth - pose @ self.mouth_from_pose
        self.mouth_basis.copy_(_whitened_basis(free, MOUTH_DIM - 1))
        opening = _opening(frames, reference)
        self.opening_mean.copy_(opening.mean())
        self.opening_std.copy_(opening.std().clamp_min(1e-6))
        if reference is None:
            # The median and not a real frame's pose: nearer to most frames, so held best.
            self.reference_pose.copy_(pose.median(0).values[: self.pose_dim])

    @torch.no_grad()
    def pose(self, frames: Tensor, reference: Tensor | None = None) -> Tensor:
        """Pose codes of real frames.

        Args:
            frames: (N, 3, S, S) in [-1, 1].
            reference: (R, 3, S, S) in [-1, 1] for a model with an identity, each of the person in
                the next N / R frames; its own code is 0.

        Returns:
            (N, P).
        """
        return self._pose(self._upper(frames, reference))[:, : self.pose_dim]

    @torch.no_grad()
    def mouth(self, frames: Tensor, reference: Tensor | None = None) -> Tensor:
        """Mouth codes (N, MOUTH_DIM) of frames as in :meth:`pose`: opening, then components."""
        pose = self._pose(self._upper(frames, reference))
        free = self._mouth(frames, reference) - self.mouth_mean - pose @ self.mouth_from_pose
        opening = (_opening(frames, reference) - self.opening_mean) / self.opening_std
        return torch.cat([opening.unsqueeze(1), free @ self.mouth_basis], 1)

    def _pose(self, upper: Tensor) -> Tensor:
        return (upper - self.pose_mean) @ self.pose_basis

    def _upper(self, frames: Tensor, reference: Tensor | None) -> Tensor:
        return _relative(partial(_pixels, region=UPPER, grid=POSE_GRID), frames, reference)

    def _mouth(self, frames: Tensor, reference: Tensor | None) -> Tensor:
        return _relative(partial(_pixels, region=MOUTH, grid=MOUTH_GRID), frames, reference)


def find_reference(frames: Tensor) -> int:
    """The number of the frame that stands for a person, of (N, 3, S, S) in [-1, 1] of one video.

    It is the frame nearest to the middle of all poses and mouths.
    """
    codes = FaceCodes(REFERENCE_POSE)
    codes.fit(frames)
    return _middle(torch.cat([codes.pose(frames), codes.mouth(frames)], 1))


def _middle(codes: Tensor) -> int:
    """The number of the (N, dim) code nearest to the median of all."""
    return int((codes - codes.median(0).values).pow(2).sum(1).argmin())


def _pixels(frames: Tensor, region: Region, grid: tuple[int, int]) -> Tensor:
    """Luma (N, rows * columns) of a region, averaged to a grid."""
    part = luma(frames)[(..., *region.slices(frames.shape[-1]))]
    return F.adaptive_avg_pool2d(part, grid).flatten(1)


def _relative(
    measure: Callable[[Tensor], Tensor], frames: Tensor, reference: Tensor | None
) -> Tensor:
    """What ``measure`` says of N frames, less what it says of the reference frame of each."""
    found = measure(frames)
    if reference is None:
        return found
    return found - measure(reference).repeat_interleave(len(frames) // len(reference), 0)


def _opening(frames: Tensor, reference: Tensor | None) -> Tensor:
    """Deviation of luma inside the mouth, (N,): an open mouth is dark, with teeth in it."""

    def deviation(frames: Tensor) -> Tensor:
        return luma(frames)[(..., *MOUTH.slices(frames.shape[-1]))].flatten(1).std(1)

    return _relative(deviation, frames, reference)


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
