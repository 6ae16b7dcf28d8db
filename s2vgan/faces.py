"""Faces: Haar detection on every frame, made fast by tracking.

The detector is OpenCV's frontal face cascade (Viola and Jones 2001), as in the method. A naive
search of every full frame takes 27 ms at 360x288 and 120 ms at 1280x720; the same decision costs
.6 ms at any size, because the time goes into windows near a face, and a hundred of them do:

- a face is followed from frame to frame by windows around its last box, of sizes near its own.
  Each frame looks at every other size and place, the next frame at those left out, so that over
  a few frames the box is as exact as if all were looked at;
- a miss is searched in full on a small picture, and each candidate is checked near native
  resolution, as densely as a naive search would. A followed face must pass the same check at
  intervals, so that nothing is followed for long that a naive search would not find;
- a picture that is still the one in which no face was found is not searched again.
"""

from pathlib import Path
from typing import Final

import cv2
import numpy as np
from cv2.data import haarcascades

from s2vgan.spec import FaceChoice

SEARCH_SIDE: Final = 180  # short side of the picture that the full search sees; 140 misses faces
SEARCH_STEP: Final = 1.2  # between its sizes
SEARCH_NEIGHBOURS: Final = 2  # few: false candidates fall at the check
CHECK_EVERY: Final = 30  # frames between the checks of a face that is followed
STILL: Final = 6  # grey levels that the small picture may change and still be the same
SAME_FACE: Final = 0.3  # IoU above which two boxes are of one face

# A naive search looks at sizes of the cascade's window of 24 px times powers of 1.1. So do we:
# sizes between these give boxes that are up to 3 % off (mean IoU .90 instead of .94).
WINDOW: Final = 24
STEP: Final = 1.1

# Following. Measured on 7,500 frames of GRID: .6 ms a frame, mean IoU with naive boxes .937, SSIM
# of tracked crops to their mean face .73 (.74 from naive boxes). All five sizes in each frame:
# .9 ms, IoU .942, SSIM .73. The three middle ones: .65 ms, IoU .934, SSIM .69, since boxes stick to
# their size. OpenCV's grouping in one shrunk region: IoU .93, SSIM .69. Ranges 8 and 12: IoU .93.
SIZES: Final = ((-2, 0, 2), (-1, 1))  # looked at in turns, in steps from the last size
PLACES: Final = ((0, 0), (1, 1), (1, 0), (0, 1))  # likewise; OpenCV looks at every other place
RANGE: Final = 10  # places across, in steps of a 24th of the face
HITS: Final = 2  # windows that must agree that a face is still there

# Checking: as a naive search, but in a region, and shrunk to a face of 68 px at most.
CHECK_RUNG: Final = 11  # STEP**11 windows of 24 px: above 2, OpenCV looks at every place
CHECK_SPAN: Final = 3  # sizes on either side
CHECK_REACH: Final = 1.5  # side of the region in box sides
CHECK_NEIGHBOURS: Final = 5


