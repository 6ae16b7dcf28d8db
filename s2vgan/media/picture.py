"""Pictures: probed, decoded in the order in which they are shown, sampled on the grid, cut."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import av
import numpy as np

from s2vgan.errors import SourceError
from s2vgan.media import seek
from s2vgan.media.files import (
    MAX_PIXELS,
    MAX_SECONDS,
    audio_stream,
    decode_packets,
    open_file,
    read_packets,
    video_stream,
)
from s2vgan.media.patch import REACH, Colours, Patch, halvings


@dataclass(frozen=True)
class Probe:
    """What a video claims to be.

    Attributes:
        width: as shown (after rotation), in pixels.
        height: as shown, in pixels.
        fps: average frame rate.
        start: where its clock starts, in seconds; hours in what was recorded from the air.
        seconds: declared duration, 0 where unknown.
        seekable: whether a part can be had without decoding all that is before it. Where not,
            :func:`on_grid` still gives the same pictures, but takes longer the later they are.
    """

    width: int
    height: int
    fps: float
    start: float
    seconds: float
    seekable: bool


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
            size = f"{context.width} x {context.height}" if context.width else "none or too many"
            raise SourceError(
                f"{path}: claims {size} pixels; the limit is {MAX_PIXELS / 1e6:.1f} megapixels: "
                "scale it down first."
            )
        start, seconds = (
            (value or 0) / av.time_base for value in (container.start_time, container.duration)
        )
        if seconds > MAX_SECONDS:
            raise SourceError(
                f"{path}: claims {seconds:.0f} s; the limit is {MAX_SECONDS} s: cut it first."
            )
        rate = stream.average_rate
        seekable = container.format.name != "avi" and seek.knows(stream)
    shown = next(pictures(path), None)
    if shown is None:
        raise SourceError(f"{path}: no frame of its picture can be decoded.")
    return Probe(shown.width, shown.height, float(rate or 0), start, seconds, seekable)


_CHROMA_DIVISORS: Final = {
    "yuv420p": (2, 2), "yuvj420p": (2, 2), "yuv422p": (1, 2), "yuvj422p": (1, 2),
    "yuv444p": (1, 1), "yuvj444p": (1, 1),
}  # fmt: skip


class Picture:
    """One decoded frame as it is shown, at ``time`` seconds until ``end`` on the clock."""

    def __init__(self, frame: Any, time: float, end: float) -> None:
        if frame.format.name not in _CHROMA_DIVISORS:  # 10 bit, RGB, grey, NV12
            is_rgb = frame.format.is_rgb or frame.format.has_palette
            frame = frame.reformat(format="yuv444p")
            if is_rgb:
                frame.colorspace = av.video.reformatter.Colorspace.ITU601  # by which FFmpeg did it
        self._frame = frame
        self._turns = round(frame.rotation / 90) % 4
        self._luma: np.ndarray | None = None
        self.time = time
        self.end = end
        self.width, self.height = frame.width, frame.height
        if self._turns % 2:
            self.width, self.height = frame.height, frame.width

    def _plane(self, number: int) -> np.ndarray:
        """A plane in the decoder's buffer, turned as shown: a view, not a copy."""
        plane = self._frame.planes[number]
        rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
        values = rows[: plane.height, : plane.width]
        return np.rot90(values, self._turns) if self._turns else values

    @property
    def luma(self) -> np.ndarray:
        """(height, width) uint8, read-only."""
        if self._luma is None:
            plane = self._plane(0)
            self._luma = np.ascontiguousarray(plane) if self._turns else plane
        return self._luma

    def crop(self, box: np.ndarray, size: int) -> np.ndarray:
        """A box x, y, w, h of the picture as (size, size, 3) uint8 RGB.

        Only the box is converted, by the frame's own colour matrix and range.
        """
        x, y, width, height = (int(value) for value in box)
        return self._region(x, y, x + width, y + height).crop(box, size)

    def patch(self, box: np.ndarray, limit: int) -> Patch:
        """A copy of the surroundings of a box, from which crops can be cut later.

        Args:
            box: x, y, w, h in pixels.
            limit: if the box's longer side is above this many pixels, the copy is shrunk (by
                averaging) so that it has this many.

        Returns:
            The square of ``REACH`` times the box's longer side around its centre, as far as it
            lies in the picture.
        """
        x, y, width, height = (int(value) for value in box)
        side = max(width, height)
        reach = round(REACH * side / 2)
        across, down = x + width // 2, y + height // 2
        scale = min(1.0, limit / side)
        edges = (across - reach, down - reach, across + reach, down + reach)
        return self._region(*edges, 1 << halvings(scale)).copied(scale)

    def _region(self, left: int, top: int, right: int, bottom: int, unit: int = 1) -> Patch:
        """A rectangle of planes in the decoder's buffer, clipped to the picture.

        It is widened to whole samples of chroma, and where the picture has room to a multiple of
        ``unit`` of them.
        """
        down, across = _CHROMA_DIVISORS[self._frame.format.name]
        if self._turns % 2:
            down, across = across, down
        left, right = _widened(left, right, self.width, across, unit)
        top, bottom = _widened(top, bottom, self.height, down, unit)
        blue, red = (self._plane(number)[top:bottom, left:right] for number in (1, 2))
        left, top = left * across, top * down
        right, bottom = min(self.width, right * across), min(self.height, bottom * down)
        luma = self._plane(0)[top:bottom, left:right]
        if self._turns:
            luma, blue, red = (np.ascontiguousarray(plane) for plane in (luma, blue, red))
        return Patch(
            left, top, right - left, bottom - top, (luma, blue, red), (down, across), False,
            Colours.of(self._frame),
        )  # fmt: skip


