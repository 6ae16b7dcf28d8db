"""The generator side of the method, with ConvGRU or, as its ablation, without."""

import torch
from torch import Tensor, nn

from s2vgan.config import ModelConfig
from s2vgan.models.audio_encoder import AudioEncoder
from s2vgan.models.face import Face
from s2vgan.models.face_codes import MOUTH_DIM
from s2vgan.models.generator import FEATURES, Generator
from s2vgan.models.identity import IDENTITY_DIM, Identity, IdentityEncoder
from s2vgan.spec import GroupSpec


class TalkingFace(Face):
    """Audio encoder, generator, the fixed face codes, and the head that predicts the mouth code.

    With ``model.identity`` also an encoder of a reference frame, which tells who speaks.

    Args:
        config: of the model.
        spec: of the groups.
    """

    generator: Generator

    def __init__(self, config: ModelConfig, spec: GroupSpec) -> None:
        super().__init__(config, spec)
        self.audio_encoder = AudioEncoder(
            config.audio_features,
            spec.window(config.audio_past, config.audio_ahead)[1],
            config.audio_dim,
            spec.sample_rate,
            config.audio_dropout,
        )
        self.mouth_head = nn.Linear(config.audio_dim, spec.frames_per_group * MOUTH_DIM)
        condition = config.z_dim + config.audio_dim + spec.frames_per_group * config.pose_dim
        self.generator = Generator(
            condition + (IDENTITY_DIM if config.identity else 0),
            spec.size,
            spec.frames_per_group,
            config.width,
            gru=config.kind == "gru",
            own_features=config.frame_features == "own",
            mean_face=config.mean_face,
            start_from_mean=config.initial_state == "mean_face",
            identity=config.identity,
        )
        self.identity = None
        if config.identity:
            widths = [*self.generator.widths, FEATURES]
            self.identity = IdentityEncoder(spec.size, widths, config.mean_face)

    def forward(
        self,
        audio: Tensor,
        z: Tensor,
        pose: Tensor,
        state: Tensor | None = None,
        reference: Tensor | Identity | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Generate K contiguous groups of B sequences; the arguments are :meth:`Face.speak`'s.

        Returns:
            frames (B, K * T, 3, S, S) in (-1, 1); audio codes (B, K, audio_dim); predicted mouth
            codes (B, K, T, MOUTH_DIM).
        """
        code = self.encode(audio)
        condition = torch.cat([z, code, pose.flatten(2)], -1)
        if isinstance(reference, Identity):
            identity = reference
        else:
            identity = self.identity and self.identity(reference, len(audio))
        if self.config.carry_state:
            frames = self.generator(condition, state, identity)
        else:  # every group starts anew, whatever came before it
            identity = identity and identity.repeat(audio.shape[1])
            frames = self.generator(condition.flatten(0, 1).unsqueeze(1), None, identity)
            frames = frames.unflatten(0, audio.shape[:2]).flatten(1, 2)
        return frames, code, self.mouth(code)

    def fit(
        self, frames: Tensor, reference: Tensor | None = None, people: Tensor | None = None
    ) -> None:
        """Fit the face codes, start the mean face at the mean frame, and keep the people."""
        super().fit(frames, reference, people)
        self.generator.set_mean_face(frames.mean(0))
        if self.identity is not None and people is not None:
            self.identity.references = people

    @torch.no_grad()
    def identify(self, reference: Tensor | None) -> Identity | None:
        """What the generator is told of who speaks, see :meth:`Face.identify`."""
        if self.identity is None:
            return None
        identity: Identity = self.identity(reference, 1 if reference is None else len(reference))
        return identity

    @torch.no_grad()
    def first_state(self, identity: Identity | None) -> Tensor:
        """The state before the first group, see :meth:`Face.first_state`."""
        base = self.generator.mean_face if identity is None else identity.base
        state = self.generator.first_state(1, base)
        return super().first_state(identity) if state is None else state

    def speak(
        self,
        audio: Tensor,
        z: Tensor,
        pose: Tensor,
        state: Tensor | None = None,
        reference: Tensor | Identity | None = None,
    ) -> Tensor:
        """All frames of K groups, see :meth:`Face.speak`."""
        return self(audio, z, pose, state, reference)[0]

    def encode(self, audio: Tensor) -> Tensor:
        """Audio codes (B, K, audio_dim) of windows (B, K, L)."""
        return self.audio_encoder(audio.flatten(0, 1)).unflatten(0, audio.shape[:2])

    def mouth(self, code: Tensor) -> Tensor:
        """Mouth codes (..., T, MOUTH_DIM) predicted from audio codes (..., audio_dim)."""
        return self.mouth_head(code).unflatten(-1, (self.spec.frames_per_group, MOUTH_DIM))
