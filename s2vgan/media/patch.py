"""Patches: a piece of a picture's planes, from which crops are cut later, in RGB."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np

# A patch reaches this many sides of the box around the box's centre.
REACH: Final = 1.6
# Red and blue weights of luma (Kr, Kb) by FFmpeg's number of the colour matrix.
_MATRICES: Final = {
    1: (0.2126, 0.0722),  # BT.709
    4: (0.30, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.601 (625 lines)
    6: (0.299, 0.114),  # BT.601 (525 lines)
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020
    10: (0.2627, 0.0593),
}
_HD_LINES: Final = 576  # players take untagged pictures above this height for BT.709
_FULL_RANGE: Final = 2


@dataclass(frozen=True)
class Colours:
    """How a frame's planes become RGB.

    Attributes:
        kr: weight of red in luma.
        kb: weight of blue in luma.
        full: 0 to 255 is used, not 16 to 235 (240).
    """

    kr: float
    kb: float
    full: bool

    @classmethod
    def of(cls, frame: Any) -> "Colours":
        """Those that a PyAV frame is tagged with, or players' guess where it is not."""
        unknown = 1 if max(frame.width, frame.height) > 1024 or frame.height > _HD_LINES else 6
        kr, kb = _MATRICES.get(frame.colorspace, _MATRICES[unknown])
        return cls(kr, kb, frame.format.name.startswith("yuvj") or frame.color_range == _FULL_RANGE)

    def to_rgb(self, luma: np.ndarray, blue: np.ndarray, red: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB of three (H, W) uint8 planes."""
        kr, kb = self.kr, self.kb
        y = luma.astype(np.float32)
        y = y if self.full else (y - 16) * (255 / 219)
        scale = 1.0 if self.full else 255 / 224
        cb = (blue.astype(np.float32) - 128) * scale
        cr = (red.astype(np.float32) - 128) * scale
        r = y + 2 * (1 - kr) * cr
        b = y + 2 * (1 - kb) * cb
        g = (y - kr * r - kb * b) / (1 - kr - kb)
        return np.clip(np.rint(np.stack([r, g, b], axis=-1)), 0, 255).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class Patch:
    """A rectangle of a picture: enough of its planes to cut crops from.

    Attributes:
        left: of the rectangle in the picture, in pixels, on a chroma sample.
        top: the same from above.
        width: of the rectangle in the picture, in pixels.
        height: the same downwards.
        planes: Y, U, V, (h, w) uint8 each; smaller than the rectangle where it was shrunk.
        divisors: rows and columns of the picture for one of chroma.
        shrunk: whether the planes hold fewer pixels than the rectangle.
        colours: how the planes become RGB.
    """

    left: int
    top: int
    width: int
    height: int
    planes: tuple[np.ndarray, np.ndarray, np.ndarray]
    divisors: tuple[int, int]
    shrunk: bool
    colours: Colours

    @property
    def nbytes(self) -> int:
        """Memory of the planes, in bytes."""
        return sum(plane.nbytes for plane in self.planes)

    def copied(self, scale: float) -> "Patch":
        """One that no longer needs the picture, its planes shrunk to ``scale`` (at most 1)."""
        y, u, v = (_shrink(plane, scale) for plane in self.planes)
        return dataclasses.replace(self, planes=(y, u, v), shrunk=scale < 1)

    def covers(self, box: np.ndarray) -> bool:
        """Whether a box x, y, w, h of the picture lies inside."""
        x, y, width, height = (int(value) for value in box)
        return (
            self.left <= x
            and self.top <= y
            and x + width <= self.left + self.width
            and y + height <= self.top + self.height
        )

    def crop(self, box: np.ndarray, size: int) -> np.ndarray:
        """A box x, y, w, h of the picture, inside the patch, as (size, size, 3) uint8 RGB.

        The same as the picture's own crop where the patch is not shrunk.
        """
        x, y, width, height = (int(value) for value in box)
        cut = self._cut_shrunk if self.shrunk else self._cut
        return self.colours.to_rgb(*cut(x, y, width, height, size))

    def _cut(self, x: int, y: int, width: int, height: int, size: int) -> list[np.ndarray]:
        down, across = self.divisors
        x, y = x - self.left, y - self.top
        parts = [_resize(self.planes[0][y : y + height, x : x + width], size)]
        left, top = x // across, y // down
        right, bottom = -(-(x + width) // across), -(-(y + height) // down)
        for plane in self.planes[1:]:
            region = plane[top:bottom, left:right]
            if (down, across) != (1, 1):
                shape = (region.shape[1] * across, region.shape[0] * down)
                region = cv2.resize(region, shape, interpolation=cv2.INTER_LINEAR)
            row, column = y - top * down, x - left * across
            parts.append(_resize(region[row : row + height, column : column + width], size))
        return parts

    def _cut_shrunk(self, x: int, y: int, width: int, height: int, size: int) -> list[np.ndarray]:
        """By sub-pixel interpolation, since a box's edges lie between the pixels of the planes."""
        parts = []
        for plane in self.planes:
            # Pixels of the plane for one of the picture.
            across, down = plane.shape[1] / self.width, plane.shape[0] / self.height
            # Where there are too many for interpolation, several points are averaged.
            points = max(1, round(max(width * across, height * down) / size))
            step_x = width * across / (points * size)
            step_y = height * down / (points * size)
            to_plane = np.array(
                [
                    [step_x, 0, (x - self.left) * across + step_x / 2 - 0.5],
                    [0, step_y, (y - self.top) * down + step_y / 2 - 0.5],
                ]
            )
            part = cv2.warpAffine(
                plane,
                to_plane,
                (points * size, points * size),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            )
            parts.append(part if points == 1 else _resize(part, size))
        return parts


def _shrink(plane: np.ndarray, scale: float) -> np.ndarray:
    """A copy, halved by area while it can be, and linear for what remains, less than half.

    All by area would cost five times as much; and the result changes without a step as the scale
    does, since half the size is the same in both ways.
    """
    if scale == 1:
        return plane.copy()
    height, width = plane.shape
    for _ in range(halvings(scale)):
        shape = (-(-plane.shape[1] // 2), -(-plane.shape[0] // 2))
        plane = cv2.resize(plane, shape, interpolation=cv2.INTER_AREA)
    shape = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(plane, shape, interpolation=cv2.INTER_LINEAR)


def halvings(scale: float) -> int:
    """How often a side can be halved before it is below ``scale`` of its length."""
    return math.floor(-math.log2(scale))


def _resize(plane: np.ndarray, size: int) -> np.ndarray:
    way = cv2.INTER_AREA if min(plane.shape) >= size else cv2.INTER_LINEAR
    return cv2.resize(plane, (size, size), interpolation=way)
