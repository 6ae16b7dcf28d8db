"""The networks: audio encoder, generator and discriminator with their ConvGRU, and face codes."""

from s2vgan.models.audio_encoder import AudioEncoder
from s2vgan.models.conv_gru import ConvGRUCell
from s2vgan.models.discriminator import SequenceDiscriminator
from s2vgan.models.face_codes import MOUTH_DIM, FaceCodes
from s2vgan.models.generator import Generator
from s2vgan.models.talking_face import TalkingFace, build_discriminator

__all__ = [
    "MOUTH_DIM",
    "AudioEncoder",
    "ConvGRUCell",
    "FaceCodes",
    "Generator",
    "SequenceDiscriminator",
    "TalkingFace",
    "build_discriminator",
]
