import asyncio
import gc
import socket
import time
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.websockets import WebSocketDisconnect
from websockets.sync.client import connect

from s2vgan.errors import SourceError
from serve import batching
from serve.access import Access
from serve.api import build
from serve.batching import AHEAD, Batcher, Session
from serve.limits import Limits
from serve.messages import MAX_MESSAGE
from serve.observability import Meters
from serve.voices import Voice
from tests.serve.lines import SPEECH, as_shown, parts_of, refused, shown, talk
from tests.serve.sounds import RATE, refusal, served, service_of, soon, sound, tone


@pytest.fixture(scope="module")
def quick(voice: Voice) -> Iterator[TestClient]:
    """A service that does not wait long."""
    limits = Limits(hello_seconds=1, idle=1, seconds=3, speakers=2, waiting=0)
    with TestClient(build(service_of(voice, limits))) as client:
        yield client


def test_each_group_is_a_message_of_jpegs_with_its_time(quick: TestClient, voice: Voice) -> None:
    messages = talk(quick, SPEECH.tobytes(), [1, 1001, 20_003], seed=3, size=64)
    for number, message in enumerate(messages):
        told, seconds, files = parts_of(message)
        assert told == number and seconds == pytest.approx(number * 0.1) and len(files) == 3
    right, wrong = (as_shown(voice, SPEECH, seed, 64) for seed in (3, 4))
    assert np.abs(shown(messages) - right).mean() < 0.5
    assert np.abs(shown(messages) - wrong).mean() > 2


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 2 * len(SPEECH)), max_size=8).map(sorted))
def test_chunks_of_any_length_give_what_the_file_gives(cuts: list[int], voice: Voice) -> None:
    """Through the batcher, beside another stream; before encoding, within 1/255."""
    samples = SPEECH.astype(np.float32) / 32768

    async def collect(session: Session) -> np.ndarray:
        return np.concatenate([frames async for frames in session.frames()])

    async def both() -> tuple[np.ndarray, np.ndarray]:
        batcher = Batcher(Meters())
        file = batcher.open(voice.synthesizer.stream(5))
        live = batcher.open(voice.synthesizer.stream(5), live=True)
        file.feed(samples)
        file.end()
        tasks = [asyncio.create_task(collect(one)) for one in (file, live)]
        bounds = [0, *(cut // 2 for cut in cuts), len(samples)]
        for start, end in zip(bounds, bounds[1:], strict=False):
            live.feed(samples[start:end])
            await asyncio.sleep(0)
        live.end()
        made = await asyncio.gather(*tasks)
        file.close()
        live.close()
        return made[0], made[1]

    made = asyncio.run(both())
    wanted = voice.synthesizer.speak(samples, seed=5).astype(int)
    assert np.abs(voice.synthesizer.speak(samples, seed=6) - wanted).max() > 10, "seeds count"
    for frames in made:
        assert frames.shape == wanted.shape and np.abs(frames - wanted).max() <= 1


def test_who_does_not_take_frames_is_left_out_and_others_go_on(voice: Voice) -> None:
    async def run() -> tuple[int, int]:
        batcher = Batcher(Meters())
        slow, other = (batcher.open(voice.synthesizer.stream(), live=True) for _ in range(2))
        for session in (slow, other):
            session.feed(tone(3))
            session.end()
        took = sum([len(frames) async for frames in other.frames()])
        left = slow.stream.ready  # groups that wait for it, and were not made
        other.close()
        slow.close()
        await asyncio.sleep(0.05)
        assert batcher._task is None, "the loop ends with the last stream"
        return took, left

    took, left = asyncio.run(run())
    assert took >= 90 and left >= 30 - AHEAD


def test_an_end_does_not_wait_for_the_speech_of_others(voice: Voice) -> None:
    async def run() -> int:
        batcher = Batcher(Meters())
        file = batcher.open(voice.synthesizer.stream())
        file.feed(tone(10))
        file.end()
        live = batcher.open(voice.synthesizer.stream(), live=True)
        live.end()

        async def listen() -> None:
            async for _ in file.frames():
                pass

        listening = asyncio.create_task(listen())
        assert [frames async for frames in live.frames()] == []
        left = file.stream.ready
        await listening
        for session in (file, live):
            session.close()
        return left

    assert asyncio.run(run()) > 50, "of the 100 groups of the file"


def test_speech_may_end_while_its_groups_are_made(
    voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end is heard in the middle of the forward after which nothing is ready."""
    whole = len(voice.synthesizer.speak(tone(0.3)))

    async def run() -> int:
        batcher, loop = Batcher(Meters()), asyncio.get_running_loop()
        session = batcher.open(voice.synthesizer.stream(), live=True)

        def advance(streams: Any, most: int) -> list[np.ndarray]:
            if not session._ended and streams[0].ready == 1:
                loop.call_soon_threadsafe(session.end)
            elif session._ended:
                time.sleep(0.2)  # meanwhile whoever waits for frames has looked
            return real(streams, most)

        real = batching.advance
        monkeypatch.setattr(batching, "advance", advance)
        session.feed(tone(0.3))
        return sum([len(frames) async for frames in session.frames()])

    assert asyncio.run(run()) == whole


def test_speech_that_is_none_harms_its_own_stream_alone(voice: Voice) -> None:
    async def run() -> int:
        batcher = Batcher(Meters())
        bad, good = (batcher.open(voice.synthesizer.stream()) for _ in range(2))
        bad.feed(np.full(5000, np.nan, np.float32))
        good.feed(tone(1))
        good.end()
        with pytest.raises(SourceError, match="finite"):
            _ = [frames async for frames in bad.frames()]
        return sum([len(frames) async for frames in good.frames()])

    assert asyncio.run(run()) == 30


@pytest.mark.parametrize(
    ("messages", "code", "words"),
    [
        (["nonsense"], 1008, "JSON"),
        (['{"sead": 0}'], 1008, "sead"),
        (['{"seed": -1}'], 1008, "seed"),
        (['{"size": 33}'], 1008, "multiple of this model's 32"),
        (['{"label": false}'], 1008, "leave it on"),
        (['{"model": "../../etc/passwd"}'], 1008, "NAME@ALIAS"),
        ([b"\0\0\0"], 1008, "first message is JSON"),
        (["{}", "{}"], 1008, "end"),
        (["{}", '{"end": false}'], 1008, "end"),
        (["{}", '{"end": "true"}'], 1008, "end"),
        (["{}", '{"shown": 1}'], 1008, "none of 0 to 0"),
        (["{}", '{"shown": -1}'], 1008, "shown"),
        (["{}", '{"shown": "0"}'], 1008, "shown"),
        (["{}", '{"shown": true}'], 1008, "shown"),
        (["{}", '{"shown": 0, "all": true}'], 1008, "all"),
        (["{}", b"0" * (MAX_MESSAGE + 1)], 1009, "smaller"),
        (["{}", b"0" * (2 * RATE * 2), b"0" * (2 * RATE * 2)], 1009, "holds 3 s"),
        (["{}"], 1008, "behind real time"),
        ([], 1008, "no first message came"),
    ],
)
def test_nonsense_and_silence_are_refused_with_a_sentence(
    messages: list[str | bytes], code: int, words: str, quick: TestClient
) -> None:
    assert words in refused(quick, *messages, code=code)
    assert talk(quick, SPEECH.tobytes(), []), "the next one is served"


def test_what_a_vanished_client_held_is_freed_at_once(
    voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the collector of cycles: its rare rounds would find hundreds of MB."""
    service, seen = service_of(voice), []

    def open_(stream: Any, live: bool = False) -> Session:
        session = Batcher.open(service.batcher, stream, live)
        seen.append(weakref.ref(session))
        return session

    monkeypatch.setattr(service.batcher, "open", open_)
    gc.disable()
    try:
        with served(build(service)) as where:
            for _ in range(2):
                line = connect(f"ws://{where}/v1/stream")
                line.send("{}")
                line.recv()
                line.send(SPEECH.tobytes())
                line.recv()
                line.socket.shutdown(socket.SHUT_RDWR)
            assert soon(lambda: len(seen) == 2 and not any(one() for one in seen))
    finally:
        gc.enable()


def test_clients_that_vanish_or_do_not_read_leave_nothing_behind(voice: Voice) -> None:
    service = service_of(voice, Limits(idle=1.0))
    with served(build(service)) as where:
        for number in range(3):
            line = connect(f"ws://{where}/v1/stream")
            line.send('{"size": 512}')
            line.send(SPEECH.tobytes())
            if number:
                line.recv()
            line.socket.close()  # without a word
        reader = socket.create_connection(tuple(where.split(":")))  # type: ignore[arg-type]
        reader.sendall(
            f"GET /v1/stream HTTP/1.1\r\nHost: {where}\r\nConnection: Upgrade\r\n"
            "Upgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )  # shakes hands, and says nothing more
        with connect(f"ws://{where}/v1/stream") as other:
            other.send("{}")
            other.send(SPEECH.tobytes())
            other.send('{"end": true}')
            received = list(other)
        assert len(received) == 1 + 13 + 1, "who behaves is served"
        assert soon(lambda: service.gate.inside == 0 and not service.batcher._sessions)
        reader.close()


def test_no_more_lines_than_allowed(voice: Voice) -> None:
    with (
        TestClient(build(service_of(voice, Limits(speakers=1, waiting=0)))) as client,
        client.websocket_connect("/v1/stream") as line,
    ):
        line.send_json({})
        assert line.receive_json()["ready"]
        assert "too many" in refused(client, "{}", code=1013)
        answer = client.post("/v1/speak", content=sound(0.5))
        assert answer.status_code == 429 and answer.headers["retry-after"] == "5"
        assert "too many" in refusal(answer)
        line.send_json({"end": True})
        assert line.receive_json() == {"end": True, "groups": 0}


def test_the_token_is_in_the_first_message(voice: Voice) -> None:
    service = service_of(voice, access=Access("a token of the house"))
    with TestClient(build(service)) as client:
        for hello in ("{}", '{"token": "another"}'):
            assert "token" in refused(client, hello, code=1008)
        assert talk(client, SPEECH.tobytes(), [], token="a token of the house")


def test_pages_of_other_hosts_hear_nothing(voice: Voice) -> None:
    with TestClient(build(service_of(voice))) as client:
        with (
            pytest.raises(WebSocketDisconnect),
            client.websocket_connect("/v1/stream", headers={"Origin": "https://evil.example"}),
        ):
            pass
        own = {"Origin": "http://localhost:8000", "Host": "localhost:8000"}
        with client.websocket_connect("/v1/stream", headers=own) as line:
            line.send_json({})
            assert line.receive_json()["ready"]
            line.send_json({"end": True})
            while line.receive().get("type") != "websocket.close":
                pass
