"""What a client says on a live line, beside its speech."""

from typing import TypeVar

from fastapi import WebSocket
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.websockets import WebSocketDisconnect

from serve.problems import Refusal
from serve.voices import ModelName

MAX_MESSAGE = 1 << 20  # bytes

_Said = TypeVar("_Said", bound=BaseModel)


class Hello(BaseModel):
    """The first message of a client.

    Attributes:
        seed: of the noise.
        size: side of the pictures in pixels, a multiple of the model's; by default 4 times it.
        token: where the service asks for one.
        model: NAME, NAME@ALIAS or NAME/VERSION of a registered model.
        label: the visible label; off only where the operator allows it.
    """

    model_config = ConfigDict(extra="forbid")

    seed: int = Field(0, ge=0, lt=2**63)
    size: int | None = Field(None, ge=1, le=8192)
    token: str | None = Field(None, max_length=1024)
    model: ModelName | None = None
    label: bool = True


class Word(BaseModel):
    """What a client says later: ``{"shown": 20}``, and after its speech ``{"end": true}``.

    Attributes:
        shown: groups that it has received so far.
        end: no speech follows; what is left is made, and sent.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    shown: int | None = Field(None, ge=0)
    end: bool = False


def parse(kind: type[_Said], message: str) -> _Said:
    """A message of JSON.

    Raises:
        Refusal: 422 if it is of another kind.
    """
    try:
        return kind.model_validate_json(message)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "message"
        raise Refusal(422, f"{where}: {first['msg']}.") from None


async def receive(websocket: WebSocket) -> str | bytes:
    """The next message.

    Raises:
        Refusal: 413 if it is too large.
        WebSocketDisconnect: if the client has left.
    """
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    text, data = message.get("text"), message.get("bytes")
    content: str | bytes = text if text is not None else data or b""
    if len(content) > MAX_MESSAGE:
        raise Refusal(413, f"a message is larger than {MAX_MESSAGE >> 20} MiB; send smaller ones.")
    return content
