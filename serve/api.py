"""The HTTP interface: one FastAPI application around one loaded model. No Ray."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException as StarletteHTTPException

from s2vgan import __version__, tracking
from s2vgan.errors import SourceError
from s2vgan.media import encode_fragmented, read_audio
from s2vgan.synthesis import Synthesizer, enlarge

MAX_BODY = 64 << 20  # bytes of one request's sound file
MAX_SECONDS = 600.0  # of its sound: a small file can hold hours
SCALE = 4  # of the movie's pictures: players would show a face of 64 pixels as a stamp

_PAGE = Path(__file__).parent / "static" / "index.html"
_BLOCK_SECONDS = 1.0  # of speech pushed at once: the first picture leaves after as much

_SPEAK_DOCS: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A WAV, FLAC, OGG or MP3 file, as it is.",
        "content": {"audio/*": {"schema": {"type": "string", "format": "binary"}}},
    },
}
_PROBLEM: dict[str, Any] = {
    "content": {
        "application/problem+json": {
            "schema": {
                "type": "object",
                "properties": {
                    "title": {"type": "string"},
                    "status": {"type": "integer"},
                    "detail": {"type": "string", "description": "What to do."},
                },
            }
        }
    }
}


@dataclass(frozen=True)
class Voice:
    """A loaded model and where it came from.

    Attributes:
        synthesizer: speaks.
        reference: such as ``models:/s2vgan/3`` or the run's folder.
    """

    synthesizer: Synthesizer
    reference: str

    @classmethod
    def load(cls, ref: str, uri: str | None = None) -> "Voice":
        """Fetch and load a model, and let it speak once: the first time costs more.

        Raises:
            RunError: if there is no such model.
        """
        exact = tracking.resolve(ref, uri)
        synthesizer = Synthesizer.load(tracking.fetch_model(exact, uri))
        synthesizer.speak(np.zeros(synthesizer.spec.sample_rate, np.float32))
        return cls(synthesizer, exact)

    def card(self) -> dict[str, Any]:
        """What ``/v1/model`` says."""
        manifest = self.synthesizer.manifest
        registered = self.reference.startswith("models:/")
        name, _, version = self.reference.removeprefix("models:/").partition("/")
        return {
            "name": name if registered else manifest["name"],
            "version": version if registered else None,
            "reference": self.reference,
            "spec": self.synthesizer.spec.to_dict(),
            "mlflow_run": manifest["mlflow_run"] or None,
            "dataset": manifest["dataset"],
            "sha256": manifest["files"]["model.safetensors"],
            "kind": self.synthesizer.config.model.kind,
            "step": manifest["step"],
            "created": manifest["created"],
        }

    def movie(self, audio: np.ndarray, seed: int) -> Iterator[bytes]:
        """Pieces of a fragmented MP4, its frames ``SCALE`` times as large as the model's.

        Frames are made as fast as the pieces are taken.

        Args:
            audio: (n,) float32 mono in [-1, 1] at the spec's sample rate.
            seed: of the noise.
        """
        spec = self.synthesizer.spec

        def frames() -> Iterator[np.ndarray]:
            stream = self.synthesizer.stream(seed)
            block = round(_BLOCK_SECONDS * spec.sample_rate)
            for start in range(0, len(audio), block):
                yield from stream.push(audio[start : start + block])
            yield from stream.finish()

        large = enlarge(frames(), SCALE)
        return encode_fragmented(large, spec.fps, audio, spec.sample_rate)


def build(voice: Voice, max_body: int = MAX_BODY, max_seconds: float = MAX_SECONDS) -> FastAPI:
    """The application; every error answers with an RFC 9457 problem that says what to do.

    Args:
        voice: the model that speaks.
        max_body: largest sound file in bytes.
        max_seconds: longest speech.
    """
    api = FastAPI(
        title="S2V-GAN",
        version=__version__,
        description="Speech in, the talking face out.",
        responses={"4XX": _PROBLEM},
    )
    api.add_exception_handler(SourceError, _unreadable)
    api.add_exception_handler(StarletteHTTPException, _refused)
    api.add_exception_handler(RequestValidationError, _invalid)
    api.add_exception_handler(Exception, _failed)

    @api.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(_PAGE)

    @api.get("/healthz")
    def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @api.get("/readyz")
    def readyz() -> dict[str, str]:
        """A model is loaded and has spoken once (before that, nothing answers here)."""
        return {"status": "ready", "model": voice.reference}

    @api.get("/v1/model")
    def model() -> dict[str, Any]:
        """The model that speaks: name, version, spec, and what it was made from."""
        return voice.card()

    @api.post(
        "/v1/speak",
        response_class=StreamingResponse,
        responses={200: {"content": {"video/mp4": {}}, "description": "A fragmented MP4."}},
        openapi_extra=_SPEAK_DOCS,
    )
    async def speak(
        request: Request, seed: Annotated[int, Query(ge=0, lt=2**63)] = 0
    ) -> StreamingResponse:
        """Speech to the talking face, H.264 with the speech as its sound, sent as it is made."""
        body = await _body(request, max_body)
        began = time.perf_counter()
        rate = voice.synthesizer.spec.sample_rate
        audio = await run_in_threadpool(read_audio, body, rate, max_seconds=max_seconds)
        pieces = voice.movie(audio, seed)
        # With the first piece made, what can fail has failed while a status can still be sent.
        first = await run_in_threadpool(next, pieces)
        headers = {
            "Content-Disposition": 'inline; filename="speech.mp4"',
            "Server-Timing": f"first;dur={(time.perf_counter() - began) * 1000:.0f}",
        }
        return StreamingResponse(_chain(first, pieces), media_type="video/mp4", headers=headers)

    return api


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


async def _body(request: Request, limit: int) -> bytes:
    """The request's body, refused as soon as it is known to be too large."""
    # Only a multipart body is surely a form: curl --data-binary calls any file urlencoded.
    if request.headers.get("content-type", "").startswith("multipart/"):
        raise HTTPException(
            415,
            "send the sound file itself as the body, not a form: curl --data-binary @in.wav URL.",
        )
    too_large = HTTPException(
        413, f"the sound file is larger than {limit >> 20} MiB; cut it, or send it as FLAC or MP3."
    )
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)


def _problem(status: int, detail: str) -> JSONResponse:
    content = {"title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    return JSONResponse(content, status, media_type="application/problem+json")


async def _unreadable(_: Request, error: Exception) -> JSONResponse:
    return _problem(422, str(error))


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StarletteHTTPException)
    detail = str(error.detail)
    if error.status_code == 404:
        detail = f"nothing at {request.url.path}; /docs lists what there is."
    return _problem(error.status_code, detail)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return _problem(422, f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}.")


async def _failed(_: Request, error: Exception) -> JSONResponse:
    return _problem(500, "the service failed on this request; its log says why.")
