"""Clients of the service: live speech in real time, sound files, and those that vanish."""

import asyncio
import contextlib
import http.client
import io
import json
import random
import time
import wave
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from _service import HOST
from websockets.asyncio.client import connect

from s2vgan.config import ModelConfig
from s2vgan.spec import GroupSpec

CHUNK: Final = 320  # samples of a message: 20 ms, as telephony sends
LATE_SECONDS: Final = GroupSpec().seconds  # a group's own length: the next would be due
_PATIENCE: Final = 15.0  # seconds without a message, after which a stream is given up


@dataclass
class Stream:
    """What one live stream saw, in seconds of one clock.

    Attributes:
        due: of each group, when its last sample (its look-ahead included) was to be sent.
        sent: when the message with that sample was sent.
        arrived: when its frames came; shorter if the stream was given up.
    """

    due: list[float] = field(default_factory=list)
    sent: list[float] = field(default_factory=list)
    arrived: list[float] = field(default_factory=list)

    def delays(self) -> np.ndarray:
        """(groups,) seconds from sending the last sample a group needs to its frames."""
        return np.subtract(self.arrived, self.sent[: len(self.arrived)])

    def late(self) -> int:
        """Groups whose frames came later than LATE_SECONDS after they were due, or never."""
        delays = np.subtract(self.arrived, self.due[: len(self.arrived)])
        return int((delays > LATE_SECONDS).sum()) + len(self.due) - len(self.arrived)


