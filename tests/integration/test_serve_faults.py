"""What goes wrong around a service on a real Ray Serve, and what it costs others."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from websockets.sync.client import connect

from serve.batching import AHEAD
from serve.limits import Limits
from serve.voices import Voice
from tests.integration.processes import descendants
from tests.serve.lines import as_shown, shown
from tests.serve.sounds import free_port, opened, soon, sound, tone

PATIENCE = 240  # seconds until something on a busy machine is given up
SPEECH = (tone(2.4) * 32767).astype("<i2")
SPEAKERS, WAITING = 2, 2

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def where(ray_cluster: None, run_folder: Path) -> Iterator[str]:
    """``127.0.0.1:PORT`` of a service for few at a time."""
    from ray import serve

    from serve.app import Settings, app

    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(app(Settings(model=str(run_folder), speakers=SPEAKERS, waiting=WAITING)))
    yield f"127.0.0.1:{port}"
    serve.shutdown()


def speak(where: str, seconds: float) -> httpx.Response:
    return httpx.post(f"http://{where}/v1/speak?size=32", content=sound(seconds), timeout=PATIENCE)


def length(film: bytes) -> int:
    with opened(film) as decoded:
        return sum(1 for _ in decoded.decode(video=0))


def test_a_live_stream_through_the_proxy_is_what_the_library_makes(
    where: str, run_folder: Path
) -> None:
    with connect(f"ws://{where}/v1/stream", open_timeout=PATIENCE) as line:
        line.send('{"seed": 3, "size": 64}')
        for start in range(0, len(SPEECH), 1777):
            line.send(SPEECH[start : start + 1777].tobytes())
        line.send('{"end": true}')
        ready, *answers, last = list(line)
    messages = [answer for answer in answers if isinstance(answer, bytes)]
    assert '"ready":true' in str(ready) and '"groups":24' in str(last) and len(messages) == 24
    voice = Voice.load(str(run_folder))
    right, wrong = (as_shown(voice, SPEECH, seed, 64) for seed in (3, 4))
    assert np.abs(shown(messages) - right).mean() < 0.5
    assert np.abs(shown(messages) - wrong).mean() > 2


def test_overload_those_who_are_let_in_are_served_and_others_are_told(where: str) -> None:
    ended: list[tuple[int, httpx.Response]] = []

    def ask(seconds: float) -> None:
        answer = speak(where, seconds)
        ended.append((answer.status_code, answer))

    with ThreadPoolExecutor(12) as clients:
        list(clients.map(ask, [20.0] * 12))
    statuses = [status for status, _ in ended]
    assert set(statuses) == {200, 429} and statuses.count(200) >= SPEAKERS
    assert statuses.index(429) < statuses.index(200), "told at once"
    for status, answer in ended:
        if status == 200:
            assert length(answer.content) == 600
        else:
            assert int(answer.headers["retry-after"]) > 0 and "detail" in answer.json()


def replica() -> int:
    """The process of the one replica."""
    [found] = [
        pid for pid, name in descendants(os.getpid()) if name.startswith("ray::ServeReplica")
    ]
    return found


@pytest.mark.chaos
def test_a_killed_replica_costs_those_in_flight_and_comes_back(where: str) -> None:
    statuses: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                status = speak(where, 3).status_code
            except httpx.TransportError:
                status = 0
            statuses.append(status)

    askers = 3
    with ThreadPoolExecutor(askers) as clients:
        asking = [clients.submit(ask) for _ in range(askers)]
        try:
            assert soon(lambda: statuses.count(200) >= askers, PATIENCE)
            before = replica()
            os.kill(before, signal.SIGKILL)
            known = len(statuses)
            assert soon(lambda: statuses[known:].count(200) >= 2 * askers, PATIENCE), statuses
        finally:
            stop.set()
        for one in asking:
            one.result()
    failed = [status for status in statuses if status != 200]
    assert len(failed) <= askers, statuses
    assert replica() != before


def mute(where: str, hello: bytes, speech: bytes) -> socket.socket:
    """A client that says all of it and ends, and reads nothing, not even pings."""
    host, port = where.split(":")
    line = socket.create_connection((host, int(port)))
    line.sendall(
        f"GET /v1/stream HTTP/1.1\r\nHost: {where}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    shaken = b""
    while not shaken.endswith(b"\r\n\r\n"):
        shaken += line.recv(1)
    parts = [speech[start : start + 32_000] for start in range(0, len(speech), 32_000)]
    for kind, data in ((1, hello), *((2, part) for part in parts), (1, b'{"end": true}')):
        size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + len(data).to_bytes(2, "big")
        # Whole messages, masked with zeros.
        line.sendall(bytes([0x80 | kind, 0x80 | size[0]]) + size[1:] + bytes(4) + data)
    return line


def resident(where: int) -> int:
    """Bytes of memory that a process holds."""
    return int(Path(f"/proc/{where}/statm").read_text().split()[1]) * 4096


def test_a_client_that_does_not_read_harms_nobody(where: str) -> None:
    """Ray takes what is made for it, so that no write is late; it is sent its window alone."""
    family = descendants(os.getpid())
    pids = [pid for pid, name in family if name.startswith(("ray::ProxyActor", "ray::ServeRep"))]
    assert len(pids) == 2
    speak(where, 1)  # what the first request costs
    before, made = sum(map(resident, pids)), metric(where, "s2vgan_groups_total")
    with mute(where, b'{"size": 512}', (tone(25) * 32767).astype("<i2").tobytes()):
        assert soon(lambda: metric(where, "s2vgan_speaking") == 1, PATIENCE)
        with connect(f"ws://{where}/v1/stream", open_timeout=PATIENCE) as line:
            line.send('{"size": 64}')
            line.send(SPEECH.tobytes())
            line.send('{"end": true}')
            assert len(list(line)) == 1 + 24 + 1
        assert length(speak(where, 2).content) == 60
        assert soon(lambda: metric(where, "s2vgan_speaking") == 0, PATIENCE)
        assert sum(map(resident, pids)) - before < 400 << 20
        made = metric(where, "s2vgan_groups_total") - made - 24 - 20
        assert made <= Limits.window + AHEAD + 1, "1 is ready to be sent"


def metric(where: str, name: str) -> float:
    """A number of the replica's."""
    page = httpx.get(f"http://{where}/metrics", timeout=PATIENCE).text
    [line] = [line for line in page.splitlines() if line.startswith(f"{name}{{")]
    return float(line.split()[-1])
