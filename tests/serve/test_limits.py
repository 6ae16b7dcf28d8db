import asyncio
import json
import logging
import re
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from starlette.requests import Request
from starlette.websockets import WebSocketDisconnect

from s2vgan.errors import ServiceError
from serve import access
from serve.access import Access
from serve.api import build
from serve.limits import Gate, Limits, read_body
from serve.observability import JsonLines
from serve.problems import Refusal
from serve.voices import Voice
from tests.hostile import wav
from tests.serve.sounds import refusal, service_of, sound

TOKEN = "0123456789abcdef"


def test_all_but_the_page_and_the_probes_ask_for_the_token(voice: Voice) -> None:
    with TestClient(build(service_of(voice, access=Access(TOKEN)))) as client:
        for path in ("/", "/docs", "/openapi.json", "/healthz", "/readyz"):
            assert client.get(path).status_code == 200, path
        wrong = [{}, {"Authorization": "Bearer no"}, {"Authorization": f"Basic {TOKEN}"}]
        for headers in wrong:
            for path in ("/v1/model", "/metrics", "/nothing", "//v1/model"):
                answer = client.get(path, headers=headers)
                assert answer.status_code == 401 and "token" in refusal(answer)
                assert answer.headers["www-authenticate"] == "Bearer"
            assert client.post("/v1/speak", headers=headers).status_code == 401
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert client.get("/v1/model", headers=right).status_code == 200
        assert client.post("/v1/speak", content=sound(0.2), headers=right).status_code == 200
        schema = client.get("/openapi.json").json()
        assert schema["security"] == [{"token": []}]


def test_a_service_for_the_network_needs_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        Access().require_for(host)
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org"):
        with pytest.raises(ServiceError, match=access.TOKEN_VARIABLE):
            Access().require_for(host)
        Access(TOKEN).require_for(host)
    Access(open=True).require_for("0.0.0.0")


def test_what_the_environment_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    for said, allowed in (("yes", True), ("no", False)):
        monkeypatch.setenv(access.OPEN_VARIABLE, said)
        assert Access.from_environment() == Access(open=allowed)
    unusable = {"short": "guessed", " \n": "of 0 characters", f"{'x' * 15}\n": "guessed"}
    unusable |= {f"{TOKEN}\N{LATIN SMALL LETTER E WITH ACUTE}": "header", f"{TOKEN}\n1": "header"}
    for token, why in unusable.items():
        monkeypatch.setenv(access.TOKEN_VARIABLE, token)
        with pytest.raises(ServiceError, match=why):
            Access.from_environment()
    monkeypatch.setenv(access.TOKEN_VARIABLE, "")
    assert Access.from_environment() == Access()
    monkeypatch.setenv(access.TOKEN_VARIABLE, f" {TOKEN}\n")
    monkeypatch.setenv(access.ORIGINS_VARIABLE, "https://a.example, https://b.example")
    assert Access.from_environment() == Access(TOKEN, ("https://a.example", "https://b.example"))


def test_other_origins_are_closed_unless_named(voice: Voice) -> None:
    ask = {"Origin": "https://a.example"}
    with TestClient(build(service_of(voice))) as client:
        assert client.post("/v1/speak", content=b"", headers=ask).status_code == 403
        assert "access-control-allow-origin" not in client.get("/healthz").headers
    named = Access(None, ("https://a.example",))
    with TestClient(build(service_of(voice, access=named))) as client:
        answer = client.get("/v1/model", headers=ask)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
        other = client.get("/v1/model", headers={"Origin": "https://b.example"})
        assert other.status_code == 403


def asks(client: TestClient, origin: str, host: str) -> bool:
    """Whether a page may ask a service under a name: by POST, by GET and by WebSocket alike."""
    headers = {"Origin": origin, "Host": host}
    posted = client.post("/v1/speak", content=b"", headers=headers).status_code
    got = client.get("/v1/model", headers=headers).status_code
    try:
        with client.websocket_connect("/v1/stream", headers=headers):
            live = True
    except WebSocketDisconnect:
        live = False
    assert (posted != 403) == (got != 403) == live
    return live


OWN = "http://localhost:8000", "http://127.0.0.1:8000", "http://[::1]:8000", "http://x.localhost"
REBOUND = "http://evil.example:8000", "http://localhost.evil.example", "http://10.0.0.1:8000"


