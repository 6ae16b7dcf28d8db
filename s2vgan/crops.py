"""Crops: cuts of a video, and what is cut out of each frame once all its boxes are known."""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from s2vgan.faces import SAME_FACE, iou
from s2vgan.spec import CropMode

THUMBNAIL: Final = 16  # side of the tiny pictures that tell a cut
CUT_FRAMES: Final = 5  # a scene that is back after fewer pictures was a flash, not a cut
CUT_STEP: Final = 1.5  # grey levels by which a cut changes the tiny picture, at least,
CUT_RATIO: Final = 4.0  # on top of so many times what motion changed in the frames before
CUT_HISTORY: Final = 10

BRIDGE: Final = 15  # frames without a face after which a face is a new one
OUTLIERS: Final = 3  # boxes in another place that are no jump if the face is back after them
ZOOM: Final = 1.3  # largest face of a shot over its smallest, smoothed; beyond, a new shot starts
CROP_SIDE: Final = 1.0  # of a tracked crop, in box sides
CROP_DOWN: Final = 0.06  # how much lower than the box it lies, for the chin of an open mouth
TRIM: Final = 0.1  # share of a shot's box sizes left out at either end
# Measured on GRID: SSIM of crops to their mean face is .73 for any Gaussian from 2 to 6, falls to
# .71 at 20 and .69 for a centre that stands still, since heads move; 4 keeps twice as much as 6 of
# a nod at 1 Hz, and steps by .04 px a frame at 64 px. One size for a whole block: .72.
MEDIAN: Final = 9  # frames of the median that removes outliers of the centre
SMOOTH: Final = 4.0  # frames, standard deviation of the Gaussian that smooths the centre


@dataclass(frozen=True)
class CropPlan:
    """What is cut out of each frame.

    Attributes:
        boxes: (n, 4) int16 crop boxes x, y, w, h inside the picture; zeros without a face.
        shots: (n,) int32, rises by one where another face starts, or the face jumps or has come
            much nearer or gone farther; -1 without a face.
        jumps: boxes in another place than the frame's before, of the same scene.
    """

    boxes: np.ndarray
    shots: np.ndarray
    jumps: int


def thumbnail(luma: np.ndarray) -> np.ndarray:
    """A picture's luma as (THUMBNAIL**2,) uint8, for :func:`find_cuts`."""
    # In two steps, of which the first only samples: an average of all pixels takes 4 times as long.
    small = cv2.resize(luma, (8 * THUMBNAIL, 8 * THUMBNAIL), interpolation=cv2.INTER_LINEAR)
    tiny = cv2.resize(small, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return tiny.reshape(-1)


def find_cuts(thumbnails: np.ndarray) -> np.ndarray:
    """Where a new shot starts: (n,) bool from (n, THUMBNAIL**2) uint8, one row a picture.

    A cut changes the picture far more than the frames before did, and for good: a flash does not.
    """
    count = len(thumbnails)
    step = np.full(count, np.inf, np.float32)  # least change across each frame's start
    step[:1] = 0
    usual = np.zeros(count, np.float32)
    for before in range(1, CUT_FRAMES + 1):
        for after in range(CUT_FRAMES):
            apart = before + after
            if apart >= count:
                continue
            change = cv2.absdiff(thumbnails[apart:], thumbnails[:-apart]).mean(axis=1)
            if apart == 1:
                usual[1:] = _median_before(change)
            rows = slice(before, count - after)
            step[rows] = np.minimum(step[rows], change)
    return step > CUT_STEP + CUT_RATIO * usual


def _median_before(values: np.ndarray) -> np.ndarray:
    """Median of the CUT_HISTORY values before each; the first ones take those after them."""
    padded = np.concatenate([values[:CUT_HISTORY], values[:-1]])
    padded = np.pad(padded, (max(0, CUT_HISTORY - len(values)), 0), mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, CUT_HISTORY), axis=1)


