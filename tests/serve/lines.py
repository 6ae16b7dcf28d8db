"""Clients of WS /v1/stream, and what they hear."""

import json
import struct
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from tests.serve.sounds import RATE, tone

SPEECH = (tone(1.27) * 32767).astype("<i2")


def parts_of(message: bytes) -> tuple[int, float, list[bytes]]:
    """A binary message, by the documented layout."""
    number, count, seconds = struct.unpack_from("<IId", message)
    sizes = struct.unpack_from(f"<{count}I", message, 16)
    ends = 16 + 4 * count + np.cumsum([0, *sizes])
    assert ends[-1] == len(message)
    return number, seconds, [message[a:b] for a, b in zip(ends, ends[1:], strict=False)]


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
