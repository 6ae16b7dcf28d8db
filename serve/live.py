"""WS /v1/stream: speech in as it is spoken, frames out as they are made."""

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import TypeVar

import numpy as np
from fastapi import APIRouter, WebSocket
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.websockets import WebSocketDisconnect

from serve.access import bearer
from serve.batching import Session
from serve.pictures import Finish, live_message
from serve.problems import Refusal, problem
from serve.service import Service
from serve.voices import ModelName

MAX_MESSAGE = 1 << 20  # bytes
MAX_BEHIND = 5.0  # seconds of speech that may wait to be shown; beyond, the client has to wait
_CLOSE = {401: 1008, 408: 1008, 413: 1009, 429: 1013, 500: 1011, 503: 1013}  # RFC 6455, 7.4.1
_POLICY = 1008
_LAST_WORDS = 5.0  # seconds that a client is given to be told why it is left
_log = logging.getLogger("s2vgan.serve")


class Hello(BaseModel):
    """The first message of a client.

    Attributes:
        seed: of the noise.
        size: side of the pictures in pixels, a multiple of the model's; by default 4 times it.
        token: where the service asks for one.
        model: NAME, NAME@ALIAS or NAME/VERSION of a registered model.
        label: the visible label; off only where the operator allows it.
    """

    model_config = ConfigDict(extra="forbid")

    seed: int = Field(0, ge=0, lt=2**63)
    size: int | None = Field(None, ge=1, le=8192)
    token: str | None = Field(None, max_length=1024)
    model: ModelName | None = None
    label: bool = True


_Message = TypeVar("_Message", bound=BaseModel)


class End(BaseModel):
    """The last message of a client, ``{"end": true}``: what is left is made, and sent."""

    model_config = ConfigDict(extra="forbid")

    end: bool


