"""`python serve/app.py` as a process: what it listens on, and how it ends."""

import io
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.integration.processes import descendants, listening
from tests.integration.test_serve import wait_for
from tests.serve.sounds import free_port, sound

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 240  # seconds until something on a busy machine is given up
HAPROXY = {8404, 9101}  # Ray's fast proxy opens these on all addresses
SECONDS = 40

pytestmark = pytest.mark.ray
UNSPECIFIED = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass
class Running:
    process: "subprocess.Popen[bytes]"
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def speaks(address: str, port: int) -> bool:
    """Whether the application answers there."""
    host = UNSPECIFIED.get(address, address)
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    try:
        answer = httpx.get(f"{url}/v1/model", timeout=10)
    except httpx.HTTPError:
        return False
    return answer.status_code == 200 and "sha256" in answer.text


@pytest.fixture(scope="module")
def running(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    port = free_port()
    command = [sys.executable, "serve/app.py", "--model", str(run_folder), "--port", str(port)]
    with (tmp_path_factory.mktemp("app") / "out.txt").open("w") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
        try:
            wait_for(f"http://127.0.0.1:{port}/readyz", process)
            yield Running(process, port)
        finally:
            if process.poll() is None:
                process.kill()


def test_the_service_is_reached_from_this_machine_alone(running: Running) -> None:
    """Ray's own processes talk to each other on other ports, which do not lead to the service."""
    family = dict(descendants(running.process.pid))
    sockets = listening({running.process.pid, *family})
    assert {address for address, port, _ in sockets if port == running.port} == {"127.0.0.1"}
    assert not HAPROXY & {port for _, port, _ in sockets}
    assert speaks("127.0.0.1", running.port)
    others = {(address, port) for address, port, _ in sockets if port != running.port}
    assert not [one for one in others if speaks(*one)]


def test_sigterm_lets_those_who_speak_finish(running: Running) -> None:
    """The client takes its film so slowly that it is not at its end when the replica is."""
    film, after = bytearray(), list[int]()
    url = f"{running.url}/v1/speak"
    speech = sound(SECONDS, "flac", "flac")
    with httpx.stream(
        "POST", f"{url}?format=frames&size=256", content=speech, timeout=PATIENCE
    ) as answer:
        assert answer.status_code == 200
        for number, piece in enumerate(answer.iter_raw(1 << 17)):
            film += piece
            time.sleep(0.02)
            if number == 0:
                running.process.send_signal(signal.SIGTERM)
            elif 503 not in after or number % 50 == 0:
                with suppress(httpx.TransportError):  # nobody listens any more
                    after.append(httpx.post(url, content=b"", timeout=PATIENCE).status_code)
    assert len(zipfile.ZipFile(io.BytesIO(film)).namelist()) == 30 * SECONDS
    assert 503 in after, "newcomers are told while it drains"
    assert set(after) <= {422, 503} and 422 not in after[after.index(503) :]
    assert running.process.wait(PATIENCE) == 0
