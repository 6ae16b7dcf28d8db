"""WS /v1/stream: nobody may speak, or be sent, more than somebody takes."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketTestSession
from starlette.websockets import WebSocketDisconnect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from serve import batching
from serve.access import Access
from serve.api import build
from serve.limits import Limits
from serve.voices import Voice
from tests.serve.lines import SPEECH, parts_of, refused, talk
from tests.serve.sounds import RATE, served, service_of, soon


@pytest.fixture(scope="module")
def narrow(voice: Voice) -> Iterator[TestClient]:
    """A service that sends 3 groups to who says nothing, and hears 1.3 s ahead."""
    with TestClient(build(service_of(voice, Limits(window=3, behind=1.3)))) as client:
        yield client


def groups_of(line: WebSocketTestSession, count: int) -> list[int]:
    """The numbers of so many groups that come."""
    return [parts_of(line.receive_bytes())[0] for _ in range(count)]


def closed(line: WebSocketTestSession, code: int) -> str:
    """The sentence with which a line ends."""
    said = line.receive_json()["detail"]
    with pytest.raises(WebSocketDisconnect) as end:
        line.receive_json()
    assert end.value.code == code
    return str(said)


def answers(line: ClientConnection, word: str | bytes) -> list[str | bytes]:
    """What comes while a client says one thing all the time, to the first message of text."""
    came: list[str | bytes] = []
    for _ in range(1200):
        with suppress(ConnectionClosed):
            line.send(word)
        with suppress(TimeoutError):
            came.append(line.recv(timeout=0.05))
            if isinstance(came[-1], str):
                break
    return came


def test_who_acknowledges_nothing_is_sent_a_window_and_left(voice: Voice) -> None:
    service = service_of(voice, Limits(window=3, idle=2))
    with TestClient(build(service)) as client, client.websocket_connect("/v1/stream") as line:
        line.send_json({})
        assert line.receive_json()["window"] == 3
        line.send_bytes(SPEECH.tobytes())
        line.send_json({"end": True})
        assert groups_of(line, 3) == [0, 1, 2]
        line.send_json({"shown": 2})
        assert groups_of(line, 2) == [3, 4]
        assert "3 groups were sent" in closed(line, 1008)
        assert soon(lambda: not service.gate.inside and not service.batcher._sessions)


def test_who_speaks_on_and_acknowledges_nothing_is_left(voice: Voice) -> None:
    with (
        served(build(service_of(voice, Limits(window=3, idle=1)))) as where,
        connect(f"ws://{where}/v1/stream") as line,
    ):
        line.send("{}")
        line.recv()
        line.send(SPEECH.tobytes())
        *groups, said = answers(line, bytes(RATE // 2))
        assert len(groups) == 3 and "3 groups were sent" in str(said)


@pytest.mark.parametrize("word", ['{"shown": 0}', b"", bytes(2)])
def test_who_speaks_less_than_time_passes_is_left(word: str | bytes, voice: Voice) -> None:
    with (
        served(build(service_of(voice, Limits(idle=1)))) as where,
        connect(f"ws://{where}/v1/stream") as line,
    ):
        line.send("{}")
        line.recv()
        [said] = answers(line, word)
        assert "behind real time" in str(said)


def test_who_speaks_in_real_time_may_go_on(voice: Voice) -> None:
    """For longer than a client may be silent."""
    with (
        served(build(service_of(voice, Limits(idle=1)))) as where,
        connect(f"ws://{where}/v1/stream") as line,
    ):
        line.send("{}")
        line.recv()
        began = time.monotonic()
        for piece in range(1, 16):
            line.send(bytes(2 * RATE // 5))
            time.sleep(max(0.0, began + 0.2 * piece - time.monotonic()))
        line.send('{"end": true}')
        assert len(list(line)) == 30 + 1


@pytest.mark.parametrize("late", [{"text": '{"end": true}'}, {"bytes": b"0000"}])
def test_after_the_end_comes_word_of_groups_alone(late: dict[str, Any], narrow: TestClient) -> None:
    with narrow.websocket_connect("/v1/stream") as line:
        line.send_json({})
        line.receive_json()
        line.send_bytes(SPEECH.tobytes())
        groups_of(line, 3)
        line.send_json({"shown": 3, "end": True})
        groups_of(line, 3)
        line.send({"type": "websocket.receive", **late})
        assert "may follow" in closed(line, 1008)


def test_after_the_end_nothing_need_be_said(voice: Voice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its groups take longer than a client may be silent."""
    real = batching.advance

    def slow(*args: Any) -> list[np.ndarray]:
        time.sleep(0.1)
        return real(*args)

    monkeypatch.setattr(batching, "advance", slow)
    with TestClient(build(service_of(voice, Limits(idle=0.6)))) as client:
        assert len(talk(client, SPEECH.tobytes(), [])) == 13


def test_a_window_changes_no_picture(narrow: TestClient, voice: Voice) -> None:
    speech = SPEECH.tobytes()
    with TestClient(build(service_of(voice))) as wide:
        assert talk(narrow, speech, [1001], seed=3) == talk(wide, speech, [], seed=3)


def test_groups_shown_are_those_that_were_sent_and_never_fewer(narrow: TestClient) -> None:
    for wrong in (0, 1, 6):
        with narrow.websocket_connect("/v1/stream") as line:
            line.send_json({})
            line.receive_json()
            line.send_bytes(SPEECH.tobytes())
            groups_of(line, 3)
            line.send_json({"shown": 2})
            line.send_json({"shown": 2})
            groups_of(line, 2)
            line.send_json({"shown": wrong})
            assert f"{wrong} is none of 2 to 5" in closed(line, 1008)


def test_speech_may_not_be_far_ahead_of_its_groups(narrow: TestClient) -> None:
    second = bytes(2 * RATE)
    with narrow.websocket_connect("/v1/stream") as line:
        line.send_json({})
        line.receive_json()
        line.send_bytes(second)
        groups_of(line, 3)  # 0.7 s wait
        line.send_bytes(second[: len(second) // 2])
        line.send_json({"shown": 3})
        groups_of(line, 3)  # 0.9 s wait
        line.send_bytes(second[: len(second) // 4])
        line.send_bytes(second[: len(second) // 4])
        assert "as it is spoken" in closed(line, 1013)


def test_strangers_who_say_nothing_lock_nobody_out(voice: Voice) -> None:
    """They are as many as there are places, and for those who come they leave one by one."""
    token = "a token of the house"
    limits = Limits(speakers=1, waiting=1, hello_seconds=60)
    service = service_of(voice, limits, access=Access(token))
    with TestClient(build(service)) as client, ExitStack() as stack:
        first, second = (
            stack.enter_context(client.websocket_connect("/v1/stream")) for _ in range(2)
        )
        assert talk(client, SPEECH.tobytes(), [], token=token)
        assert "others came" in closed(first, 1008)
        second.send_json({"token": token})
        assert second.receive_json()["ready"], "it was not the one silent longest"
        second.send_json({"end": True})
        assert second.receive_json() == {"end": True, "groups": 0}
        assert "token" in refused(client, "{}", code=1008), "a stranger has no place"


def test_a_draining_service_greets_nobody(voice: Voice) -> None:
    service = service_of(voice)
    with TestClient(build(service)) as client:
        assert client.portal is not None
        with client.websocket_connect("/v1/stream") as early:
            client.portal.call(service.gate.drain)
            assert "about to end" in refused(client, code=1013)
            early.send_json({})
            assert "about to end" in closed(early, 1013)
