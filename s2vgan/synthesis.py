"""A stream of speech in, frames of a talking face out."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from s2vgan import artifact
from s2vgan.config import Config
from s2vgan.errors import ConfigError
from s2vgan.models import Face, TalkingFace
from s2vgan.spec import GroupSpec

ONE_FACE = "this model knows one face and takes no reference; train one with model.identity true."
BLOCK = 32  # groups of one forward: memory stays bounded for speech of any length


class Synthesizer:
    """A model that speaks. Streams of one synthesizer are independent of each other.

    Args:
        model: from :func:`artifact.load`.
    """

    def __init__(self, model: artifact.LoadedModel) -> None:
        self._face = model.face
        self.config: Config = model.config
        self.spec: GroupSpec = model.spec
        self.manifest: dict[str, Any] = model.manifest

    @classmethod
    def load(cls, run: str | Path, device: torch.device | str = "cpu") -> "Synthesizer":
        """From a run or model folder.

        Raises:
            RunError: if there is no model, or it is damaged.
        """
        return cls(artifact.load(run, device))

    @property
    def has_pose(self) -> bool:
        """Whether the model takes a pose code."""
        return self.config.model.pose_dim > 0

    @property
    def has_identity(self) -> bool:
        """Whether the model is told who speaks, by a reference frame."""
        return self.config.model.identity

    def person(self, name: str) -> np.ndarray | None:
        """The stored reference frame (S, S, 3) uint8 of a video's id; None for one not stored.

        Raises:
            ConfigError: if the model knows one face only.
        """
        if not isinstance(self._face, TalkingFace) or self._face.identity is None:
            raise ConfigError(ONE_FACE)
        people = self.manifest.get("people", [])
        if name not in people:
            return None
        picture = self._face.identity.references[people.index(name)]
        return picture.movedim(0, -1).contiguous().cpu().numpy()

    def stream(
        self, seed: int = 0, pose: np.ndarray | None = None, reference: np.ndarray | None = None
    ) -> "Stream":
        """A new stream, for speech that arrives in pieces.

        Args:
            seed: of the noise.
            pose: (frames, pose_dim) float32 pose codes, the last one held after its end; None
                holds the reference pose.
            reference: (S, S, 3) uint8 RGB, a frame of who speaks; None for the first person that
                the model knows.

        Raises:
            ConfigError: if a model that knows one face is given a reference, or one of another
                size.
        """
        who = None
        if reference is not None:
            shape = self.spec.frame_shape[1:]
            if not self.has_identity:
                raise ConfigError(ONE_FACE)
            if reference.shape != shape:
                raise ConfigError(
                    f"a reference frame of this model has the shape {shape}, not {reference.shape}."
                )
            who = self._pixels(reference[None])
        return Stream(self._face, seed, pose if self.has_pose else None, who)

    def speak(
        self,
        audio: np.ndarray,
        seed: int = 0,
        pose: np.ndarray | None = None,
        reference: np.ndarray | None = None,
    ) -> np.ndarray:
        """Frames for a whole piece of speech.

        Args:
            audio: (n,) float32 mono in [-1, 1] at ``spec.sample_rate``.
            seed: of the noise.
            pose: as in :meth:`stream`.
            reference: as in :meth:`stream`.

        Returns:
            (frames, S, S, 3) uint8 RGB; the speech is filled with silence to whole groups.
        """
        return np.concatenate(list(self.blocks(audio, seed, pose, reference)))

    def blocks(
        self,
        audio: np.ndarray,
        seed: int = 0,
        pose: np.ndarray | None = None,
        reference: np.ndarray | None = None,
    ) -> Iterator[np.ndarray]:
        """The frames of :meth:`speak` in blocks: memory stays bounded for speech of any length."""
        stream = self.stream(seed, pose, reference)
        size = BLOCK * self.spec.samples_per_group
        for start in range(0, len(audio), size):
            yield stream.push(audio[start : start + size])
        yield stream.finish()

    def pose_of(self, frames: np.ndarray, reference: np.ndarray | None = None) -> np.ndarray:
        """Pose codes (n, pose_dim) float32 of (n, S, S, 3) uint8 real frames.

        A model with an identity reads them against the ``reference`` (S, S, 3) uint8 of who is in
        them; None for the first person that it knows.
        """
        who = None
        if self.has_identity:
            if reference is None:
                reference = self.person(self.manifest["people"][0])
                assert reference is not None
            who = self._pixels(reference[None])
        return self._face.codes.pose(self._pixels(frames), who).cpu().numpy()

    def _pixels(self, frames: np.ndarray) -> Tensor:
        """Frames (n, 3, S, S) in [-1, 1] of (n, S, S, 3) uint8."""
        device = self._face.codes.pose_mean.device
        pixels = torch.from_numpy(np.array(frames)).to(device).movedim(-1, 1)
        return pixels.float() / 127.5 - 1


class Stream:
    """One stream; it keeps the ConvGRU's state, if any, and the speech that groups still need.

    However the speech is cut into pieces, the frames are the same up to rounding.
    """

    def __init__(
        self, face: Face, seed: int, pose: np.ndarray | None, reference: Tensor | None = None
    ) -> None:
        config, spec = face.config, face.spec
        self._face, self._reference = face, reference
        self._pose = None if pose is None else torch.from_numpy(np.asarray(pose, np.float32))
        self._noise = torch.Generator().manual_seed(seed)
        self._state: Tensor | None = None
        self._group = 0
        self._received = 0
        before, self._window = spec.window(config.audio_past, config.audio_ahead)
        self._ahead = self._window - before - spec.samples_per_group
        self._heard = np.zeros(before, np.float32)  # from the next group's window on

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take (n,) float32 samples, n of any size; give the frames that can be made now.

        Returns:
            (k * T, S, S, 3) uint8 RGB, k of 0 or more groups.
        """
        self._received += len(samples)
        self._heard = np.concatenate([self._heard, np.asarray(samples, np.float32)])
        return self._speak()

    def finish(self) -> np.ndarray:
        """End the speech with silence; give the frames that were still to come."""
        size = self._face.spec.samples_per_group
        missing = -self._received % size + self._ahead
        self._heard = np.concatenate([self._heard, np.zeros(missing, np.float32)])
        return self._speak()

    def _speak(self) -> np.ndarray:
        spec, size = self._face.spec, self._face.spec.samples_per_group
        frames = [np.empty((0, *spec.frame_shape[1:]), np.uint8)]
        while (ready := (len(self._heard) - self._window) // size + 1) > 0:
            count = min(ready, BLOCK)
            starts = np.arange(count) * size
            windows = self._heard[starts[:, None] + np.arange(self._window)]
            self._heard = self._heard[count * size :]
            frames.append(self._forward(torch.from_numpy(windows).unsqueeze(0)))
            self._group += count
        return np.concatenate(frames)

    @torch.inference_mode()
    def _forward(self, windows: Tensor) -> np.ndarray:
        face = self._face
        device = face.codes.pose_mean.device
        count = windows.shape[1]
        z = [torch.randn(face.config.z_dim, generator=self._noise) for _ in range(count)]
        made = face.speak(
            windows.to(device),
            torch.stack(z).unsqueeze(0).to(device),
            self._poses(count).unsqueeze(0).to(device),
            self._state,
            self._reference,
        )
        self._state = made[:, -1]
        pixels = ((made[0].float() + 1) * 127.5).round().clamp(0, 255)
        return pixels.byte().movedim(1, -1).contiguous().cpu().numpy()

    def _poses(self, count: int) -> Tensor:
        per_group = self._face.spec.frames_per_group
        if self._pose is None:
            return self._face.codes.reference_pose.expand(count, per_group, -1)
        first = self._group * per_group
        wanted = torch.arange(first, first + count * per_group)
        return self._pose[wanted.clamp(max=len(self._pose) - 1)].unflatten(0, (count, per_group))


def enlarge(frames: Iterable[np.ndarray], factor: int) -> Iterator[np.ndarray]:
    """Frames (S, S, 3) uint8, one by one, ``factor`` times as large, by bicubic interpolation.

    Raises:
        ConfigError: if the factor is not 1 to 16.
    """
    if not 1 <= factor <= 16:
        raise ConfigError(f"scale {factor}: use 1 to 16.")
    return (
        cv2.resize(frame, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
        for frame in frames
    )
