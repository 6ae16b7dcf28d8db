"""What the generator sides of all kinds of model have in common."""

import torch
from torch import Tensor, nn

from s2vgan.config import ModelConfig
from s2vgan.models.face_codes import FaceCodes
from s2vgan.models.identity import Identity
from s2vgan.spec import GroupSpec


class Face(nn.Module):
    """A generator side: what is trained as G, stored as the model, and made to speak.

    Calling it is one pass of training and gives frames (B, K * T, 3, S, S) in (-1, 1), audio codes
    (B, K, audio_dim), and predicted mouth codes (B, K, T, MOUTH_DIM) or None.

    Args:
        config: of the model.
        spec: of the groups.
    """

    generator: nn.Module

    def __init__(self, config: ModelConfig, spec: GroupSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        self.codes = FaceCodes(config.pose_dim)

    def fit(
        self, frames: Tensor, reference: Tensor | None = None, people: Tensor | None = None
    ) -> None:
        """Fit what is not trained.

        Args:
            frames: (N, 3, S, S) of training time in [-1, 1].
            reference: (N, 3, S, S) in [-1, 1], the reference frame of who is in each, where the
                model has an identity.
            people: (V, 3, S, S) uint8, the reference frames that are to be stored with it.
        """
        self.codes.fit(frames, reference)

    def lesson(self, audio: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """What a training step uses of B sequences of K groups: all of it, unless a kind says less.

        Args:
            audio: (B, K, L) windows of speech in [-1, 1].
            frames: (B, K * T, 3, S, S) in [-1, 1].
        """
        return audio, frames

    @torch.no_grad()
    def identify(self, reference: Tensor | None) -> Identity | None:
        """What the generator is told of who speaks, once for all groups of a stream.

        Args:
            reference: (B, 3, S, S) frames in [-1, 1]; None for the first of the people that the
                model knows, B of 1.

        Returns:
            None where the model knows only one face.
        """
        return None

    @torch.no_grad()
    def first_state(self, identity: Identity | None) -> Tensor:
        """The ``state`` (1, 3, S, S) of :meth:`speak` before the first group of one person."""
        size = self.spec.size
        return torch.zeros(1, 3, size, size, device=self.codes.pose_mean.device)

    def speak(
        self,
        audio: Tensor,
        z: Tensor,
        pose: Tensor,
        state: Tensor | None = None,
        reference: Tensor | Identity | None = None,
    ) -> Tensor:
        """All frames of K contiguous groups of B sequences.

        Args:
            audio: (B, K, L) windows of speech in [-1, 1].
            z: (B, K, z_dim) noise.
            pose: (B, K, T, pose_dim) pose codes.
            state: (B, 3, S, S), the last frame before; None at the start. Of no effect where the
                model does not carry it.
            reference: (B, 3, S, S) frames in [-1, 1] of who speaks, or what :meth:`identify` made
                of them; None for the first of the people that the model knows. Of no effect where
                it knows only one face.

        Returns:
            (B, K * T, 3, S, S) in (-1, 1).
        """
        raise NotImplementedError
