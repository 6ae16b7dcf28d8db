"""Clients of WS /v1/stream, and what they hear."""

import io
import json
import struct
from collections.abc import Sequence
from typing import Any

import av
import numpy as np
import pytest
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from serve.pictures import Finish, live_message
from serve.voices import Voice
from tests.serve.sounds import RATE, service_of, tone

SPEECH = (tone(1.27) * 32767).astype("<i2")


def parts_of(message: bytes) -> tuple[int, float, list[bytes]]:
    """A binary message, by the documented layout."""
    number, count, seconds = struct.unpack_from("<IId", message)
    sizes = struct.unpack_from(f"<{count}I", message, 16)
    ends = 16 + 4 * count + np.cumsum([0, *sizes])
    assert ends[-1] == len(message)
    return number, seconds, [message[a:b] for a, b in zip(ends, ends[1:], strict=False)]


def shown(messages: Sequence[bytes]) -> np.ndarray:
    """The pictures (n, S, S, 3) in groups' messages."""
    pictures = []
    for message in messages:
        for file in parts_of(message)[2]:
            with av.open(io.BytesIO(file), "r", "image2pipe") as picture:
                pictures.append(next(picture.decode(video=0)).to_ndarray(format="rgb24"))
    return np.stack(pictures).astype(float)


def as_shown(voice: Voice, speech: np.ndarray, seed: int, size: int) -> np.ndarray:
    """The pictures of (n,) int16 speech by the library, sent as those of a live stream are."""
    spec = voice.synthesizer.spec
    spoken = voice.synthesizer.speak(speech.astype(np.float32) / 32768, seed=seed)
    pictures = np.stack(Finish(service_of(voice), spec, size, True)(spoken))
    return shown(
        [live_message(0, 0, list(group)) for group in np.split(pictures, len(pictures) // 3)]
    )


def talk(client: TestClient, data: bytes, cuts: list[int], **hello: Any) -> list[bytes]:
    """All binary messages for a speech that is sent in pieces; it says that they have come."""
    got: list[bytes] = []
    with client.websocket_connect("/v1/stream") as line:
        line.send_json(hello)
        ready = line.receive_json()
        assert ready["ready"] and ready["sample_rate"] == RATE
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            line.send_bytes(data[start:end])
        line.send_text('{"end": true}')
        while (message := line.receive()).get("bytes"):
            got.append(message["bytes"])
            if len(got) % ready["window"] == 0:
                line.send_json({"shown": len(got)})
        assert json.loads(message["text"]) == {"end": True, "groups": len(got)}
    return got


def refused(client: TestClient, *messages: str | bytes, code: int) -> str:
    """The sentence with which a stream is refused, after some messages."""
    with client.websocket_connect("/v1/stream") as line:
        for message in messages:
            line.send_text(message) if isinstance(message, str) else line.send_bytes(message)
        while "ready" in (answer := line.receive_json()):
            pass
        with pytest.raises(WebSocketDisconnect) as end:
            line.receive_json()
    assert end.value.code == code and answer["title"]
    return str(answer["detail"])
