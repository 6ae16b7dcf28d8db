"""Clients that are gone, at every moment: nothing is kept for them, and nothing more is made."""

import asyncio
import re
import threading
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from starlette.requests import ClientDisconnect

from s2vgan.media import video_file
from s2vgan.media.encode import Encoder
from serve import batching
from serve.api import build
from serve.limits import Limits
from serve.service import Service
from serve.voices import Voice
from tests.hostile import resident
from tests.serve.sounds import service_of, sound, tone

Message = MutableMapping[str, Any]
VANISHED = 1000  # clients
GROWTH = 20 << 20  # bytes


class Client:
    """The other side of an ASGI application, which leaves in the middle.

    Args:
        kind: ``http`` or ``websocket``.
        says: messages that it sends before it leaves.
        hears: messages of the application that it takes before it leaves.
        way: ``word``: the application is told; ``fail``: writing to it fails as well; ``cancel``:
            the server cancels the request, as Ray Serve does.
    """

    def __init__(self, kind: str, says: Sequence[Message], hears: int, way: str) -> None:
        self._kind, self._says = kind, list(says)
        self._hears, self._way = hears, way
        self.heard: list[Message] = []
        self._left = asyncio.Event()
        self._look()

    def _look(self) -> None:
        if not self._says and len(self.heard) >= self._hears:
            self._left.set()

    async def _receive(self) -> Message:
        if self._says:
            said = self._says.pop(0)
            self._look()
            return said
        await self._left.wait()
        if self._way == "cancel":
            await asyncio.Event().wait()
        return {"type": f"{self._kind}.disconnect", "code": 1006}

    async def _send(self, message: Message) -> None:
        if not self._left.is_set():
            self.heard.append(message)
            self._look()
        elif self._way == "fail":
            raise OSError("nobody is there")

    async def ask(self, api: FastAPI, query: str = "size=32") -> None:
        """Ask the application, until it has done with this client."""
        file = self._kind == "http"
        scope = {
            "type": self._kind,
            "asgi": {"version": "3.0", "spec_version": "2.4" if self._way == "fail" else "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http" if file else "ws",
            "path": "/v1/speak" if file else "/v1/stream",
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(b"host", b"testserver")],
            "subprotocols": [],
            "state": {},
        }
        served = asyncio.ensure_future(api(scope, self._receive, self._send))
        if self._way == "cancel":
            left = asyncio.create_task(self._left.wait())
            await asyncio.wait([served, left], return_when=asyncio.FIRST_COMPLETED)
            left.cancel()
            served.cancel()
        with suppress(asyncio.CancelledError, ClientDisconnect, OSError):
            await served


SPEECH = sound(0.25)
FILE: list[Message] = [
    {"type": "http.request", "body": part, "more_body": more}
    for part, more in ((SPEECH[:100], True), (SPEECH[100:5000], True), (SPEECH[5000:], False))
]
LIVE: list[Message] = [
    {"type": "websocket.connect"},
    {"type": "websocket.receive", "text": '{"size": 32}'},
    {"type": "websocket.receive", "bytes": (tone(0.25) * 32767).astype("<i2").tobytes()},
    {"type": "websocket.receive", "text": '{"end": true}'},
]
# What has been said and heard when it leaves.
MOMENTS = [
    *(("http", FILE[:count], 0) for count in range(4)),
    *(("http", FILE, hears) for hears in (1, 2)),  # the head, and the first piece
    *(("websocket", LIVE[:count], 0) for count in range(1, 5)),
    *(("websocket", LIVE[:count], 1) for count in range(2, 5)),  # accepted
    *(("websocket", LIVE[:count], 2) for count in range(2, 5)),  # ready
    *(("websocket", LIVE[:count], 3) for count in range(3, 5)),  # the first frames
]
WAYS = ("word", "fail", "cancel")


async def empty(service: Service) -> None:
    """Wait until the service holds nothing, and nothing runs in it."""
    for _ in range(1000):
        held = service.gate.inside or service.gate.speaking or service.batcher._sessions
        if not held and asyncio.all_tasks() == {asyncio.current_task()}:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"still there: {asyncio.all_tasks()}, {service.batcher._sessions}")