def _widened(low: int, high: int, length: int, divisor: int, unit: int) -> tuple[int, int]:
    """Two edges in samples of chroma, a multiple of ``unit`` apart if there is room for it."""
    low, high = max(0, low // divisor), -(-min(length, high) // divisor)
    high = max(high, min(length // divisor, high + (low - high) % unit))
    return max(0, low - (low - high) % unit), high


def pictures(path: str | Path) -> Iterator[Picture]:
    """The frames of a video in the order in which they are shown.

    Raises:
        SourceError: if the file is unreadable or has no picture that is supported.
    """
    return _pictures(path, float("-inf"))


def _pictures(path: str | Path, start: float) -> Iterator[Picture]:
    """The frames of a video, those that end before ``start`` seconds or none of them left out."""
    with open_file(path) as container:
        stream = video_stream(container, path)
        stream.codec_context.thread_count = 1  # videos run in parallel, not their frames
        usual = 1 / float(stream.average_rate or 25)
        packets = read_packets(container, stream)
        key: int | None = None
        # AVI counts packets, not pictures: the first picture is shown at its start, however many
        # packets its decoder wants before.
        timeless, delay = container.format.name == "avi", None
        if start > 0 and not timeless and seek.knows(stream):
            key, pending = seek.skip(packets, stream, start)
            packets = itertools.chain(pending, packets)
        before: Any = None
        last = float("-inf")
        for frames in decode_packets(packets):
            for frame in frames:
                if key is not None:
                    # Pictures that lead the keyframe lack what they were predicted from.
                    if frame.pts is None or frame.pts < key:
                        continue
                    if frame.pts > key:  # it is damaged: what follows may lean on what was before
                        yield from pictures(path)
                        return
                    key = None
                stamp = frame.dts if timeless else frame.pts
                if timeless and stamp is not None:
                    delay = stamp - (stream.start_time or 0) if delay is None else delay
                    stamp -= delay
                time = last + usual if stamp is None else float(stamp * frame.time_base)
                if time <= last:  # a clock that runs backwards
                    continue
                if before is not None:
                    yield Picture(before, last, time)
                before, last = frame, time
        if key is not None:
            yield from pictures(path)
        if before is not None:
            length = float((before.duration or 0) * (before.time_base or 0)) or usual
            yield Picture(before, last, last + length)


# A frame that stays longer than this (a freeze, lost frames) is no moving picture.
MAX_HOLD: Final = 0.25
_CLOCK_ERROR: Final = 0.002  # timestamps in milliseconds must not decide between two frames
# Decoding starts this much earlier, so that a decoder that learns the depth of its reordering
# from the frames has learned it.
_LEAD: Final = 1.0


def on_grid(
    path: str | Path, fps: int, first: int = 0, stop: int | None = None
) -> Iterator[tuple[int, Picture]]:
    """Sample a video on the grid: the frame that is shown in the middle of each tick.

    Tick k lasts from k / fps to (k + 1) / fps seconds. Ticks without a picture are left out; a
    frame that spans several ticks comes several times, as the same object.

    Args:
        path: of the video.
        fps: ticks a second.
        first: the first tick that is wanted. Up to there only what is needed is decoded, and the
            pictures are those of a run from the start, to the last bit.
        stop: the tick after the last one; None for all.

    Raises:
        SourceError: if the file is unreadable, has no picture or changes its size; a change is
            seen where it happens between a second before ``first`` and ``stop``.
    """
    size: tuple[int, int] | None = None
    for picture in _pictures(path, first / fps - _LEAD):
        size = size or (picture.width, picture.height)
        if (picture.width, picture.height) != size:
            raise SourceError(f"{path}: its picture changes size; convert it to one size first.")
        end = min(picture.end, picture.time + MAX_HOLD)
        low = math.ceil((picture.time + _CLOCK_ERROR) * fps - 0.5)
        high = math.ceil((end + _CLOCK_ERROR) * fps - 0.5)
        if stop is not None and low >= stop:
            return
        for tick in range(max(first, low), high if stop is None else min(stop, high)):
            yield tick, picture
