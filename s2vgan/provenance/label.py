"""The visible label: a small strip at the top of the picture that says AI-GENERATED."""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

WIDE: Final = 96  # pixels of the picture's width for each pixel of a letter's stroke
DIM: Final = 4  # what is behind the letters is darkened to this part of it
INK: Final = 235  # luma of the letters
_TEXTS: Final = ("AI-GENERATED", "AI")  # the longest that fits
_LETTERS: Final = {  # five rows from the top, a stroke is one pixel
    "A": (".##.", "#..#", "####", "#..#", "#..#"),
    "D": ("###.", "#..#", "#..#", "#..#", "###."),
    "E": ("###", "#..", "##.", "#..", "###"),
    "G": (".###", "#...", "#.##", "#..#", ".###"),
    "I": ("#", "#", "#", "#", "#"),
    "N": ("#..#", "##.#", "#.##", "#..#", "#..#"),
    "R": ("###.", "#..#", "###.", "#.#.", "#..#"),
    "T": ("###", ".#.", ".#.", ".#.", ".#."),
    "-": ("..", "..", "##", "..", ".."),
}


@dataclass(frozen=True)
class Label:
    """A label drawn for pictures of one size.

    Attributes:
        rows: of the picture that it covers.
        columns: of the picture that it covers.
        ink: (h, w, 1) bool, where the letters are in it.
    """

    rows: slice
    columns: slice
    ink: np.ndarray

    def draw(self, frame: np.ndarray) -> None:
        """Write the label into a (H, W, 3) uint8 RGB picture, in place."""
        part = frame[self.rows, self.columns]
        np.copyto(part, np.where(self.ink, np.uint8(INK), part // DIM))


def label_for(height: int, width: int) -> Label:
    """The label for pictures of a size: top left, in the top sixth of a square picture.

    The crop of a face has hair and forehead there, and the mouth below 0.6 of its height.
    """
    scale = max(1, width // WIDE)
    for text in _TEXTS:
        ink = _text(text)
        if ink.shape[1] * scale <= width:
            break
    large = cv2.resize(ink, None, fx=scale, fy=scale, interpolation=cv2.INTER_NEAREST)
    large = large[: height // 4, :width]
    rows, columns = large.shape
    return Label(slice(0, rows), slice(0, columns), large[..., None] > 0)


def _text(text: str) -> np.ndarray:
    """(9, w) uint8 of 0 and 1: letters with a pixel between them, and two around."""
    rows = [".".join(_LETTERS[letter][row] for letter in text) for row in range(5)]
    return np.pad(np.array([[mark == "#" for mark in row] for row in rows], np.uint8), 2)
