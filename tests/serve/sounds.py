"""Sound files and clients for the tests of the service."""

import io
from typing import Any

import av
import httpx
import numpy as np

from serve.limits import Limits
from serve.service import Service
from serve.voices import Voice, Voices

RATE = 16000


def service_of(voice: Voice, limits: Limits | None = None, **fields: Any) -> Service:
    """A service around one loaded model."""
    return Service(Voices(voice.reference, None, voice), limits or Limits(), **fields)


def sound(seconds: float, kind: str = "wav", codec: str = "pcm_s16le", rate: int = RATE) -> bytes:
    """A tone as the bytes of a sound file."""
    file = io.BytesIO()
    with av.open(file, "w", format=kind) as output:
        stream: Any = output.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            (tone(seconds, rate) * 32767).astype(np.int16)[None], format="s16", layout="mono"
        )
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            output.mux(packet)
    return file.getvalue()


def opened(movie: bytes) -> Any:
    """A movie, to be decoded."""
    return av.open(io.BytesIO(movie))


def refusal(answer: httpx.Response) -> str:
    """The sentence of a problem, its form checked."""
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status_code and problem["title"]
    return str(problem["detail"])


def tone(seconds: float, rate: int = RATE) -> np.ndarray:
    """(n,) float32 of a tone in [-0.3, 0.3]."""
    return (0.3 * np.sin(2 * np.pi * 220 * np.arange(round(seconds * rate)) / rate)).astype(
        np.float32
    )
