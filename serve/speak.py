"""POST /v1/speak: a sound file in, the talking face out."""

import asyncio
import logging
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from s2vgan.media import QUICK, StreamWriter, read_audio, video_file
from s2vgan.provenance import Origin, sign_file
from serve.batching import Session
from serve.limits import read_body
from serve.pictures import Finish, ZipWriter
from serve.problems import Refusal, described
from serve.service import Service
from serve.voices import ModelName

MEDIA = {
    "mp4": "video/mp4",
    "webm": "video/webm",
    "gif": "image/gif",
    "frames": "application/zip",
}
_SUFFIX = {"frames": "zip"}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "A WAV, FLAC, OGG, MP3 or WebM file, as it is.",
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}}
            for kind in ("audio/*", "application/octet-stream")
        },
    },
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The talking face, sent as it is made.",
        "content": {kind: _BINARY for kind in MEDIA.values()},
    },
    **described(401, "this service asks for its token: Authorization: Bearer TOKEN."),
    **described(403, "label: this service shows the label on all pictures; leave it on."),
    **described(404, "no registered model NAME; leave model out for the default."),
    **described(408, "the sound file did not arrive within 60 s; send it faster."),
    **described(413, "the sound file is larger than 64 MiB; cut it, or send FLAC or MP3."),
    **described(415, "send the sound file itself as the body, not a form."),
    **described(422, "the audio: the file is empty (0 bytes)."),
    **described(429, "too many speak already; try again in a few seconds.", retry=True),
    **described(503, "this service is about to end; try again in a moment.", retry=True),
}
_log = logging.getLogger("s2vgan.serve")

T = TypeVar("T")


def router(service: Service) -> APIRouter:
    """The endpoint."""
    routes = APIRouter()

    @routes.post(
        "/v1/speak",
        response_class=Response,
        responses=_ANSWERS,
        openapi_extra=_BODY,
        tags=["speak"],
    )
    async def speak(
        request: Request,
        seed: Annotated[int, Query(ge=0, lt=2**63, description="Of the noise.")] = 0,
        size: Annotated[
            int | None,
            Query(
                ge=1,
                le=8192,
                description="Side in pixels, a multiple of the model's; by default 4 times it.",
                examples=[256],
            ),
        ] = None,
        format: Annotated[
            Literal["mp4", "webm", "gif", "frames"],
            Query(description="`frames` is a zip of PNG files."),
        ] = "mp4",
        stream: Annotated[
            int,
            Query(
                ge=0,
                le=1,
                description="0: a complete MP4 with content credentials, when it is finished.",
            ),
        ] = 1,
        model: Annotated[
            ModelName | None,
            Query(
                description="NAME, NAME@ALIAS or NAME/VERSION of a registered model.",
                examples=["s2vgan@champion"],
            ),
        ] = None,
        label: Annotated[
            bool, Query(description="The visible label; off only where the operator allows it.")
        ] = True,
    ) -> Response:
        """Speech to the talking face, with the speech as its sound, sent as it is made."""
        if not stream and format != "mp4":
            raise Refusal(
                422, "stream: only an MP4 can be had complete; leave stream or format out."
            )
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(service.gate.enter())
            voice = await service.voices.get(model)
            spec = voice.synthesizer.spec
            finish = Finish(service, spec, size, label)
            body = await read_body(request, service.limits)
            longest = service.limits.seconds
            audio = await asyncio.to_thread(read_audio, body, spec.sample_rate, max_seconds=longest)
            del body
            await stack.enter_async_context(service.gate.turn())
            session = service.batcher.open(voice.synthesizer.stream(seed))
            stack.callback(session.close)
            session.feed(audio)
            session.end()
            work = _Work(service, session, finish, audio, voice.origin)
            if not stream:
                async with _at_most(service.limits.request_seconds):
                    return await work.complete(request)
            pieces = work.pieces(format)
            stack.push_async_callback(pieces.aclose)
            # With the first piece made, what can fail has failed while a status can still be sent.
            async with _at_most(service.limits.request_seconds):
                first = await anext(pieces)
            answer = _Streamed(first, pieces, work.headers(format), MEDIA[format])
            answer.limit, answer.held = service.limits.request_seconds, stack.pop_all()
            return answer

    return routes


