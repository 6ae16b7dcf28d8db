"""Speech in, frames of a talking face out: whole, or as streams."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from s2vgan import artifact
from s2vgan.config import Config
from s2vgan.engine import OnnxFace
from s2vgan.errors import ConfigError
from s2vgan.models import TalkingFace, folded
from s2vgan.spec import GroupSpec
from s2vgan.streams import BLOCK, Speaker, Stream, advance

__all__ = ["Stream", "Synthesizer", "advance", "enlarge"]

ONE_FACE = "this model knows one face and takes no reference; train one with model.identity true."


class Synthesizer:
    """A model that speaks. Streams of one synthesizer are independent of each other.

    Args:
        model: from :func:`artifact.load`.
        engine: that makes the frames, from :func:`engine.load_onnx`; PyTorch without one.
    """

    def __init__(self, model: artifact.LoadedModel, engine: OnnxFace | None = None) -> None:
        self._face = folded(model.face)
        self._speaker: Speaker = engine or self._face
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
    ) -> Stream:
        """A new stream, for speech that arrives in pieces.

        Args:
            seed: of the noise.
            pose: (frames, pose_dim) float32 pose codes, the last one held after its end; None
                holds the reference pose.
            reference: (S, S, 3) uint8 RGB, a frame of who speaks; None for the first person that
                the model knows.

        Raises:
            ConfigError: if a model that knows one face is given a reference, or one of another
                size, the pose has another shape, or the seed is out of range.
        """
        picture = None
        if reference is not None:
            shape = self.spec.frame_shape[1:]
            if not self.has_identity:
                raise ConfigError(ONE_FACE)
            if reference.shape != shape:
                raise ConfigError(
                    f"a reference frame of this model has the shape {shape}, not {reference.shape}."
                )
            picture = self._pixels(reference[None])
        who = self._face.identify(picture)
        return Stream(self._speaker, seed, pose if self.has_pose else None, who)

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
        # Contiguous, as stored reference frames are: another layout rounds otherwise.
        pixels = torch.from_numpy(np.array(frames)).to(device).movedim(-1, 1).contiguous()
        return pixels.float() / 127.5 - 1


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
