"""What one client may take, so that there is something left for the others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from fastapi import Request
from starlette.requests import ClientDisconnect

from serve.problems import Refusal


@dataclass(frozen=True)
class Limits:
    """Limits of one replica. Times are in seconds.

    Attributes:
        body: bytes of a sound file, at most.
        seconds: of speech of one request, and of one live stream.
        body_seconds: for a body to arrive.
        hello_seconds: for the first message of a live client.
        idle: until a client that is expected to send or to read, and does not, is left; a live
            one also when its speech is so far behind real time.
        window: groups that a live client is sent beyond those that it says it has.
        behind: seconds of a live stream's speech that may wait for their groups.
        request_seconds: for an answer, from the moment at which the body is there.
        speakers: requests and live streams that are served at a time.
        waiting: requests that may wait for their turn; one more is refused at once.
        queue_seconds: that a request waits for its turn.
    """

    body: int = 64 << 20
    seconds: float = 600.0  # a small file can hold hours
    body_seconds: float = 60.0
    hello_seconds: float = 5.0
    idle: float = 20.0
    window: int = 200
    behind: float = 60.0  # one message holds up to 33 s
    request_seconds: float = 300.0
    speakers: int = 16
    waiting: int = 16
    queue_seconds: float = 30.0


class Gate:
    """Lets so many speak at a time, so many wait, and sends the rest away at once.

    Attributes:
        speaking: those who have their turn.
        inside: these, and those who are still sending or wait.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._turns = asyncio.Semaphore(limits.speakers)
        self._empty = asyncio.Event()
        self._empty.set()
        self._draining = False
        self._silent: list[asyncio.Timeout] = []  # of newcomers, the first to come first
        self.inside = self.speaking = 0

    @property
    def draining(self) -> bool:
        """Whether nobody is let in any more."""
        return self._draining

    @asynccontextmanager
    async def greeting(self) -> AsyncIterator[None]:
        """The time that a newcomer has to say who it is, without a place in the service.

        As many as there are places may be silent. One more sends away the one that has been silent
        longest: strangers who say nothing keep nobody out who speaks at once.

        Raises:
            Refusal: 503 while draining, 408 if nothing is said in time.
        """
        self._require_open()
        if len(self._silent) >= self._places:
            longest = self._silent.pop(0)
            if not longest.expired():
                longest.reschedule(0)
        try:
            async with asyncio.timeout(self._limits.hello_seconds) as silence:
                self._silent.append(silence)
                try:
                    yield
                finally:
                    with suppress(ValueError):  # it was sent away
                        self._silent.remove(silence)
        except TimeoutError:
            raise Refusal(
                408,
                f"no first message came for {self._limits.hello_seconds:g} s, or others came "
                "meanwhile; connect anew and say it at once.",
            ) from None

    @asynccontextmanager
    async def enter(self) -> AsyncIterator[None]:
        """A place in the service, for as long as a request lasts.

        Raises:
            Refusal: 503 while draining, 429 if it is full.
        """
        self._require_open()
        if self.inside >= self._places:
            raise Refusal(429, "too many speak already; try again in a few seconds.", 5)
        self.inside += 1
        self._empty.clear()
        try:
            yield
        finally:
            self.inside -= 1
            if not self.inside:
                self._empty.set()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """The turn to speak; to be asked for inside of :meth:`enter`.

        Raises:
            Refusal: 429 if it does not come in time.
        """
        try:
            async with asyncio.timeout(self._limits.queue_seconds):
                await self._turns.acquire()
        except TimeoutError:
            raise Refusal(429, "others spoke all the time; try again later.", 10) from None
        self.speaking += 1
        try:
            yield
        finally:
            self.speaking -= 1
            self._turns.release()

    async def drain(self) -> None:
        """Let nobody in any more, and wait until all have left."""
        self._draining = True
        await self._empty.wait()

    @property
    def _places(self) -> int:
        return self._limits.speakers + self._limits.waiting

    def _require_open(self) -> None:
        if self._draining:
            raise Refusal(503, "this service is about to end; try again in a moment.", 5)


async def read_body(request: Request, limits: Limits) -> bytes:
    """The request's body, refused as soon as it is known to be too large or too slow.

    Raises:
        Refusal: 413, 415 for a form, or 408.
    """
    # Only a multipart body is surely a form: curl --data-binary calls any file urlencoded.
    if request.headers.get("content-type", "").startswith("multipart/"):
        raise Refusal(
            415,
            "send the sound file itself as the body, not a form: curl --data-binary @in.wav URL.",
        )
    too_large = Refusal(
        413,
        f"the sound file is larger than {limits.body >> 20} MiB; cut it, or send FLAC or MP3.",
    )
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limits.body:
        raise too_large
    body = bytearray()
    chunks = request.stream()
    try:
        async with asyncio.timeout(limits.body_seconds):
            while True:
                async with asyncio.timeout(limits.idle):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    return bytes(body)
                body += chunk
                if len(body) > limits.body:
                    raise too_large
    except ClientDisconnect:
        raise Refusal(408, "the sound file ends in the middle; send all of it.") from None
    except TimeoutError:
        raise Refusal(
            408,
            f"the sound file did not arrive within {limits.body_seconds:g} s (or nothing of it "
            f"within {limits.idle:g} s); send it faster, or as FLAC or MP3.",
        ) from None
