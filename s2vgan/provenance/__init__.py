"""Honest media: what tells of a video that it is made, and finding it again.

A visible label and a watermark on all frames, tags in the container, and C2PA content credentials.
"""

from s2vgan.provenance.certificate import credential
from s2vgan.provenance.credentials import Credentials, read_credentials, sign_bytes, sign_file
from s2vgan.provenance.detector import Detection, detect
from s2vgan.provenance.marker import Marker
from s2vgan.provenance.origin import Origin
from s2vgan.provenance.pattern import watermark_key
from s2vgan.provenance.report import Provenance

__all__ = [
    "Credentials",
    "Detection",
    "Marker",
    "Origin",
    "Provenance",
    "detect",
    "credential",
    "read_credentials",
    "sign_bytes",
    "sign_file",
    "watermark_key",
]