def test_a_thousand_clients_that_vanish_leave_nothing(voice: Voice) -> None:
    service = service_of(voice, Limits(window=1))  # a second group waits for word of the first
    api = build(service)
    clients = cycle([(*moment, way) for way in WAYS for moment in MOMENTS])

    async def vanish(count: int) -> int:
        """Memory after so many more clients, in bytes."""
        for _ in range(count // 4):
            await asyncio.gather(*(Client(*next(clients)).ask(api) for _ in range(4)))
        await empty(service)
        return resident()

    async def run() -> None:
        before = await vanish(200)
        assert await vanish(VANISHED) - before < GROWTH
        stays = Client("http", FILE, 1000, "word")
        asking = asyncio.create_task(stays.ask(api))
        while not (stays.heard and stays.heard[-1].get("more_body") is False):
            await asyncio.sleep(0.02)
        await asking
        assert stays.heard[0]["status"] == 200

    asyncio.run(run())
    page = service.meters.page(0, 0).decode()
    assert 'status="408"' in page and not re.search(r'status="5\d\d"', page)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_what_nobody_waits_for_is_not_made(
    kind: str, way: str, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client leaves a file of 600 groups, or a stream of 50, at the first of them."""
    service = service_of(voice, Limits(idle=60))
    api = build(service)
    made = 0
    real = batching.advance

    def count(*args: Any) -> list[np.ndarray]:
        nonlocal made
        frames = real(*args)
        made += sum(map(len, frames)) // 3
        return frames

    monkeypatch.setattr(batching, "advance", count)
    file = {"type": "http.request", "body": sound(60, "flac", "flac"), "more_body": False}
    speech = {"type": "websocket.receive", "bytes": (tone(5) * 32767).astype("<i2").tobytes()}

    async def run() -> None:
        says, hears = ([file], 2) if kind == "http" else ([*LIVE[:2], speech], 3)
        await Client(kind, says, hears, way).ask(api)
        await empty(service)

    asyncio.run(run())
    assert 0 < made < (150 if kind == "http" else 25)


def test_a_complete_film_is_left_only_when_its_thread_has_ended(
    voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that is closed while a thread writes to it takes the process with it."""
    service = service_of(voice)
    api = build(service)
    encoding, go_on = threading.Event(), threading.Event()
    order: list[str] = []
    real = Encoder.add

    def add(encoder: Encoder, pixels: np.ndarray) -> None:
        encoding.set()
        go_on.wait(60)
        real(encoder, pixels)
        order.append("added")

    @contextmanager
    def film(*args: Any, **options: Any) -> Iterator[Encoder]:
        with video_file(*args, **options) as encoder:
            try:
                yield encoder
            finally:
                order.append("left")

    monkeypatch.setattr(Encoder, "add", add)
    monkeypatch.setattr("serve.speak.video_file", film)

    async def run() -> None:
        client = Client("http", FILE, 1000, "word")
        asking = asyncio.create_task(client.ask(api, "size=32&stream=0"))
        await asyncio.to_thread(encoding.wait, 60)
        for _ in range(2):  # by a limit, say, and by the client
            asking.cancel()
            await asyncio.sleep(0.1)
            assert not order
        go_on.set()
        await asking
        assert order[-1] == "left" and "added" in order
        await empty(service)

    asyncio.run(run())


def test_a_film_that_is_signed_keeps_its_folder(
    voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = build(service_of(voice))
    signing, go_on = threading.Event(), threading.Event()
    there: list[bool] = []

    def sign(path: Path, _: Any) -> None:
        signing.set()
        go_on.wait(60)
        there.append(path.is_file())

    monkeypatch.setattr("serve.speak.sign_file", sign)

    async def run() -> None:
        client = Client("http", FILE, 1000, "word")
        asking = asyncio.create_task(client.ask(api, "size=32&stream=0"))
        await asyncio.to_thread(signing.wait, 60)
        asking.cancel()  # by the limit of time, say
        await asyncio.sleep(0.1)
        go_on.set()
        await asking

    asyncio.run(run())
    assert there == [True]
