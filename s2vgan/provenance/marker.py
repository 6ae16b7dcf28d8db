"""Marking frames as they stream: the visible label and the imperceptible watermark."""

from collections.abc import Iterable, Iterator
from typing import Final

import cv2
import numpy as np

from s2vgan.provenance.label import Label, label_for
from s2vgan.provenance.pattern import SLOT_SECONDS, SLOTS, signs, watermark_key

AMPLITUDE: Final = 2.0  # root mean square of the watermark, in levels of 255: 42 dB of PSNR


class Marker:
    """Marks the frames of one video or live stream, in their order.

    The watermark adds to red, green and blue alike, hence to luma alone, a pattern of signs on a
    grid of the whole picture, smoothed to its size. The patterns take turns, so that a face that
    holds still is not mistaken for one of them (spread spectrum: Cox et al., IEEE Transactions on
    Image Processing 6(12), 1997).

    Args:
        key: of the watermark; None for S2VGAN_WATERMARK_KEY or the public key.
        label: whether the visible label is drawn.
        fps: frames a second.

    Raises:
        ConfigError: if the key of the environment is too short.
    """

    def __init__(self, key: str | None = None, *, label: bool = True, fps: int = 30) -> None:
        self._signs = signs(watermark_key() if key is None else key)
        self._labelled, self._fps = label, fps
        self._count = 0
        self._size: tuple[int, int] | None = None
        self._label: Label | None = None
        self._slot = -1
        self._more = self._less = np.empty(0, np.uint8)  # of the pattern of this slot

    def mark(self, frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Frames (H, W, 3) uint8 RGB one by one, marked; those given are not changed."""
        return (self.mark_frame(frame) for frame in frames)

    def mark_frame(self, frame: np.ndarray) -> np.ndarray:
        """The next frame of the stream, (H, W, 3) uint8 RGB, marked; the given is not changed."""
        size = frame.shape[:2]
        slot = int(self._count / (self._fps * SLOT_SECONDS)) % SLOTS
        if size != self._size:
            self._label = label_for(*size) if self._labelled else None
        if (size, slot) != (self._size, self._slot):
            self._size, self._slot = size, slot
            self._more, self._less = _pattern(self._signs[slot], *size)
        self._count += 1
        if self._label is not None:
            frame = frame.copy()
            self._label.draw(frame)
        marked = cv2.add(frame, self._more)  # both stop at 0 and 255
        return cv2.subtract(marked, self._less, dst=marked)


def _pattern(signs: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """What a slot's (GRID, GRID) signs add and take away, (height, width, 3) uint8 each."""
    large = cv2.resize(signs, (width, height), interpolation=cv2.INTER_CUBIC)
    large *= AMPLITUDE / np.sqrt(np.square(large).mean())
    levels = np.repeat(np.rint(large)[..., None], 3, axis=2)
    more, less = levels.clip(0, None), (-levels).clip(0, None)
    return more.astype(np.uint8), less.astype(np.uint8)
