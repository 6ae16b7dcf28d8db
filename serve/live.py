"""WS /v1/stream: speech in as it is spoken, frames out as they are made.

A proxy in between may take all that there is, both ways, so that the network holds nobody back. The
protocol does: a client is sent so many groups beyond those that it says it has, and may speak so
far ahead of them.
"""

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import NoReturn

import numpy as np
from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from serve.access import bearer
from serve.batching import Session
from serve.messages import Hello, Word, parse, receive
from serve.pictures import Finish, live_message
from serve.problems import Refusal, problem
from serve.service import Service

_CLOSE = {401: 1008, 408: 1008, 413: 1009, 429: 1013, 500: 1011, 503: 1013}  # RFC 6455, 7.4.1
_POLICY = 1008
_LAST_WORDS = 5.0  # seconds that a client is given to be told why it is left
_log = logging.getLogger("s2vgan.serve")


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
    async with service.gate.greeting():
        hello = await _hello(websocket)
    token = hello.token if hello.token is not None else bearer(websocket.headers)
    if not service.access.allows(token):
        raise Refusal(401, 'this service asks for its token: {"token": "TOKEN"} first.')
    async with service.gate.enter():
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
                        "window": service.limits.window,
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
        self._shown = self.told = 0  # groups that the client says it has, and those sent to it
        self._room = asyncio.Semaphore(service.limits.window)  # for groups to be sent

    async def listen(self) -> NoReturn:
        """Take speech to its end, and what the client says of its groups to the last of them.

        Raises:
            Refusal: of what it says, or 408 if its speech falls far behind real time.
            WebSocketDisconnect: if it has left.
        """
        began = asyncio.get_running_loop().time()
        while (speech := await self._speech_since(began)) is not None:
            self._hear(speech)
        self._session.end()
        await self._speech()
        raise Refusal(422, 'nothing but {"shown": N} may follow {"end": true}.')

    async def _speech_since(self, began: float) -> bytes | None:
        """The same as :meth:`_speech`, as long as the speech is not far behind the time."""
        heard, idle = self._samples / self._session.spec.sample_rate, self._limits.idle
        try:
            async with asyncio.timeout_at(began + heard + idle):
                return await self._speech()
        except TimeoutError:
            raise Refusal(
                408,
                f"the speech is {idle:g} s behind real time; send it as it is spoken, silence as "
                'zeros, and {"end": true} after it.',
            ) from None

    async def _speech(self) -> bytes | None:
        """The next piece of speech, None at its end; groups shown are counted meanwhile."""
        while isinstance(message := await receive(self._websocket), str):
            word = parse(Word, message)
            if word.shown is not None:
                self._count(word.shown)
            if word.end:
                return None
            if word.shown is None:
                raise Refusal(422, 'say {"shown": N} or, after all speech, {"end": true}.')
        return message

    def _count(self, shown: int) -> None:
        if not self._shown <= shown <= self.told:
            raise Refusal(
                422,
                f"shown: {shown} is none of {self._shown} to {self.told}; count the groups that "
                "have come.",
            )
        for _ in range(shown - self._shown):
            self._room.release()
        self._shown = shown

    def _hear(self, data: bytes) -> None:
        data = self._odd + data
        whole = len(data) // 2 * 2
        self._odd = data[whole:]
        samples = np.frombuffer(data[:whole], "<i2").astype(np.float32) / 32768
        self._samples += len(samples)
        spec, limits = self._session.spec, self._limits
        if self._samples > limits.seconds * spec.sample_rate:
            raise Refusal(413, f"a stream holds {limits.seconds:g} s of speech; connect anew.")
        waiting = self._samples - self.told * spec.samples_per_group
        if waiting > limits.behind * spec.sample_rate:
            raise Refusal(
                429,
                f"more than {limits.behind:g} s of speech wait for their groups; send it as it is "
                "spoken, or wait for groups meanwhile, or send a file to POST /v1/speak.",
            )
        self._session.feed(samples)
        if self._needed_at is None and self._samples >= self._needed:
            self._needed_at = time.perf_counter()

    async def tell(self) -> None:
        """Send the groups as they are made, to the end.

        Raises:
            Refusal: 408 if the client does not take them.
        """
        spec = self._session.spec
        async for frames in self._session.frames():
            for start in range(0, len(frames), spec.frames_per_group):
                group = frames[start : start + spec.frames_per_group]
                message = await asyncio.to_thread(self._packed, group)
                if not self.told and self._needed_at is not None:
                    self._meters.first_frame("live", time.perf_counter() - self._needed_at)
                await self._send(message)

    async def _send(self, group: bytes) -> None:
        """Send a group as soon as there is room for it, in the window and in the network."""
        try:
            async with asyncio.timeout(self._limits.idle):
                await self._room.acquire()
                self.told += 1
                await self._websocket.send_bytes(group)
        except TimeoutError:
            raise Refusal(
                408,
                f"{self.told - self._shown} groups were sent, and for {self._limits.idle:g} s none "
                'was said to have come; read them, and say so now and then: {"shown": N}.',
            ) from None

    def _packed(self, group: np.ndarray) -> bytes:
        spec = self._session.spec
        seconds = self.told * spec.frames_per_group / spec.fps
        return live_message(self.told, seconds, self._finish(group))


async def _hello(websocket: WebSocket) -> Hello:
    message = await receive(websocket)
    if not isinstance(message, str):
        raise Refusal(422, 'the first message is JSON, for example {"seed": 0}; then comes sound.')
    return parse(Hello, message)


async def _both(*ways: Coroutine[None, None, None]) -> None:
    """Run both ways of a line until one of them has ended, or fails."""
    tasks = [asyncio.create_task(way) for way in ways]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
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