class _Work:
    """The frames of one file on their way to an answer."""

    def __init__(
        self,
        service: Service,
        session: Session,
        finish: Finish,
        audio: np.ndarray,
        origin: Origin,
    ) -> None:
        self._service, self._session, self._finish = service, session, finish
        self._audio, self._origin = audio, origin
        self._began = time.perf_counter()
        self._first = 0.0  # seconds until the first frames

    async def _frames(self) -> AsyncIterator[np.ndarray]:
        """The model's frames, some at a time."""
        async for frames in self._session.frames():
            if not self._first:
                self._first = time.perf_counter() - self._began
                self._service.meters.first_frame("file", self._first)
            yield frames
        seconds = len(self._audio) / self._session.spec.sample_rate
        self._service.meters.real_time((time.perf_counter() - self._began) / seconds)

    async def pieces(self, kind: str) -> AsyncGenerator[bytes, None]:
        """Non-empty pieces of the file."""
        spec = self._session.spec
        writer = (
            ZipWriter()
            if kind == "frames"
            else StreamWriter(
                kind, spec.fps, self._audio, spec.sample_rate, self._origin.metadata()
            )
        )

        def piece(frames: np.ndarray, last: bool) -> bytes:
            written = writer.write(self._finish(frames))
            return written + writer.finish() if last else written

        async for frames in self._frames():
            if made := await asyncio.to_thread(piece, frames, self._session.over):
                yield made

    async def complete(self, request: Request) -> Response:
        """A complete MP4 with its content credentials."""
        spec = self._session.spec
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "speech.mp4"

            def signed() -> bytes:
                sign_file(path, self._origin)
                return path.read_bytes()

            with video_file(
                path,
                spec.fps,
                self._audio,
                spec.sample_rate,
                codecs=QUICK,
                metadata=self._origin.metadata(),
            ) as encoder:

                def encode(frames: np.ndarray) -> None:
                    for pixels in self._finish(frames):
                        encoder.add(pixels)

                async for frames in self._frames():
                    if await request.is_disconnected():
                        raise Refusal(408, "nobody waits for the answer any more.")
                    await _in_thread(encode, frames)
            data = await _in_thread(signed)
        return Response(data, headers=self.headers("mp4"), media_type=MEDIA["mp4"])

    def headers(self, kind: str) -> dict[str, str]:
        """Of the answer."""
        return {
            "Content-Disposition": f'inline; filename="speech.{_SUFFIX.get(kind, kind)}"',
            "Server-Timing": f"first;dur={self._first * 1000:.0f}",
        }


async def _in_thread(work: Callable[..., T], *arguments: Any) -> T:
    """Run in a thread; cancellations wait for its end, when what it works on may be closed."""
    running = asyncio.ensure_future(asyncio.to_thread(work, *arguments))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        while not running.done():  # a client may leave an answer that has just been given up
            with suppress(asyncio.CancelledError):
                await asyncio.wait([running])
        raise


@asynccontextmanager
async def _at_most(seconds: float) -> AsyncIterator[None]:
    """Give up after so many seconds.

    Raises:
        Refusal: 503.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Refusal(
            503, f"the answer took more than {seconds:g} s; send shorter speech, or ask for less."
        ) from None


class _Streamed(StreamingResponse):
    """An answer that gives back what it holds, however it ends."""

    limit: float  # seconds that it may take
    held: AsyncExitStack

    def __init__(
        self, first: bytes, rest: AsyncIterator[bytes], headers: dict[str, str], kind: str
    ) -> None:
        async def chain() -> AsyncIterator[bytes]:
            yield first
            async for piece in rest:
                yield piece

        super().__init__(chain(), headers=headers, media_type=kind)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; the connection is cut where that takes too long."""
        async with self.held:
            try:
                async with asyncio.timeout(self.limit):
                    await super().__call__(scope, receive, send)
            except TimeoutError:
                request_id = scope["state"]["request_id"]
                _log.warning("answer took too long", extra={"fields": {"id": request_id}})
