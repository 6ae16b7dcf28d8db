"""The networks that a configuration asks for: the one place that knows the kinds of model."""

from s2vgan.config import ModelConfig
from s2vgan.models.discriminator import Discriminator, SequenceDiscriminator
from s2vgan.models.face import Face
from s2vgan.models.talking_face import TalkingFace
from s2vgan.models.wav2pix import Wav2Pix, Wav2PixDiscriminator
from s2vgan.spec import GroupSpec


def build_face(config: ModelConfig, spec: GroupSpec) -> Face:
    """The generator side.

    Raises:
        ConfigError: if no network can be made for the size of the frames.
    """
    return Wav2Pix(config, spec) if config.kind == "wav2pix" else TalkingFace(config, spec)


def build_discriminator(config: ModelConfig, spec: GroupSpec) -> Discriminator:
    """The discriminator."""
    if config.kind == "wav2pix":
        return Wav2PixDiscriminator(spec.size, config.audio_dim, config.width)
    return SequenceDiscriminator(
        spec.size,
        config.audio_dim,
        spec.frames_per_group,
        config.width,
        gru=config.kind == "gru",
        gru_after=config.discriminator_gru_after,
        state=config.discriminator_state,
        spectral=config.spectral_norm,
    )
