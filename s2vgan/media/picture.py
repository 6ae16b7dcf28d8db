"""Pictures: probed, decoded in the order in which they are shown, sampled on the grid, cut."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import av
import cv2
import numpy as np

from s2vgan.errors import SourceError
from s2vgan.media.files import (
    MAX_PIXELS,
    MAX_SECONDS,
    audio_stream,
    decode_packets,
    open_file,
    video_stream,
)


@dataclass(frozen=True)
class Probe:
    """What a video claims to be.

    Attributes:
        width: as shown (after rotation), in pixels.
        height: as shown, in pixels.
        fps: average frame rate.
        seconds: declared duration, 0 where unknown.
    """

    width: int
    height: int
    fps: float
    seconds: float


def probe(path: str | Path) -> Probe:
    """Open a video and check it, without decoding more than FFmpeg needs to know its streams.

    Raises:
        SourceError: if it is unreadable, lacks a picture or sound, holds a codec that is not
            supported, or is beyond the limits.
    """
    with open_file(path) as container:
        stream = video_stream(container, path)
        audio_stream(container, path)
        context = stream.codec_context
        if not 0 < context.width * context.height <= MAX_PIXELS:
            raise SourceError(
                f"{path}: claims {context.width} x {context.height} pixels; the limit is "
                f"{MAX_PIXELS / 1e6:.1f} megapixels: scale it down first."
            )
        seconds = (container.duration or 0) / av.time_base
        if seconds > MAX_SECONDS:
            raise SourceError(
                f"{path}: claims {seconds:.0f} s; the limit is {MAX_SECONDS} s: cut it first."
            )
        rate = stream.average_rate
    shown = next(pictures(path), None)
    if shown is None:
        raise SourceError(f"{path}: no frame of its picture can be decoded.")
    return Probe(shown.width, shown.height, float(rate or 0), seconds)


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
_CHROMA_DIVISORS: Final = {
    "yuv420p": (2, 2), "yuvj420p": (2, 2), "yuv422p": (1, 2), "yuvj422p": (1, 2),
    "yuv444p": (1, 1), "yuvj444p": (1, 1),
}  # fmt: skip


class Picture:
    """One decoded frame as it is shown, at ``time`` seconds until ``end`` on the clock."""

    def __init__(self, frame: Any, time: float, end: float) -> None:
        if frame.format.name not in _CHROMA_DIVISORS:  # 10 bit, RGB, grey, NV12
            frame = frame.reformat(format="yuv444p")
        self._frame = frame
        self._turns = round(frame.rotation / 90) % 4
        self.time = time
        self.end = end
        self.width, self.height = frame.width, frame.height
        if self._turns % 2:
            self.width, self.height = frame.height, frame.width

    def _plane(self, number: int) -> np.ndarray:
        """A plane as it lies in the decoder's buffer, turned as shown: no copy if not turned."""
        plane = self._frame.planes[number]
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        values = rows[: plane.height, : plane.width]
        return np.ascontiguousarray(np.rot90(values, self._turns)) if self._turns else values

    @property
    def luma(self) -> np.ndarray:
        """(height, width) uint8, read-only."""
        return self._plane(0)

    def crop(self, box: np.ndarray, size: int) -> np.ndarray:
        """A box x, y, w, h of the picture as (size, size, 3) uint8 RGB.

        Only the box is converted, by the frame's own colour matrix and range.
        """
        x, y, width, height = (int(value) for value in box)
        down, across = _CHROMA_DIVISORS[self._frame.format.name]
        if self._turns % 2:
            down, across = across, down
        parts = [_resize(self.luma[y : y + height, x : x + width], size)]
        for number in (1, 2):
            chroma = self._plane(number)
            top, left = y // down, x // across
            bottom, right = -(-(y + height) // down), -(-(x + width) // across)
            region = chroma[top:bottom, left:right]
            if (down, across) != (1, 1):
                shape = (region.shape[1] * across, region.shape[0] * down)
                region = cv2.resize(region, shape, interpolation=cv2.INTER_LINEAR)
            top, left = y - top * down, x - left * across
            parts.append(_resize(region[top : top + height, left : left + width], size))
        return self._to_rgb(*parts)

    def _to_rgb(self, luma: np.ndarray, blue: np.ndarray, red: np.ndarray) -> np.ndarray:
        frame = self._frame
        unknown = 1 if max(frame.width, frame.height) > 1024 or frame.height > _HD_LINES else 6
        kr, kb = _MATRICES.get(frame.colorspace, _MATRICES[unknown])
        full = frame.format.name.startswith("yuvj") or frame.color_range == _FULL_RANGE
        y = luma.astype(np.float32) if full else (luma.astype(np.float32) - 16) * (255 / 219)
        scale = 1.0 if full else 255 / 224
        cb = (blue.astype(np.float32) - 128) * scale
        cr = (red.astype(np.float32) - 128) * scale
        r = y + 2 * (1 - kr) * cr
        b = y + 2 * (1 - kb) * cb
        g = (y - kr * r - kb * b) / (1 - kr - kb)
        return np.clip(np.rint(np.stack([r, g, b], axis=-1)), 0, 255).astype(np.uint8)


def _resize(plane: np.ndarray, size: int) -> np.ndarray:
    way = cv2.INTER_AREA if min(plane.shape) >= size else cv2.INTER_LINEAR
    return cv2.resize(plane, (size, size), interpolation=way)


def pictures(path: str | Path) -> Iterator[Picture]:
    """The frames of a video in the order in which they are shown.

    Raises:
        SourceError: if the file is unreadable or has no picture that is supported.
    """
    with open_file(path) as container:
        stream = video_stream(container, path)
        stream.codec_context.thread_count = 1  # videos run in parallel, not their frames
        usual = 1 / float(stream.average_rate or 25)
        before: Any = None
        last = float("-inf")
        for frames in decode_packets(container, stream):
            for frame in frames:
                time = last + usual if frame.time is None else float(frame.time)
                if time <= last:  # a clock that runs backwards
                    continue
                if before is not None:
                    yield Picture(before, last, time)
                before, last = frame, time
        if before is not None:
            length = float((before.duration or 0) * (before.time_base or 0)) or usual
            yield Picture(before, last, last + length)


# A frame that stays longer than this (a freeze, lost frames) is no moving picture.
MAX_HOLD: Final = 0.25
_CLOCK_ERROR: Final = 0.002  # timestamps in milliseconds must not decide between two frames


def on_grid(path: str | Path, fps: int) -> Iterator[tuple[int, Picture]]:
    """Sample a video on the grid: the frame that is shown in the middle of each tick.

    Tick k lasts from k / fps to (k + 1) / fps seconds. Ticks without a picture are left out; a
    frame that spans several ticks comes several times, as the same object.

    Raises:
        SourceError: if the file is unreadable, has no picture or changes its size.
    """
    size: tuple[int, int] | None = None
    for picture in pictures(path):
        size = size or (picture.width, picture.height)
        if (picture.width, picture.height) != size:
            raise SourceError(f"{path}: its picture changes size; convert it to one size first.")
        end = min(picture.end, picture.time + MAX_HOLD)
        first = max(0, math.ceil((picture.time + _CLOCK_ERROR) * fps - 0.5))
        stop = math.ceil((end + _CLOCK_ERROR) * fps - 0.5)
        for tick in range(first, stop):
            yield tick, picture
