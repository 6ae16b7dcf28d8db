"""The spec of a group: frame rate, frames, samples, size and crop. Everything else follows it."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from s2vgan.errors import ConfigError

CropMode = Literal["tracked", "paper"]
FaceChoice = Literal["largest", "central"]

FORMAT_VERSION = 1


@dataclass(frozen=True)
class GroupSpec:
    """What one group holds. Two datasets can be mixed only if their specs are equal.

    Attributes:
        fps: frames a second of the grid.
        frames_per_group: T, consecutive frames of one group.
        sample_rate: of the mono speech, in Hz.
        size: S, height and width of a face frame in pixels.
        crop: ``tracked`` (one smoothed square per segment) or ``paper`` (each frame's Haar box).
        version: of the format.
    """

    fps: int = 30
    frames_per_group: int = 3
    sample_rate: int = 16000
    size: int = 64
    crop: CropMode = "tracked"
    version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if self.fps <= 0 or (self.sample_rate * self.frames_per_group) % self.fps:
            raise ConfigError(
                f"fps {self.fps}: a group of {self.frames_per_group} frames is not a whole number "
                f"of samples at {self.sample_rate} Hz; use a rate such as 24, 25, 30, 50 or 60."
            )
        if not 16 <= self.size <= 1024:
            raise ConfigError(f"size {self.size}: use 16 to 1024 pixels.")
        if self.crop not in ("tracked", "paper"):
            raise ConfigError(f"crop {self.crop!r}: use tracked or paper.")

    @property
    def samples_per_group(self) -> int:
        """Samples of speech in one group: 1,600 at 30 frames/s."""
        return self.sample_rate * self.frames_per_group // self.fps

    @property
    def seconds(self) -> float:
        """Length G of one group in seconds: 0.1 at 30 frames/s."""
        return self.frames_per_group / self.fps

    def window(self, past: float, ahead: float) -> tuple[int, int]:
        """Samples before the group, and samples in all, of a window with context in seconds."""
        before = round(past * self.sample_rate)
        return before, before + self.samples_per_group + round(ahead * self.sample_rate)

    @property
    def frame_shape(self) -> tuple[int, int, int, int]:
        """Shape (T, H, W, C) of the frames of one group."""
        return (self.frames_per_group, self.size, self.size, 3)

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain JSON values."""
        return dataclasses.asdict(self)
