"""Sound: decoded, mixed to mono, resampled, and placed on the presentation clock."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import av
import numpy as np

from s2vgan.errors import SourceError
from s2vgan.media.files import (
    MAX_AUDIO_RATE,
    MAX_SECONDS,
    MIN_AUDIO_RATE,
    audio_stream,
    decode_packets,
    open_file,
    read_packets,
)


def read_audio(
    source: str | Path | bytes, sample_rate: int = 16000, *, max_seconds: float = MAX_SECONDS
) -> np.ndarray:
    """The sound of a file, from its first sample, in any common format.

    Args:
        source: path of a file, or its bytes.
        sample_rate: of the result, in Hz.
        max_seconds: longer sound is refused.

    Returns:
        (n,) float32 mono in [-1, 1], at the file's own level (never normalised).

    Raises:
        SourceError: if the file is missing or unreadable, or has no sound, sound of length 0, or
            sound that is too long, in too many pieces, or of a codec that is not supported.
    """
    name = "the audio" if isinstance(source, bytes) else str(source)
    parts: list[np.ndarray] = []
    with open_file(source) as container:
        stream = audio_stream(container, name)
        for run in _audio_runs(container, stream, sample_rate, name, max_seconds=max_seconds):
            parts.append(run.samples())
    if not sum(len(part) for part in parts):
        raise SourceError(f"{name}: its sound has length zero or cannot be decoded.")
    return np.concatenate(parts).astype(np.float32) / 32768


# Timestamps are rounded to milliseconds by some containers; a larger step is a gap.
_GAP_SECONDS: Final = 0.02
# Each run has a resampler, which costs far more to make than the few bytes that ask for one.
_MAX_RUNS: Final = 10_000
# A resampler that starts this many samples of the result early is right when it counts.
_WARM_UP: Final = 4096
# Sound is read this much further than asked for, since the clock may be off by _GAP_SECONDS.
_BEYOND_SECONDS: Final = 1.0
_ALL: Final = (-math.inf, math.inf)


class _Run:
    """Sound without a gap, resampled to mono; what lies outside the window is left out.

    Each sample is the same whatever the window: a resampler that starts in the middle starts
    where a sample of the file and one of the result coincide, so that its phases are the same,
    and well before the window, so that its filter has filled.
    """

    def __init__(
        self, frame: Any, start: float, end: float, rate: int, window: tuple[float, float]
    ) -> None:
        self.shape = _shape(frame)
        self.rate = frame.sample_rate  # of the file
        self.start = start  # seconds on the presentation clock
        self.taken = 0  # samples of the file so far
        self.broken = False  # FFmpeg could not make anything of a frame
        self.first = round(start * rate)  # the result's first sample's number on the clock
        # The last packet is filled up with samples that are not part of the sound.
        inside = max(0, round(min(end - start, float(MAX_SECONDS)) * rate))
        # The part of the result that is wanted.
        self._low = math.ceil(max(0.0, window[0] * rate - self.first))
        self._high = math.ceil(min(inside, window[1] * rate - self.first))
        common = math.gcd(rate, self.rate)
        steps = max(0, self._low - _WARM_UP) // (rate // common)
        self._begin = steps * (self.rate // common)  # sample of the file to resample from
        self._made = steps * (rate // common)  # samples of the result made or left out so far
        self._parts: list[np.ndarray] = []
        # Only towards integers does FFmpeg mix channels by their mean, without gain.
        self._resampler = av.AudioResampler(format="s16", layout="mono", rate=rate)

    @property
    def time(self) -> float:
        """Where on the clock it ends so far, in seconds."""
        return self.start + self.taken / self.rate

    def add(self, frame: Any) -> None:
        """Take the next frame."""
        before, self.taken = self.taken, self.taken + frame.samples
        if self.taken <= self._begin or self._made >= self._high:
            return
        frame.pts = None  # the run keeps the time; the resampler must not fill or cut
        self._resample(frame if before >= self._begin else _tail(frame, self._begin - before))

    def samples(self) -> np.ndarray:
        """(n,) int16, when the last frame has been taken."""
        if self._begin < self.taken and self._made < self._high:
            self._resample(None)
        return np.concatenate(self._parts) if self._parts else np.zeros(0, np.int16)

    def _resample(self, frame: Any) -> None:
        try:
            for part in self._resampler.resample(frame):
                values = part.to_ndarray()[0]
                low, high = (max(0, edge - self._made) for edge in (self._low, self._high))
                if low < len(values) and high > 0:
                    # A copy where it is a part, so that the rest is not kept in memory.
                    whole = low == 0 and high >= len(values)
                    self._parts.append(values if whole else values[low:high].copy())
                self._made += len(values)
        except MemoryError:  # FFmpeg's own is an FFmpegError too
            raise
        except (av.error.FFmpegError, ValueError):
            self.broken = True

    @property
    def first_kept(self) -> int:
        """The number on the clock of the first of :meth:`samples`."""
        return self.first + self._low


def _shape(frame: Any) -> tuple[int, str, str]:
    return frame.sample_rate, frame.layout.name, frame.format.name


def _tail(frame: Any, start: int) -> Any:
    """The samples of a frame from number ``start`` on."""
    values = frame.to_ndarray()
    if not frame.format.is_planar:
        start *= frame.layout.nb_channels
    tail = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(values[:, start:]), frame.format.name, frame.layout
    )
    tail.sample_rate = frame.sample_rate
    return tail


def _declared_end(container: Any, stream: Any) -> float:
    """End of a stream in seconds where the container knows it exactly (MP4's edit list)."""
    if not container.format.name.startswith("mov") or stream.duration is None:
        return math.inf
    return float(((stream.start_time or 0) + stream.duration) * stream.time_base)


def _audio_runs(
    container: Any,
    stream: Any,
    rate: int,
    name: str,
    *,
    max_seconds: float = MAX_SECONDS,
    window: tuple[float, float] | None = None,
) -> Iterator[_Run]:
    """The sound of a stream as runs without a gap, each when it is complete.

    Args:
        container: an open file.
        stream: one of its audio streams.
        rate: of the result, in Hz.
        name: of the file, for errors.
        max_seconds: of all runs together; a few bytes may hold hours of silence.
        window: the part that is wanted, in seconds on the clock; sound whose clock runs backwards
            is left out. None for all that there is, in the order of the file.

    Raises:
        SourceError: if they are longer, or more than _MAX_RUNS.
    """
    end = _declared_end(container, stream)
    run: _Run | None = None
    runs = 0
    earlier = 0.0  # seconds of the runs before this one
    for frames in decode_packets(read_packets(container, stream)):
        for frame in frames:
            if not frame.samples or not MIN_AUDIO_RATE <= frame.sample_rate <= MAX_AUDIO_RATE:
                continue
            expected = None if run is None else run.time
            time = expected if frame.time is None else float(frame.time)
            time = time or 0.0
            if window is not None and expected is not None and time < expected - _GAP_SECONDS:
                continue
            if (
                run is None
                or run.broken
                or run.shape != _shape(frame)
                or abs(time - run.time) > _GAP_SECONDS
            ):
                if run is not None:
                    yield run
                    earlier += run.taken / run.rate
                runs += 1
                if runs > _MAX_RUNS:
                    raise SourceError(
                        f"{name}: its sound is in more than {_MAX_RUNS} pieces with gaps between "
                        "them; fill these by `ffmpeg -i FILE -af aresample=async=1 NEW_FILE`."
                    )
                run = _Run(frame, time, end, rate, window or _ALL)
            run.add(frame)
            if run.taken > (max_seconds - earlier) * run.rate:
                raise SourceError(f"{name}: longer than {max_seconds:g} s; cut it first.")
            if window is not None and run.time > window[1] + _BEYOND_SECONDS:
                yield run
                return
    if run is not None:
        yield run


@dataclass(frozen=True)
class Track:
    """The sound of a file on the presentation clock.

    Attributes:
        sample_rate: in Hz.
        runs: parts without a gap: first sample's number on the clock, (n,) int16 samples.
    """

    sample_rate: int
    runs: tuple[tuple[int, np.ndarray], ...]

    def window(self, first: int, count: int) -> np.ndarray | None:
        """(count,) int16 samples from number ``first`` on, or None if any of them is missing."""
        for start, samples in self.runs:
            if start <= first and first + count <= start + len(samples):
                return samples[first - start : first - start + count]
        return None


def read_track(
    path: str | Path, sample_rate: int, start: float = 0.0, stop: float = math.inf
) -> Track:
    """The sound of a file as mono int16 on the presentation clock, right within half a sample.

    A window holds the same samples as the whole, at the same numbers. All sound up to its end is
    decoded for that, since decoders remember what was before, but only the window is resampled
    and kept.

    Args:
        path: of the file.
        sample_rate: of the result, in Hz.
        start: of the window, in seconds.
        stop: end of the window, in seconds; what lies after it is not read.

    Raises:
        SourceError: if the file is unreadable, or has no sound or sound in too many pieces.
    """
    with open_file(path) as container:
        stream = audio_stream(container, path)
        found = _audio_runs(container, stream, sample_rate, str(path), window=(start, stop))
        runs = [(run.first_kept, run.samples()) for run in found]
    return Track(sample_rate, tuple((first, samples) for first, samples in runs if len(samples)))
