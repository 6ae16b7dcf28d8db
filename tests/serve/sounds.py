"""Sound files and clients for the tests of the service."""

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import av
import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI

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


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def served(api: FastAPI) -> Iterator[str]:
    """An application behind a real socket; gives ``127.0.0.1:PORT``."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(api, "127.0.0.1", port, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server ended by itself"
            time.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)


def soon(condition: Callable[[], bool], seconds: float = 20) -> bool:
    """Whether something comes true in time."""
    end = time.monotonic() + seconds
    while not (done := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return done
