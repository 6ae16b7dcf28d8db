"""The service on a real Ray Serve: one application, asked over HTTP."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml

from tests.serve.sounds import opened, sound

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 120  # until a service on a busy machine is given up


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def service(ray_cluster: None, run_folder: Path) -> Iterator[str]:
    from ray import serve

    from serve.app import Settings, app

    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(app(Settings(model=str(run_folder))))
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


@pytest.mark.ray
def test_speech_over_http(service: str, run_folder: Path) -> None:
    answer = httpx.post(f"{service}/v1/speak", content=sound(2), timeout=60)
    assert answer.status_code == 200 and answer.headers["content-type"] == "video/mp4"
    with opened(answer.content) as movie:
        assert len(list(movie.decode(video=0))) == 60
    assert httpx.get(f"{service}/healthz").status_code == 200
    card = httpx.get(f"{service}/v1/model").json()
    assert (card["reference"], card["engine"]) == (str(run_folder), "onnx")
    assert "Speak" in httpx.get(f"{service}/").text
    refused = httpx.post(f"{service}/v1/speak", content=b"no sound")
    assert refused.status_code == 422 and "detail" in refused.json()


@pytest.mark.ray
def test_requests_at_the_same_time_do_not_mix(service: str) -> None:
    def speak(seconds: float) -> bytes:
        answer = httpx.post(f"{service}/v1/speak", content=sound(seconds), timeout=120)
        assert answer.status_code == 200
        return answer.content

    lengths = [0.5, 1.0, 1.5, 2.0]
    alone = [speak(seconds) for seconds in lengths]
    with ThreadPoolExecutor(len(lengths)) as clients:
        together = list(clients.map(speak, lengths))
    for one, other in zip(alone, together, strict=True):
        assert pictures(one).shape == pictures(other).shape
        assert np.abs(pictures(one) - pictures(other)).mean() < 0.5, "equal up to rounding"


def pictures(movie: bytes) -> np.ndarray:
    with opened(movie) as decoded:
        frames = [frame.to_ndarray(format="rgb24") for frame in decoded.decode(video=0)]
    return np.stack(frames).astype(float)


@pytest.mark.ray
@pytest.mark.slow
def test_the_config_file_serves_and_ctrl_c_ends_it(run_folder: Path, tmp_path: Path) -> None:
    port = free_port()
    config = yaml.safe_load((ROOT / "serve" / "config.yaml").read_text())
    config["http_options"]["port"] = port
    config["applications"][0]["args"]["model"] = str(run_folder)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    command = [str(Path(sys.executable).parent / "serve"), "run", str(tmp_path / "config.yaml")]
    with (tmp_path / "out.txt").open("w") as output:
        server = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output)
        try:
            answer = wait_for(f"http://127.0.0.1:{port}/readyz", server)
            assert answer == {"status": "ready", "model": str(run_folder)}
            server.send_signal(signal.SIGINT)
            server.wait(60)
        finally:
            if server.poll() is None:
                server.kill()


def wait_for(url: str, server: "subprocess.Popen[bytes]") -> dict[str, str]:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        assert server.poll() is None, "the service ended by itself"
        try:
            answer = httpx.get(url, timeout=5)
        except httpx.TransportError:
            answer = None
        if answer is not None and answer.status_code == 200:
            return dict(answer.json())
        time.sleep(0.5)
    raise AssertionError("the service did not start")