def closing_chunks(groups: int) -> list[int]:
    """The message that holds the last sample of what each group needs, counted from 0."""
    spec, ahead = GroupSpec(), ModelConfig().audio_ahead
    needed = np.arange(groups) * spec.samples_per_group + spec.window(0, ahead)[1]
    return [int(-(-samples // CHUNK) - 1) for samples in needed]


async def speak_live(port: int, seconds: float, together: asyncio.Barrier, offset: float) -> Stream:
    """Speak for so many seconds, as a microphone would, and note when groups come.

    Args:
        port: of the service.
        seconds: of speech.
        together: that all streams wait at once they are connected.
        offset: seconds after it at which this one begins.
    """
    rate = GroupSpec().sample_rate
    speech = noise(seconds)
    groups = int((seconds - ModelConfig().audio_ahead) / GroupSpec().seconds + 1e-9)
    closing = {chunk: group for group, chunk in enumerate(closing_chunks(groups))}
    stream = Stream()
    async with connect(f"ws://{HOST}:{port}/v1/stream", max_size=None) as line:
        await line.send("{}")
        ready = json.loads(await line.recv())
        if not ready.get("ready"):
            raise RuntimeError("the service refused a stream.")
        often = -(-ready["window"] // 10)  # groups
        await together.wait()
        began = time.perf_counter() + offset

        async def send() -> None:
            for chunk in range(len(speech) // CHUNK):
                due = began + (chunk + 1) * CHUNK / rate  # not before its last sample is spoken
                await asyncio.sleep(due - time.perf_counter())
                if chunk in closing:
                    stream.due.append(due)
                    stream.sent.append(time.perf_counter())
                await line.send(speech[chunk * CHUNK : (chunk + 1) * CHUNK].tobytes())

        async def listen() -> None:
            with contextlib.suppress(TimeoutError):
                for number in range(1, groups + 1):
                    async with asyncio.timeout(_PATIENCE + offset):
                        await line.recv()
                    stream.arrived.append(time.perf_counter())
                    if number % often == 0:
                        await line.send(json.dumps({"shown": number}))

        await asyncio.gather(send(), listen())
        await line.send('{"end": true}')
    return stream


def speak_together(port: int, count: int, seconds: float) -> list[Stream]:
    """So many live streams at a time, which begin at random moments of one second."""
    offsets = random.Random(count)

    async def run() -> list[Stream]:
        together = asyncio.Barrier(count)
        lines = [speak_live(port, seconds, together, offsets.random()) for _ in range(count)]
        return await asyncio.gather(*lines)

    return asyncio.run(run())


def noise(seconds: float) -> np.ndarray:
    """(n,) int16 of something that is not silent, at 16 kHz."""
    count = round(seconds * GroupSpec().sample_rate)
    values = np.random.default_rng(0).normal(0, 3000, count)
    return values.clip(-32768, 32767).astype("<i2")


def wav(seconds: float) -> bytes:
    """A WAV file of it."""
    file = io.BytesIO()
    with wave.open(file, "wb") as output:
        output.setnchannels(1)
        output.setsampwidth(2)
        output.setframerate(GroupSpec().sample_rate)
        output.writeframes(noise(seconds).tobytes())
    return file.getvalue()


class Files:
    """A client that sends sound files, one after another on one connection.

    Args:
        port: of the service.
        patience: seconds until an answer is given up.
    """

    def __init__(self, port: int, patience: float = 120.0) -> None:
        self._line = http.client.HTTPConnection(HOST, port, timeout=patience)

    def speak(self, body: bytes, options: str = "", kind: str = "audio/wav") -> tuple[int, bytes]:
        """Status and content of the whole answer.

        Raises:
            OSError, http.client.HTTPException: if the connection breaks.
        """
        headers = {"Content-Type": kind}
        try:
            self._line.request("POST", f"/v1/speak{options}", body, headers)
            answer = self._line.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            self._line.close()
            raise

    def close(self) -> None:
        """Hang up."""
        self._line.close()


async def vanish(port: int) -> None:
    """A live stream that says half a second and then is not there any more."""
    async with connect(f"ws://{HOST}:{port}/v1/stream", max_size=None) as line:
        await line.send("{}")
        await line.recv()
        await line.send(noise(0.5).tobytes())
        await line.recv()  # a group is there, and others are being made
        line.transport.abort()


def mixed(port: int, count: int) -> None:
    """So many requests, 4 at a time, a quarter of each kind.

    Short speech, what is no sound, a form, and live streams that vanish.

    Raises:
        RuntimeError: if one is answered otherwise than it should be.
    """
    short = wav(0.3)
    bodies = [
        (short, "audio/wav", 200),
        (b"no sound", "audio/wav", 422),
        (short, "multipart/form-data; boundary=x", 415),
    ]

    def ask(number: int) -> None:
        if number % 4 == 3:
            return asyncio.run(vanish(port))
        body, kind, wanted = bodies[number % 4]
        client = Files(port)
        status, said = client.speak(body, kind=kind)
        client.close()
        if status != wanted:
            raise RuntimeError(f"answered {status}, not {wanted}: {said[:300]!r}")

    with ThreadPoolExecutor(4) as clients:
        for _ in clients.map(ask, range(count)):
            pass


@dataclass(frozen=True)
class Asked:
    """One request.

    Attributes:
        began: seconds of a clock.
        ended: of the same.
        status: of the answer; 0 if the connection broke or nothing came.
    """

    began: float
    ended: float
    status: int

    @classmethod
    def now(cls, port: int, body: bytes) -> "Asked":
        """Ask for a film, on a connection of its own."""
        began, client = time.perf_counter(), Files(port)
        try:
            status, _ = client.speak(body)
        except (OSError, http.client.HTTPException):
            status = 0
        finally:
            client.close()
        return cls(began, time.perf_counter(), status)


@dataclass(frozen=True)
class Outage:
    """What became of requests around the moment at which the replica was killed.

    Attributes:
        seconds: until one that was asked afterwards had succeeded.
        in_flight: requests at that moment.
        failed_in_flight: of them.
        refused: asked afterwards and answered 503.
        failed_beyond: asked afterwards and failed in another way.
    """

    seconds: float
    in_flight: int
    failed_in_flight: int
    refused: int
    failed_beyond: int

    @classmethod
    def of(cls, asked: Sequence[Asked], killed: float) -> "Outage":
        """Judge what was asked, by the clock of ``killed``."""
        flying = [one for one in asked if one.began <= killed < one.ended]
        after = [one for one in asked if one.began > killed]
        again = [one.ended for one in after if one.status == 200]
        refused = sum(one.status == 503 for one in after)
        return cls(
            seconds=min(again, default=float("inf")) - killed,
            in_flight=len(flying),
            failed_in_flight=sum(one.status != 200 for one in flying),
            refused=refused,
            failed_beyond=len(after) - len(again) - refused,
        )