def test_a_name_of_somebody_elses_that_leads_here_is_closed(voice: Voice) -> None:
    with TestClient(build(service_of(voice))) as client:
        for origin in OWN:
            assert asks(client, origin, origin.removeprefix("http://")), origin
            assert not asks(client, origin, "evil.example:8000"), origin
        for origin in REBOUND:
            assert not asks(client, origin, origin.removeprefix("http://")), origin
        there = {"Host": "evil.example:8000"}
        assert client.get("/v1/model", headers=there).status_code == 200, "no page of a browser's"
    named = Access(origins=REBOUND)
    for allowed in (Access(TOKEN), Access(open=True), named):
        with TestClient(build(service_of(voice, access=allowed))) as client:
            for origin in REBOUND:
                assert asks(client, origin, origin.removeprefix("http://")), origin
                assert asks(client, origin, "localhost:8000") == (allowed is named), origin


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "null", ""])
def test_an_origin_that_is_none_is_closed(origin: str, voice: Voice) -> None:
    ask = {"Origin": origin}
    with TestClient(build(service_of(voice))) as client:
        answer = client.post("/v1/speak", content=b"", headers=ask)
        assert answer.status_code == 403 and access.ORIGINS_VARIABLE in refusal(answer)
        with (
            pytest.raises(WebSocketDisconnect) as end,
            client.websocket_connect("/v1/stream", headers=ask),
        ):
            pass
        assert end.value.code == 1008


