"""Streams of speech, and the frames of several of them made in shared forwards."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from s2vgan.config import MAX_SEED, ModelConfig
from s2vgan.errors import ConfigError, SourceError
from s2vgan.models import FaceCodes, Identity
from s2vgan.spec import GroupSpec

BLOCK = 32  # groups of one forward: memory stays bounded for speech of any length


class Speaker(Protocol):
    """What makes the frames of streams: a Face, or another engine with a Face's weights."""

    config: ModelConfig
    spec: GroupSpec
    codes: FaceCodes

    def first_state(self, identity: Identity | None) -> Tensor:
        """As :meth:`Face.first_state`."""

    def speak(
        self,
        audio: Tensor,
        z: Tensor,
        pose: Tensor,
        state: Tensor | None = None,
        reference: Tensor | Identity | None = None,
    ) -> Tensor:
        """As :meth:`Face.speak`."""


class Stream:
    """One stream; it keeps the ConvGRU's state, if any, and the speech that groups still need.

    However the speech is cut into pieces, and whoever else speaks in the same forwards, the frames
    are the same up to rounding.

    Args:
        face: that speaks; a network is in evaluation mode.
        seed: of the noise, 0 to 2^63 - 1.
        pose: (frames, pose_dim) float32 pose codes, the last one held after its end; None holds
            the reference pose.
        who: who speaks, from :meth:`Face.identify`.

    Raises:
        ConfigError: if the seed is out of range, the pose has another shape, or it holds what is
            no number.
    """

    def __init__(
        self, face: Speaker, seed: int, pose: np.ndarray | None, who: Identity | None
    ) -> None:
        config, spec = face.config, face.spec
        self.face = face
        self._who, self._state = who, face.first_state(who)
        if not 0 <= seed <= MAX_SEED:
            raise ConfigError(f"seed {seed}: use 0 to {MAX_SEED}.")
        self._pose = None
        if pose is not None:
            self._pose = _checked_pose(pose, config.pose_dim).to(face.codes.reference_pose.device)
        self._noise = torch.Generator().manual_seed(seed)
        self._group = 0  # the next one
        self._received = 0
        self._ended = False
        before, self._window = spec.window(config.audio_past, config.audio_ahead)
        self._ahead = self._window - before - spec.samples_per_group
        self._heard = np.zeros(before, np.float32)  # from the next group's window on

    @property
    def ready(self) -> int:
        """Groups that can be made now."""
        return max(0, (len(self._heard) - self._window) // self.face.spec.samples_per_group + 1)

    def feed(self, samples: np.ndarray) -> None:
        """Take speech; nothing is computed.

        Args:
            samples: (n,) float in [-1, 1] at the spec's sample rate, n of any size.

        Raises:
            SourceError: if they are not in one row of numbers; the stream goes on without them.
            ValueError: if the speech has ended.
        """
        if self._ended:
            raise ValueError("the speech of this stream has ended; start another stream.")
        samples = np.asarray(samples, np.float32)
        if samples.ndim != 1 or not np.isfinite(samples).all():
            raise SourceError(
                "speech is one row of finite samples; mix its channels, and check what made it."
            )
        self._received += len(samples)
        self._heard = np.concatenate([self._heard, samples])

    def end(self) -> None:
        """No speech follows; the last group is filled with silence. A second time changes nothing.

        What :attr:`ready` counts afterwards is all that is still to come.
        """
        if not self._ended:
            missing = -self._received % self.face.spec.samples_per_group + self._ahead
            self._heard = np.concatenate([self._heard, np.zeros(missing, np.float32)])
            self._ended = True

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take speech as :meth:`feed` does; give the frames that can be made now.

        Returns:
            (k * T, S, S, 3) uint8 RGB, k of 0 or more groups.
        """
        self.feed(samples)
        return advance([self])[0]

    def finish(self) -> np.ndarray:
        """End the speech as :meth:`end` does; give the frames that were still to come."""
        self.end()
        return advance([self])[0]

    def _windows(self, count: int) -> np.ndarray:
        """(count, L) windows of speech of the next groups."""
        starts = np.arange(count) * self.face.spec.samples_per_group
        return self._heard[starts[:, None] + np.arange(self._window)]

    def _z(self, count: int) -> Tensor:
        """(count, z_dim) noise of the next groups."""
        drawn = [torch.randn(self.face.config.z_dim, generator=self._noise) for _ in range(count)]
        return torch.stack(drawn)

    def _poses(self, count: int) -> Tensor:
        """(count, T, pose_dim) pose codes of the next groups."""
        per_group = self.face.spec.frames_per_group
        if self._pose is None:
            return self.face.codes.reference_pose.expand(count, per_group, -1)
        first = self._group * per_group
        wanted = torch.arange(first, first + count * per_group)
        return self._pose[wanted.clamp(max=len(self._pose) - 1)].unflatten(0, (count, per_group))

    def _passed(self, count: int, state: Tensor) -> None:
        """The next groups are made; ``state`` (1, 3, S, S) is their last frame."""
        self._heard = self._heard[count * self.face.spec.samples_per_group :]
        self._group += count
        self._state = state


def advance(streams: Sequence[Stream], most: int | None = None) -> list[np.ndarray]:
    """Make what is ready of several streams of one synthesizer, in shared forwards.

    States are gathered before each forward and scattered after it. All streams that have a group
    ready share a forward, of as many groups in time as each of them has. A stream knows nothing of
    the others: any may be left out, or be gone, the next time.

    Args:
        streams: each of them once.
        most: groups of each stream at most, the rest is left for the next call; None for all.

    Returns:
        For each stream (k * T, S, S, 3) uint8 RGB, k of 0 or more groups.

    Raises:
        ValueError: if the streams are of several synthesizers, or one is given twice.
    """
    if len({id(stream.face) for stream in streams}) > 1 or len(set(streams)) < len(streams):
        raise ValueError("advance takes streams of one synthesizer, each of them once.")
    left = {stream: stream.ready if most is None else min(stream.ready, most) for stream in streams}
    made: dict[Stream, list[np.ndarray]] = {stream: [] for stream in streams}
    while waiting := [stream for stream in streams if left[stream] > 0][:BLOCK]:
        count = min(BLOCK // len(waiting), *(left[stream] for stream in waiting))
        for stream, frames in zip(waiting, _forward(waiting, count), strict=True):
            made[stream].append(frames)
            left[stream] -= count
    return [
        np.concatenate([np.empty((0, *stream.face.spec.frame_shape[1:]), np.uint8), *parts])
        for stream, parts in made.items()
    ]


@torch.inference_mode()
def _forward(streams: Sequence[Stream], count: int) -> np.ndarray:
    """The next ``count`` groups of each of B streams, (B, count * T, S, S, 3) uint8 RGB."""
    face = streams[0].face
    device = face.codes.pose_mean.device
    windows = torch.from_numpy(np.stack([stream._windows(count) for stream in streams]))
    made = face.speak(
        windows.to(device),
        torch.stack([stream._z(count) for stream in streams]).to(device),
        torch.stack([stream._poses(count) for stream in streams]).to(device),
        torch.cat([stream._state for stream in streams]),
        Identity.join([stream._who for stream in streams if stream._who is not None]),
    )
    for stream, last in zip(streams, made[:, -1].split(1), strict=True):
        stream._passed(count, last)
    pixels = made.float().movedim(2, -1) * 127.5 + 128.0  # in (0, 256): cut off, this rounds
    return pixels.byte().contiguous().cpu().numpy()


def _checked_pose(pose: np.ndarray, dim: int) -> Tensor:
    codes = np.array(pose, np.float32)
    if codes.ndim != 2 or not len(codes) or codes.shape[1] != dim or not np.isfinite(codes).all():
        raise ConfigError(
            f"pose codes of this model are finite numbers of the shape (frames, {dim}), not "
            f"{codes.shape}; `Synthesizer.pose_of` makes them."
        )
    return torch.from_numpy(codes)