def router(service: Service) -> APIRouter:
    """The endpoint."""
    routes = APIRouter()

    @routes.websocket("/v1/stream")
    async def stream(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            await _serve(service, websocket)
        except WebSocketDisconnect:
            pass  # it has left, and what it held is given back
        except Refusal as refusal:
            await _refuse(websocket, refusal)
        except Exception:
            _log.exception("a stream failed")
            await _refuse(
                websocket, Refusal(500, "the service failed on this stream; see its log.")
            )

    return routes


async def _serve(service: Service, websocket: WebSocket) -> None:
    limits = service.limits
    async with service.gate.enter():
        hello = await _hello(websocket, limits.idle)
        token = hello.token if hello.token is not None else bearer(websocket.headers)
        if not service.access.allows(token):
            raise Refusal(401, 'this service asks for its token: {"token": "TOKEN"} first.')
        voice = await service.voices.get(hello.model)
        spec = voice.synthesizer.spec
        finish = Finish(service, spec, hello.size, hello.label)
        async with service.gate.turn():
            session = service.batcher.open(voice.synthesizer.stream(hello.seed), live=True)
            ahead = voice.synthesizer.config.model.audio_ahead
            line = _Line(service, websocket, session, finish, spec.window(0, ahead)[1])
            try:
                await websocket.send_json(
                    {
                        "ready": True,
                        "model": voice.reference,
                        "sample_rate": spec.sample_rate,
                        "fps": spec.fps,
                        "frames_per_group": spec.frames_per_group,
                        "size": finish.size,
                        "delay": ahead,
                    }
                )
                await _both(line.listen(), line.tell())
            finally:
                session.close()
        await websocket.send_json({"end": True, "groups": line.told})
        await websocket.close()


class _Line:
    """One client's line: speech comes in on it, frames go out.

    Args:
        needed: samples that the first group needs.
    """

    def __init__(
        self,
        service: Service,
        websocket: WebSocket,
        session: Session,
        finish: Finish,
        needed: int,
    ) -> None:
        self._limits, self._meters = service.limits, service.meters
        self._websocket, self._session, self._finish = websocket, session, finish
        self._odd = b""  # half a sample
        self._samples, self._needed = 0, needed
        self._needed_at: float | None = None  # when the speech of the first group was there
        self.told = 0  # groups

    async def listen(self) -> None:
        """Take speech until the client says that it ends."""
        while True:
            message = await _receive(self._websocket, self._limits.idle)
            if isinstance(message, str):
                if not _parse(End, message).end:
                    raise Refusal(422, 'the last message is {"end": true}.')
                return self._session.end()
            self._hear(message)
            while self._session.behind > MAX_BEHIND:  # meanwhile the network holds the client back
                await asyncio.sleep(0.02)

    def _hear(self, data: bytes) -> None:
        data = self._odd + data
        whole = len(data) // 2 * 2
        self._odd = data[whole:]
        samples = np.frombuffer(data[:whole], "<i2").astype(np.float32) / 32768
        self._samples += len(samples)
        rate = self._session.spec.sample_rate
        if self._samples > self._limits.seconds * rate:
            raise Refusal(
                413, f"a stream holds {self._limits.seconds:g} s of speech; connect anew."
            )
        self._session.feed(samples)
        if self._needed_at is None and self._samples >= self._needed:
            self._needed_at = time.perf_counter()

    async def tell(self) -> None:
        """Send the groups as they are made, to the end."""
        spec = self._session.spec
        async for frames in self._session.frames():
            for start in range(0, len(frames), spec.frames_per_group):
                group = frames[start : start + spec.frames_per_group]
                message = await asyncio.to_thread(self._packed, group)
                if not self.told and self._needed_at is not None:
                    self._meters.first_frame("live", time.perf_counter() - self._needed_at)
                self.told += 1
                try:
                    async with asyncio.timeout(self._limits.idle):
                        await self._websocket.send_bytes(message)
                except TimeoutError:  # nothing more can be said to it
                    raise WebSocketDisconnect(_POLICY, "the client does not read") from None

    def _packed(self, group: np.ndarray) -> bytes:
        spec = self._session.spec
        seconds = self.told * spec.frames_per_group / spec.fps
        return live_message(self.told, seconds, self._finish(group))


async def _hello(websocket: WebSocket, seconds: float) -> Hello:
    message = await _receive(websocket, seconds)
    if not isinstance(message, str):
        raise Refusal(422, 'the first message is JSON, for example {"seed": 0}; then comes sound.')
    return _parse(Hello, message)


async def _receive(websocket: WebSocket, seconds: float) -> str | bytes:
    """The next message.

    Raises:
        Refusal: 408 if none comes in time, 413 if it is too large.
        WebSocketDisconnect: if the client has left.
    """
    try:
        async with asyncio.timeout(seconds):
            message = await websocket.receive()
    except TimeoutError:
        raise Refusal(408, f"nothing came for {seconds:g} s; connect anew to go on.") from None
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    text, data = message.get("text"), message.get("bytes")
    content: str | bytes = text if text is not None else data or b""
    if len(content) > MAX_MESSAGE:
        raise Refusal(413, f"a message is larger than {MAX_MESSAGE >> 20} MiB; send smaller ones.")
    return content


def _parse(kind: type[_Message], message: str) -> _Message:
    try:
        return kind.model_validate_json(message)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "message"
        raise Refusal(422, f"{where}: {first['msg']}.") from None


async def _both(*ways: Coroutine[None, None, None]) -> None:
    """Run both ways of a line to their end, or until one of them fails."""
    tasks = [asyncio.create_task(way) for way in ways]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        while done:
            done.pop().result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # A failure holds this frame, and must not be held by it: what the line has in memory would
        # wait for the collector of cycles, which comes after hundreds of lines.
        del task, tasks


async def _refuse(websocket: WebSocket, refusal: Refusal) -> None:
    """Say why, and hang up; the client may be gone already."""
    try:
        async with asyncio.timeout(_LAST_WORDS):
            await websocket.send_json(problem(refusal.status_code, str(refusal.detail)))
            await websocket.close(_CLOSE.get(refusal.status_code, _POLICY))
    except (TimeoutError, WebSocketDisconnect, RuntimeError):
        _log.info("a client left before it was told why", extra={"fields": {"why": refusal.detail}})