def plan_crops(
    boxes: np.ndarray,
    found: np.ndarray,
    cuts: np.ndarray,
    mode: CropMode,
    width: int,
    height: int,
) -> CropPlan:
    """Decide the crop of every frame from the face boxes of a video, or a stretch of it.

    A tracked crop lies inside the square of 1.6 sides around its frame's box (what is kept of a
    picture), unless the face jumps or that box is an outlier.

    Args:
        boxes: (n, 4) int face boxes, one a frame of the grid.
        found: (n,) bool, where there is one.
        cuts: (n,) bool, where a new shot starts.
        mode: ``tracked``: a square of one size per shot, its centre smoothed over time (raw Haar
            boxes jitter by 1.5-10 px, more than the face moves). ``paper``: the box itself.
        width: of the picture in pixels.
        height: of the picture in pixels.
    """
    jumps = _jumps(boxes, found, cuts)
    crops = np.zeros_like(boxes, dtype=np.int16)
    if mode == "paper":
        crops[found] = boxes[found]
        return CropPlan(crops, _shots(boxes, found, cuts, 0), jumps)
    shots = _shots(boxes, found, cuts, OUTLIERS)
    shots = _split_zooms(boxes, shots)
    for shot in range(int(shots.max(initial=-1)) + 1):
        rows = np.flatnonzero(shots == shot)
        faces = boxes[rows].astype(float)
        side = min(round(_trimmed_mean(faces[:, 2]) * CROP_SIDE), width, height)
        centres = faces[:, :2] + faces[:, 2:] / 2 + (0, CROP_DOWN * side / CROP_SIDE)
        everywhere = np.arange(rows[0], rows[-1] + 1)  # short gaps are bridged by a line
        corners = [
            _smooth(np.interp(everywhere, rows, centres[:, axis]))[rows - rows[0]] - side / 2
            for axis in (0, 1)
        ]
        crops[rows, 0] = np.clip(np.rint(corners[0]), 0, width - side)
        crops[rows, 1] = np.clip(np.rint(corners[1]), 0, height - side)
        crops[rows, 2:] = side
    return CropPlan(crops, shots, jumps)


def _shots(boxes: np.ndarray, found: np.ndarray, cuts: np.ndarray, outliers: int) -> np.ndarray:
    """Shot of each frame; up to so many boxes in another place are no jump."""
    shots = np.full(len(boxes), -1, np.int32)
    scenes = np.cumsum(cuts)
    faces = np.flatnonzero(found)
    shot, last = -1, -1
    for number, row in enumerate(faces):
        # One box in another place is an outlier; a face that has moved stays there.
        ahead = faces[number : number + outliers + 1]
        same = last >= 0 and row - last <= BRIDGE and scenes[row] == scenes[last]
        if not same or all(iou(boxes[other], boxes[last]) < SAME_FACE for other in ahead):
            shot += 1
            last = int(row)
        elif iou(boxes[row], boxes[last]) >= SAME_FACE:
            last = int(row)
        shots[row] = shot
    return shots


def _split_zooms(boxes: np.ndarray, shots: np.ndarray) -> np.ndarray:
    """Shots within which one size of crop suits all boxes."""
    split = shots.copy()
    new = -1
    for shot in range(int(shots.max(initial=-1)) + 1):
        rows = np.flatnonzero(shots == shot)
        new += 1
        low, high = np.inf, 0.0
        for row, side in zip(rows, _smooth(boxes[rows, 2].astype(float)), strict=True):
            low, high = min(low, side), max(high, side)
            if high > ZOOM * low:
                new += 1
                low = high = side
            split[row] = new
    return split


def _jumps(boxes: np.ndarray, found: np.ndarray, cuts: np.ndarray) -> int:
    rows = np.flatnonzero(found[:-1] & found[1:] & ~cuts[1:]) + 1
    return sum(iou(boxes[row], boxes[row - 1]) < SAME_FACE for row in rows)


def _trimmed_mean(values: np.ndarray) -> float:
    """Mean without outliers. Haar's sizes lie on a ladder, between whose rungs a median flips."""
    cut = int(TRIM * len(values))
    return float(np.sort(values)[cut : len(values) - cut].mean())


def _smooth(values: np.ndarray) -> np.ndarray:
    """A running median against outliers, then a Gaussian; ends are continued as they are."""
    half = MEDIAN // 2
    padded = np.pad(values, half, mode="edge")
    medians = np.median(np.lib.stride_tricks.sliding_window_view(padded, MEDIAN), axis=1)
    reach = int(3 * SMOOTH)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / SMOOTH) ** 2)
    padded = np.pad(medians, reach, mode="edge")
    return np.convolve(padded, kernel / kernel.sum(), mode="valid")
