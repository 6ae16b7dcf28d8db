"""Faces: Haar detection on every frame made fast by tracking, and the boxes that are cut out.

The detector is OpenCV's frontal face cascade (Viola and Jones 2001), as in the method. A naive
search of every full frame takes 60-200 ms; the same decision costs about 4 ms:

- the full search runs on a downscaled picture, and each candidate is verified at native
  resolution, where a face that is none has no neighbours;
- between full searches only the surroundings of the last box are searched, near its size;
- a miss, and every 30th frame, is searched in full.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from cv2.data import haarcascades

from s2vgan.groups import CropMode

SEARCH_SIDE: Final = 180  # short side of the picture that the full search sees; 140 misses faces
SEARCH_EVERY: Final = 30  # frames between full searches
ROI: Final = 1.5  # side of the region that is searched around a box, in box sides
# Sizes searched around a box's. Fewer (0.88 to 1.14) take half the time, but drop a rung of the
# ladder that OpenCV averages over: the box then keeps a size that is 5 % off.
SCALES: Final = (0.75, 1.33)
SAME_FACE: Final = 0.3  # IoU above which two boxes are of one face

THUMBNAIL: Final = 16  # side of the tiny pictures that tell a cut
CUT_FRAMES: Final = 5  # a picture that is back sooner was a flash, not a cut
CUT_STEP: Final = 1.5  # grey levels by which a cut changes the tiny picture, at least,
CUT_RATIO: Final = 4.0  # on top of so many times what motion changed in the frames before
CUT_HISTORY: Final = 10

BRIDGE: Final = 15  # frames without a face after which a face is a new one
OUTLIERS: Final = 3  # boxes in another place that are no jump if the face is back after them
CROP_SIDE: Final = 1.0  # of a tracked crop, in box sides
CROP_DOWN: Final = 0.06  # how much lower than the box it lies, for the chin of an open mouth
TRIM: Final = 0.1  # share of a shot's box sizes left out at either end
MEDIAN: Final = 15  # frames of the median that removes outliers of the centre
SMOOTH: Final = 6.0  # frames, standard deviation of the Gaussian that smooths the centre


class FaceTracker:
    """Follows one face through the frames of a video: the largest where it starts to follow.

    Once it follows a face it stays with it until the face is lost, or until a full search finds
    other faces but not this one.
    """

    def __init__(self) -> None:
        # One thread: videos run in parallel, and a worker's threads would fight for the cores.
        cv2.setNumThreads(1)
        path = Path(haarcascades) / "haarcascade_frontalface_default.xml"
        self._cascade = cv2.CascadeClassifier(str(path))
        self._box: np.ndarray | None = None
        self._since_search = 0

    def update(self, luma: np.ndarray) -> np.ndarray | None:
        """The face in the next frame.

        Args:
            luma: (H, W) uint8, contiguous rows.

        Returns:
            (4,) int64 box x, y, w, h in pixels, or None.
        """
        followed = None if self._box is None else self._near(luma, self._box, 3)
        self._since_search += 1
        if followed is None or self._since_search >= SEARCH_EVERY:
            self._since_search = 0
            followed = self._decide(followed, self._search(luma))
        self._box = followed
        return followed

    def _decide(self, followed: np.ndarray | None, found: list[np.ndarray]) -> np.ndarray | None:
        """What to follow after a full search: the same face if it is there, else the largest."""
        if not found:
            return followed
        before = self._box if followed is None else followed
        same = [box for box in found if before is not None and iou(box, before) >= SAME_FACE]
        if not same:
            return found[0]
        return same[0] if followed is None else followed

    def _search(self, luma: np.ndarray) -> list[np.ndarray]:
        """All faces, the largest first."""
        height, width = luma.shape
        scale = min(1.0, SEARCH_SIDE / min(height, width))
        small = luma
        if scale < 1:
            shape = (round(width * scale), round(height * scale))
            small = cv2.resize(luma, shape, interpolation=cv2.INTER_LINEAR)
        found: list[np.ndarray] = []
        for candidate in self._cascade.detectMultiScale(small, 1.2, 2):
            box = self._near(luma, np.asarray(candidate) / scale, 5)
            if box is not None and all(iou(box, other) < SAME_FACE for other in found):
                found.append(box)
        return sorted(found, key=lambda box: (-int(box[2]), int(box[0]), int(box[1])))

    def _near(self, luma: np.ndarray, box: np.ndarray, neighbours: int) -> np.ndarray | None:
        """The face at native resolution that is nearest to a box, if there is one.

        A face that is new needs more neighbouring detections than one that is followed.
        """
        height, width = luma.shape
        x, y, side = float(box[0]), float(box[1]), float(box[2])
        margin = (ROI - 1) / 2 * side
        left, top = max(0, int(x - margin)), max(0, int(y - margin))
        right, bottom = min(width, int(x + side + margin)), min(height, int(y + side + margin))
        low, high = int(side * SCALES[0]), int(np.ceil(side * SCALES[1]))
        if right - left < low or bottom - top < low:
            return None
        found = self._cascade.detectMultiScale(
            luma[top:bottom, left:right], 1.1, neighbours, minSize=(low, low), maxSize=(high, high)
        )
        if len(found) == 0:
            return None
        boxes = np.asarray(found, np.int64) + (left, top, 0, 0)
        best = max(boxes, key=lambda other: iou(other, box))
        return best if iou(best, box) >= SAME_FACE else None


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes x, y, w, h: 0 apart, 1 equal."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    common = float(width * height)
    return common / (float(a[2] * a[3]) + float(b[2] * b[3]) - common)


@dataclass(frozen=True)
class CropPlan:
    """What is cut out of each frame.

    Attributes:
        boxes: (n, 4) int16 crop boxes x, y, w, h inside the picture; zeros without a face.
        shots: (n,) int32, rises by one where another face starts or the face jumps; -1 without
            a face.
    """

    boxes: np.ndarray
    shots: np.ndarray


def thumbnail(luma: np.ndarray) -> np.ndarray:
    """A frame's luma as (THUMBNAIL**2,) uint8, for :func:`find_cuts`."""
    step = max(1, min(luma.shape) // SEARCH_SIDE)
    small = np.ascontiguousarray(luma[::step, ::step])
    tiny = cv2.resize(small, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return tiny.reshape(-1)


def find_cuts(thumbnails: np.ndarray) -> np.ndarray:
    """Where a new shot starts: (n,) bool from (n, THUMBNAIL**2) uint8, one row a frame.

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
    """Decide the crop of every frame from the face boxes of the whole video.

    Args:
        boxes: (n, 4) int face boxes, one a frame of the grid.
        found: (n,) bool, where there is one.
        cuts: (n,) bool, where a new shot starts.
        mode: ``tracked``: a square of one size per shot, its centre smoothed over time (raw Haar
            boxes jitter by 1.5-10 px, more than the face moves). ``paper``: the box itself.
        width: of the picture in pixels.
        height: of the picture in pixels.
    """
    shots = _shots(boxes, found, cuts)
    crops = np.zeros_like(boxes, dtype=np.int16)
    if mode == "paper":
        crops[found] = boxes[found]
        return CropPlan(crops, shots)
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
    return CropPlan(crops, shots)


def _shots(boxes: np.ndarray, found: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    shots = np.full(len(boxes), -1, np.int32)
    scenes = np.cumsum(cuts)
    faces = np.flatnonzero(found)
    shot, last = -1, -1
    for number, row in enumerate(faces):
        # One box in another place is an outlier; a face that has moved stays there.
        ahead = faces[number : number + OUTLIERS + 1]
        same = last >= 0 and row - last <= BRIDGE and scenes[row] == scenes[last]
        if not same or all(iou(boxes[other], boxes[last]) < SAME_FACE for other in ahead):
            shot += 1
            last = int(row)
        elif iou(boxes[row], boxes[last]) >= SAME_FACE:
            last = int(row)
        shots[row] = shot
    return shots


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
