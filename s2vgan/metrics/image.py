"""Measures of single frames: MSE, PSNR, SSIM and sharpness, on torch tensors.

Frames are (N, 3, H, W) float on [-1, 1] (:func:`to_float` makes them), so the data range is 2.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from s2vgan.regions import Region

DATA_RANGE = 2.0  # of frames on [-1, 1]
PSNR_CAP = 100.0  # dB, of identical frames

ALL = slice(None)

_WINDOW = 11
_SIGMA = 1.5
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def to_float(frames: np.ndarray) -> Tensor:
    """(N, H, W, 3) uint8 RGB frames as (N, 3, H, W) float32 on [-1, 1]."""
    pixels = torch.from_numpy(np.ascontiguousarray(frames.transpose(0, 3, 1, 2)))
    return pixels.float().div_(127.5).sub_(1)


def luma(frames: np.ndarray) -> np.ndarray:
    """BT.601 luma, (..., H, W) float32 on [0, 1], of (..., H, W, 3) uint8 RGB frames."""
    return frames.astype(np.float32) @ np.array(_LUMA, np.float32) / 255


def region_luma(frames: np.ndarray, region: Region, side: int) -> np.ndarray:
    """Luma of a region of (N, S, S, 3) uint8 frames, (N, side * side) float64 on [0, 1].

    It is shrunk, or enlarged, so that crops of any size look alike.
    """
    rows, columns = region.slices(frames.shape[1])
    light = torch.from_numpy(luma(frames[:, rows, columns]))[:, None]
    small = F.interpolate(light, size=(side, side), mode="bilinear", antialias=True)
    return small.flatten(1).double().numpy()


@lru_cache(maxsize=16)
def _blur(size: int, device: torch.device) -> Tensor:
    """(size - 10, size) banded matrix whose rows are the Gaussian window, one pixel further each.

    A blur is two products with it: at 64 and 128 pixels half the time of depthwise convolutions.
    """
    offsets = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * _SIGMA**2))
    with torch.inference_mode(False):  # it is kept, and training uses it too
        matrix = torch.zeros(size - _WINDOW + 1, size)
        for row in range(len(matrix)):
            matrix[row, row : row + _WINDOW] = (weights / weights.sum()).float()
        return matrix.to(device)


def _blurred(x: Tensor) -> Tensor:
    """The Gaussian mean of each whole window of (..., H, W), (..., H - 10, W - 10)."""
    return _blur(x.shape[-2], x.device) @ (x @ _blur(x.shape[-1], x.device).T)


def _ssim_valid(a: Tensor, b: Tensor) -> Tensor:
    """SSIM at every pixel whose whole window lies inside; 10 rows and columns fewer.

    It compares intensities, which start at 0: with means around 0 its term of luminance would
    punish grey, and a mean face would lose 0.1.
    """
    if min(a.shape[-2:]) < _WINDOW:
        raise ValueError(f"SSIM needs at least {_WINDOW} pixels a side, got {tuple(a.shape)}")
    # Variances are small differences of large moments: never in half precision.
    with torch.autocast(a.device.type, enabled=False):
        a, b = a.float() + 1, b.float() + 1
        # SSIM knows the variances only by their sum. The mean of b is apart: where b is real, no
        # gradient goes through it.
        moments = torch.stack([a, a * b, a * a + b * b])
        mean_a, product, squares = _blurred(moments).unbind()
        mean_b = _blurred(b)
        c1, c2 = (0.01 * DATA_RANGE) ** 2, (0.03 * DATA_RANGE) ** 2
        means, product_of_means = mean_a * mean_a + mean_b * mean_b, mean_a * mean_b
        structure = (2 * (product - product_of_means) + c2) / (squares - means + c2)
        return structure * (2 * product_of_means + c1) / (means + c1)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity of each pair of frames (Wang et al. 2004), differentiable.

    Of intensities (the frames plus 1, range 2; the same as on [0, 1] with range 1), with a Gaussian
    window of 11 and sigma 1.5, population covariance, K1 = .01, K2 = .03, averaged over the pixels
    whose whole window lies inside the frame and over channels.

    Args:
        a: (N, C, H, W) float on [-1, 1].
        b: like a.

    Returns:
        (N,) in [-1, 1]; 1 for equal frames.
    """
    return _ssim_valid(a, b).mean(dim=(1, 2, 3))


def ssim_map(a: Tensor, b: Tensor) -> Tensor:
    """SSIM at every pixel, (N, C, H, W): frames are reflected at their borders first.

    For losses that weigh a region. Its pixels that lie at least 5 from the border are the ones
    that :func:`ssim` averages.
    """
    margins = [_WINDOW // 2] * 4
    a, b = F.pad(a, margins, mode="reflect"), F.pad(b, margins, mode="reflect")
    return _ssim_valid(a, b)


def mse(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared error of each pair of (N, C, H, W) frames, (N,); in [0, 4] on [-1, 1]."""
    return (a - b).square().mean(dim=(1, 2, 3))


def psnr(a: Tensor, b: Tensor, data_range: float = DATA_RANGE) -> Tensor:
    """Peak signal-to-noise ratio of each pair of frames, (N,) dB; equal frames count as 100 dB."""
    return (10 * torch.log10(data_range**2 / mse(a, b))).clamp(max=PSNR_CAP)


def gradient_energy(frames: np.ndarray) -> np.ndarray:
    """Mean squared difference of neighbouring luma pixels of (N, H, W, 3) uint8 frames, (N,)."""
    light = luma(frames)
    down, right = np.diff(light, axis=1), np.diff(light, axis=2)
    return np.square(down).mean(axis=(1, 2)) + np.square(right).mean(axis=(1, 2))


def change(frames: np.ndarray, rows: slice = ALL, columns: slice = ALL) -> np.ndarray:
    """Mean absolute luma change of each frame from the one before, (N,) on [0, 1]; first is 0.

    Args:
        frames: (N, H, W, 3) uint8, consecutive.
        rows: of the region that is looked at.
        columns: of the same region.
    """
    steps = np.abs(np.diff(luma(frames[:, rows, columns]), axis=0)).mean(axis=(1, 2))
    return np.concatenate([np.zeros(1, np.float32), steps])
