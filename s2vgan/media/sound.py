"""Sound: decoded, mixed to mono, resampled, and placed on the presentation clock."""

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
    audio_stream,
    decode_packets,
    open_file,
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
            sound that is too long or of a codec that is not supported.
    """
    name = "the audio" if isinstance(source, bytes) else str(source)
    parts: list[np.ndarray] = []
    with open_file(source) as container:
        stream = audio_stream(container, name)
        for run in _audio_runs(container, stream, sample_rate, name, max_seconds):
            parts.append(run.samples)
    if not sum(len(part) for part in parts):
        raise SourceError(f"{name}: its sound has length zero or cannot be decoded.")
    return np.concatenate(parts).astype(np.float32) / 32768


@dataclass(frozen=True)
class _Run:
    """Sound without a gap: int16 mono samples from ``start`` seconds on the presentation clock."""

    start: float
    samples: np.ndarray


# Timestamps are rounded to milliseconds by some containers; a larger step is a gap.
_GAP_SECONDS: Final = 0.02


def _declared_end(container: Any, stream: Any) -> float:
    """End of a stream in seconds where the container knows it exactly (MP4's edit list)."""
    if not container.format.name.startswith("mov") or stream.duration is None:
        return float("inf")
    return float(((stream.start_time or 0) + stream.duration) * stream.time_base)


def _audio_runs(
    container: Any, stream: Any, rate: int, name: str, max_seconds: float = MAX_SECONDS
) -> Iterator[_Run]:
    """The sound of a stream, resampled to mono, as runs without a gap.

    Args:
        container: an open file.
        stream: one of its audio streams.
        rate: of the result, in Hz.
        name: of the file, for errors.
        max_seconds: of all runs together; a few bytes may hold hours of silence.

    Raises:
        SourceError: if they are longer.
    """
    end = _declared_end(container, stream)
    start: float | None = None
    shape: tuple[Any, ...] = ()
    consumed = 0  # samples of this run
    earlier = 0.0  # seconds of the runs before it
    broken = False
    resampler: Any = None
    parts: list[np.ndarray] = []

    def resample(frame: Any) -> bool:
        """Whether FFmpeg could make anything of a frame (None: of what it still holds)."""
        try:
            parts.extend(part.to_ndarray()[0] for part in resampler.resample(frame))
        except (av.error.FFmpegError, ValueError):
            return False
        return True

    def finish() -> Iterator[_Run]:
        if start is not None:
            resample(None)
            if parts:
                # The last packet is filled up with samples that are not part of the sound.
                inside = min(end - start, float(MAX_SECONDS)) * rate
                yield _Run(start, np.concatenate(parts)[: max(0, round(inside))])

    for frames in decode_packets(container, stream):
        for frame in frames:
            if not frame.samples or not 0 < frame.sample_rate <= MAX_AUDIO_RATE:
                continue
            found = (frame.sample_rate, frame.layout.name, frame.format.name)
            expected = None if start is None else start + consumed / frame.sample_rate
            time = expected if frame.time is None else float(frame.time)
            if (
                expected is None
                or time is None
                or broken
                or found != shape
                or abs(time - expected) > _GAP_SECONDS
            ):
                yield from finish()
                earlier += consumed / shape[0] if shape else 0.0
                start, shape, consumed, parts, broken = time or 0.0, found, 0, [], False
                # Only towards integers does FFmpeg mix channels by their mean, without gain.
                resampler = av.AudioResampler(format="s16", layout="mono", rate=rate)
            consumed += frame.samples
            if consumed > (max_seconds - earlier) * frame.sample_rate:
                raise SourceError(f"{name}: longer than {max_seconds:g} s; cut it first.")
            frame.pts = None  # the run keeps the time; the resampler must not fill or cut
            broken = not resample(frame)  # then what follows is a run of its own
    yield from finish()


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


def read_track(path: str | Path, sample_rate: int) -> Track:
    """The sound of a file as mono int16 on the presentation clock, right within half a sample.

    Raises:
        SourceError: if the file is unreadable or has no sound.
    """
    with open_file(path) as container:
        stream = audio_stream(container, path)
        runs = [
            (round(run.start * sample_rate), run.samples)
            for run in _audio_runs(container, stream, sample_rate, str(path))
        ]
    return Track(sample_rate, tuple(runs))