def test_overload_those_inside_succeed_and_others_are_told_at_once(
    voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can be made to speak until all have asked; then all who are inside finish."""
    service = service_of(voice, Limits(speakers=2, waiting=1))
    asked = threading.Event()
    real = service.batcher._advance

    async def held(sessions: Any) -> None:
        await asyncio.to_thread(asked.wait, 30)
        await real(sessions)

    monkeypatch.setattr(service.batcher, "_advance", held)
    with TestClient(build(service)) as client, ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(client.post, "/v1/speak", content=sound(0.5)) for _ in range(8)]
        for _ in range(200):
            if sum(one.done() for one in answers) == 5:
                break
            time.sleep(0.05)
        refused = [one.result() for one in answers if one.done()]
        asked.set()
        statuses = sorted(one.result().status_code for one in answers)
        assert refused and all(one.status_code == 429 for one in refused)
        assert all(int(one.headers["retry-after"]) > 0 for one in refused)
        assert statuses == [200] * 3 + [429] * 5
    assert service.gate.inside == service.gate.speaking == 0


def test_a_turn_that_does_not_come_is_a_429() -> None:
    async def run() -> int:
        gate = Gate(Limits(speakers=1, waiting=1, queue_seconds=0.05))
        async with gate.enter(), gate.turn(), gate.enter():
            with pytest.raises(Refusal) as refused:
                async with gate.turn():
                    pass
        return refused.value.status_code

    assert asyncio.run(run()) == 429


def test_draining_lets_nobody_in_and_waits_for_those_inside() -> None:
    async def run() -> list[str]:
        order: list[str] = []
        gate = Gate(Limits())

        async def drain() -> None:
            await gate.drain()
            order.append("drained")

        async with gate.enter():
            task = asyncio.create_task(drain())
            await asyncio.sleep(0.01)
            with pytest.raises(Refusal) as refused:
                async with gate.enter():
                    pass
            assert refused.value.status_code == 503
            assert refused.value.headers and refused.value.headers["Retry-After"]
            order.append("left")
        await task
        return order

    assert asyncio.run(run()) == ["left", "drained"]


def test_a_draining_service_says_so(voice: Voice) -> None:
    service = service_of(voice)
    with TestClient(build(service)) as client:
        assert client.portal is not None
        client.portal.call(service.gate.drain)
        for answer in (client.post("/v1/speak", content=sound(0.5)), client.get("/readyz")):
            assert answer.status_code == 503 and "about to end" in refusal(answer)
        assert client.get("/healthz").status_code == 200


def asked(chunks: AsyncIterator[dict[str, Any]]) -> Request:
    async def receive() -> Any:
        return await anext(chunks)

    return Request({"type": "http", "method": "POST", "headers": []}, receive)


def test_endless_and_slow_bodies_end() -> None:
    async def endless() -> AsyncIterator[dict[str, Any]]:
        while True:
            yield {"type": "http.request", "body": b"0" * 1000, "more_body": True}

    async def slow() -> AsyncIterator[dict[str, Any]]:
        while True:
            yield {"type": "http.request", "body": b"0", "more_body": True}
            await asyncio.sleep(0.02)

    async def stuck() -> AsyncIterator[dict[str, Any]]:
        yield {"type": "http.request", "body": b"0", "more_body": True}
        await asyncio.sleep(60)

    for source, limits, status in (
        (endless(), Limits(body=10_000), 413),
        (slow(), Limits(body_seconds=0.3), 408),
        (stuck(), Limits(idle=0.1), 408),
    ):
        with pytest.raises(Refusal) as refused:
            asyncio.run(read_body(asked(source), limits))
        assert refused.value.status_code == status


NOISE = np.random.default_rng(0).integers(-9000, 9000, 16000).astype("<i2").tobytes()
NANS = np.full(8000, np.nan, "<f4").tobytes()
LYING = {
    "more than there is": (wav(NOISE, lie=0xFFFFFFF0), 200),
    "less than there is": (wav(NOISE, lie=3200), 200),
    "not a number": (wav(NANS, bits=32, kind=3), 200),
    "infinite": (wav(np.full(8000, np.inf, "<f4").tobytes(), bits=32, kind=3), 200),
    "no samples": (wav(b""), 422),
    "8 channels": (wav(NOISE, channels=8), 200),
    "no channel": (wav(NOISE, channels=0), 422),
    "1 Hz": (wav(NOISE, rate=1), 422),
    "4 GHz": (wav(NOISE, rate=0xFFFFFFFF), 422),
    "half a header": (wav(NOISE)[:30], 422),
}


@pytest.mark.parametrize("name", LYING)
def test_files_that_lie_are_served_or_refused(name: str, client: TestClient) -> None:
    body, status = LYING[name]
    answer = client.post("/v1/speak", content=body)
    assert answer.status_code == status, answer.text[:300]
    if status == 422:
        assert len(refusal(answer)) > 20


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    """What the service logs, line by line."""
    found: list[dict[str, Any]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(json.loads(JsonLines().format(record)))

    logger, handler = logging.getLogger("s2vgan.serve"), Keep()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield found
    logger.removeHandler(handler)


def test_the_id_of_a_request_is_in_its_answer_and_in_the_log(
    client: TestClient, lines: list[dict[str, Any]]
) -> None:
    answer = client.post("/v1/speak", content=sound(0.5), headers={"X-Request-ID": "my-own.1"})
    assert answer.headers["x-request-id"] == "my-own.1"
    other = client.get("/v1/model", headers={"X-Request-ID": 'no"\\id'})
    assert re.fullmatch("[0-9a-f]{32}", other.headers["x-request-id"])
    first, second = (line for line in lines if line["event"] == "request")
    assert first["id"] == "my-own.1" and first["path"] == "/v1/speak" and first["status"] == 200
    assert first["sent"] == len(answer.content) and first["ms"] > 0
    assert second["id"] == other.headers["x-request-id"]


def test_metrics_count_what_happens(voice: Voice) -> None:
    with TestClient(build(service_of(voice))) as client:
        client.post("/v1/speak", content=sound(1))
        client.post("/v1/speak", content=b"no sound")
        page = client.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain")
    values = dict(re.findall(r"^(\S+) ([0-9.e+-]+)$", page.text, re.M))
    own = 'replica="local"'
    assert values[f's2vgan_requests_total{{path="/v1/speak",{own},status="200"}}'] == "1.0"
    assert values[f's2vgan_requests_total{{path="/v1/speak",{own},status="422"}}'] == "1.0"
    assert float(values[f"s2vgan_groups_total{{{own}}}"]) == 10
    assert float(values[f"s2vgan_batch_streams_count{{{own}}}"]) >= 1
    assert values[f's2vgan_first_frame_seconds_count{{kind="file",{own}}}'] == "1.0"
    assert values[f"s2vgan_real_time_factor_count{{{own}}}"] == "1.0"
    assert values[f"s2vgan_queue{{{own}}}"] == values[f"s2vgan_speaking{{{own}}}"] == "0.0"


@pytest.mark.parametrize("options", ["stream=0", "format=gif"])
def test_an_answer_that_takes_too_long_is_a_503(voice: Voice, options: str) -> None:
    service = service_of(voice, Limits(request_seconds=0.001))
    with TestClient(build(service)) as client:
        answer = client.post(f"/v1/speak?{options}", content=sound(2))
    assert answer.status_code == 503 and "shorter speech" in refusal(answer)
    assert not service.gate.inside
