"""The key of the watermark, and the patterns of signs that follow from it."""

import hashlib
import hmac
import os
from typing import Final

import numpy as np

from s2vgan.errors import ConfigError

KEY_VARIABLE: Final = "S2VGAN_WATERMARK_KEY"
PUBLIC_KEY: Final = "s2vgan public watermark key 1"
MIN_KEY: Final = 16  # characters of a key that is to be secret

GRID: Final = 16  # cells along each side of the picture: 256 signs, one SHA-256
SLOTS: Final = 8  # patterns that take turns
SLOT_SECONDS: Final = 0.5  # that each is shown


def watermark_key() -> str:
    """S2VGAN_WATERMARK_KEY, or the public key.

    Raises:
        ConfigError: if it is shorter than 16 characters.
    """
    key = os.environ.get(KEY_VARIABLE) or PUBLIC_KEY
    if len(key) < MIN_KEY:
        raise ConfigError(
            f"{KEY_VARIABLE}: a key of {len(key)} characters can be guessed; use {MIN_KEY} "
            "or more, for example of `openssl rand -hex 16`."
        )
    return key


def signs(key: str) -> np.ndarray:
    """The patterns of a key.

    The signs of a slot are the bits of HMAC-SHA-256 (RFC 2104) of the slot's name under the key:
    without the key they look like tosses of a fair coin, which is what the detector's
    false-alarm probability rests on.

    Returns:
        (SLOTS, GRID, GRID) float32 of -1 and 1.
    """
    digests = (
        hmac.digest(key.encode(), f"s2vgan watermark 1, slot {slot}".encode(), hashlib.sha256)
        for slot in range(SLOTS)
    )
    bits = np.unpackbits(np.frombuffer(b"".join(digests), np.uint8))
    return (2.0 * bits - 1).reshape(SLOTS, GRID, GRID).astype(np.float32)
