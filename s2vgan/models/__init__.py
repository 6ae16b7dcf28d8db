"""The networks: audio encoder, generator and discriminator with their ConvGRU, and face codes."""

from s2vgan.models.audio_encoder import AudioEncoder
from s2vgan.models.build import build_discriminator, build_face
from s2vgan.models.conv_gru import ConvGRUCell
from s2vgan.models.discriminator import Discriminator, SequenceDiscriminator
from s2vgan.models.face import Face
from s2vgan.models.face_codes import MOUTH_DIM, FaceCodes, find_reference
from s2vgan.models.generator import Generator
from s2vgan.models.identity import Identity
from s2vgan.models.talking_face import TalkingFace
from s2vgan.models.wav2pix import Wav2Pix

__all__ = [
    "MOUTH_DIM",
    "AudioEncoder",
    "ConvGRUCell",
    "Discriminator",
    "Face",
    "FaceCodes",
    "Generator",
    "Identity",
    "SequenceDiscriminator",
    "TalkingFace",
    "Wav2Pix",
    "build_discriminator",
    "build_face",
    "find_reference",
]