class FaceTracker:
    """Follows one face through the frames of a video, and stays with it until it is lost.

    Args:
        choice: which face it starts to follow: the ``largest``, or the most ``central`` one.

    Attributes:
        false_starts: candidates of the full searches that were no face at the check.
    """

    def __init__(self, choice: FaceChoice = "largest") -> None:
        # One thread: videos run in parallel, and a worker's threads would fight for the cores.
        cv2.setNumThreads(1)
        path = Path(haarcascades) / "haarcascade_frontalface_default.xml"
        self._cascade = cv2.CascadeClassifier(str(path))
        self._choice = choice
        self._box: np.ndarray | None = None
        self._turn = 0  # frames since the face was found
        self._faceless: np.ndarray | None = None  # small picture in which no face was found
        self.false_starts = 0

    def update(self, luma: np.ndarray) -> np.ndarray | None:
        """The face in the next frame.

        Args:
            luma: (H, W) uint8, contiguous rows.

        Returns:
            (4,) int64 box x, y, w, h in pixels, or None.
        """
        followed = None if self._box is None else self._follow(luma, self._box)
        self._turn += 1
        if followed is not None and self._turn % CHECK_EVERY == 0:
            followed = self._check(luma, followed)
        if followed is None:
            self._turn = 0
            followed = self._search(luma)
        self._box = followed
        return followed

    def _search(self, luma: np.ndarray) -> np.ndarray | None:
        """The face to follow after a full search: the one before if it is there, else by choice."""
        height, width = luma.shape
        scale = min(1.0, SEARCH_SIDE / min(height, width))
        shape = (round(width * scale), round(height * scale))
        small = cv2.resize(luma, shape, interpolation=cv2.INTER_LINEAR)
        # Compared with the picture that was searched, not with the last one: a face that fades in
        # slowly is no standstill.
        if self._faceless is not None and cv2.norm(small, self._faceless, cv2.NORM_INF) <= STILL:
            return None
        found: list[np.ndarray] = []
        for candidate in self._cascade.detectMultiScale(small, SEARCH_STEP, SEARCH_NEIGHBOURS):
            box = self._check(luma, np.asarray(candidate) / scale)
            if box is None:
                self.false_starts += 1
            else:
                found.append(box)
        self._faceless = None if found else small
        if not found:
            return None
        same = [box for box in found if self._box is not None and iou(box, self._box) >= SAME_FACE]
        return min(same or found, key=lambda box: self._rank(box, width, height))

    def _rank(self, box: np.ndarray, width: int, height: int) -> tuple[int, int, int]:
        """Sorts faces by the choice, the first one first; places decide between equals."""
        x, y, side = (int(value) for value in box[:3])
        if self._choice == "largest":
            return -side, x, y
        return (2 * x + side - width) ** 2 + (2 * y + side - height) ** 2, x, y

    def _follow(self, luma: np.ndarray, box: np.ndarray) -> np.ndarray | None:
        """The face of the frame before: the mean of the windows around its box that are a face."""
        height, width = luma.shape
        x, y, side = box[0] + box[2] / 2, box[1] + box[3] / 2, float(box[2])
        across, down = PLACES[self._turn % len(PLACES)]
        hits: list[tuple[float, float, float]] = []
        for step in SIZES[self._turn % len(SIZES)]:
            scale = STEP ** (_rung(side) + step)  # at which a window has this size
            extent = (WINDOW + RANGE) * scale
            left = round(x - extent / 2 - (across - 0.5) * scale)
            top = round(y - extent / 2 - (down - 0.5) * scale)
            part = _clip(left, top, left + int(extent), top + int(extent), width, height)
            for a, b, size in self._detect(luma, part, scale, (WINDOW, WINDOW), 0):
                hits.append((a + size / 2, b + size / 2, size))
        if len(hits) < HITS:
            return None
        x, y, side = np.mean(hits, axis=0)
        found = _square(x - side / 2, y - side / 2, side, width, height)
        return found if iou(found, box) >= SAME_FACE else None

    def _check(self, luma: np.ndarray, box: np.ndarray) -> np.ndarray | None:
        """The face at a box, if a naive search would find one there."""
        height, width = luma.shape
        x, y, side = float(box[0]), float(box[1]), float(box[2])
        margin = (CHECK_REACH - 1) / 2 * side
        part = _clip(x - margin, y - margin, x + side + margin, y + side + margin, width, height)
        rung = min(_rung(side), CHECK_RUNG)
        sizes = (
            int(WINDOW * STEP ** (rung - CHECK_SPAN)),
            int(WINDOW * STEP ** (rung + CHECK_SPAN)) + 1,
        )
        found = self._detect(luma, part, STEP ** (_rung(side) - rung), sizes, CHECK_NEIGHBOURS)
        boxes = [_square(a, b, size, width, height) for a, b, size in found]
        best = max(boxes, key=lambda other: iou(other, box), default=None)
        return best if best is not None and iou(best, box) >= SAME_FACE else None

    def _detect(
        self,
        luma: np.ndarray,
        part: tuple[int, int, int, int],
        scale: float,
        sizes: tuple[int, int],
        neighbours: int,
    ) -> list[tuple[float, float, float]]:
        """Squares (x, y, side) in a part of the picture, which is shrunk by ``scale`` before.

        Sampled without a filter, as OpenCV's own pyramid does it: an average over areas costs .2 ms
        at 720p and makes the boxes no better.
        """
        left, top, right, bottom = part
        shape = round((right - left) / scale), round((bottom - top) / scale)
        if min(shape) < WINDOW:
            return []
        region = cv2.resize(luma[top:bottom, left:right], shape, interpolation=cv2.INTER_LINEAR)
        low, high = sizes
        found = self._cascade.detectMultiScale(
            region, STEP, neighbours, minSize=(low, low), maxSize=(high, high)
        )
        across, down = (right - left) / shape[0], (bottom - top) / shape[1]
        return [(left + x * across, top + y * down, w * scale) for x, y, w, _ in found]


def _rung(side: float) -> int:
    """The size of a naive search, counted from its smallest, that is next to a box's side."""
    return max(0, round(np.log(side / WINDOW) / np.log(STEP)))


def _clip(
    left: float, top: float, right: float, bottom: float, width: int, height: int
) -> tuple[int, int, int, int]:
    return max(0, int(left)), max(0, int(top)), min(width, int(right)), min(height, int(bottom))


def _square(x: float, y: float, side: float, width: int, height: int) -> np.ndarray:
    """A box in whole pixels, which rounding does not push out of the picture."""
    size = round(min(side, width, height))
    x, y = np.clip(np.rint((x, y)), 0, (width - size, height - size))
    return np.array((x, y, size, size), np.int64)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes x, y, w, h: 0 apart, 1 equal."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    common = float(width * height)
    return common / (float(a[2] * a[3]) + float(b[2] * b[3]) - common)
