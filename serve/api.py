"""The HTTP interface: one FastAPI application around one replica. No Ray."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel
from starlette.middleware.cors import CORSMiddleware

from s2vgan import __version__
from serve import live, problems, speak
from serve.access import OriginCheck, TokenCheck
from serve.observability import REQUEST_ID, RequestLog
from serve.problems import Refusal, described
from serve.service import Service
from serve.voices import ModelName

_STATIC = Path(__file__).parent / "static"
_DESCRIPTION = """Speech in, the talking face out.

What comes back is synthetic and is marked as such: a visible label and a watermark on all pictures.

`WS /v1/stream` takes speech while it is spoken. Send JSON first, such as `{"seed": 0}` (also
`size`, `token`, `model`, `label`), then 16-bit mono PCM at 16 kHz in binary messages of any length,
and last `{"end": true}`. For each group of 3 pictures a binary message comes back, little endian:
uint32 number of the group, uint32 n pictures, float64 time of the first in seconds, n x uint32
bytes of each JPEG, and the JPEGs.

A client says now and then how many groups have come, `{"shown": 20}`. It is sent at most `window`
more than these (the ready message names it: 200, which are 20 s), and is left if it says nothing
for 20 s after that. Speech comes in real time, silence as zeros: a client whose speech is 20 s
behind the time since the ready message is left. It may be 60 s ahead of its groups."""
_METRICS = "text/plain; version=0.0.4; charset=utf-8"
_OPEN: dict[str, Any] = {"security": []}  # asks for no token, whoever may ask for the rest
_TOKEN = described(401, "this service asks for its token: Authorization: Bearer TOKEN.")


class Alive(BaseModel):
    """The process answers."""

    status: str = "ok"


class Ready(BaseModel):
    """A model can speak."""

    status: str = "ready"
    model: str


class Spec(BaseModel):
    """What a group is."""

    fps: int
    frames_per_group: int
    sample_rate: int
    size: int
    crop: str
    version: int


class Card(BaseModel):
    """The model that speaks."""

    name: str
    version: str | None
    reference: str
    spec: Spec
    mlflow_run: str | None
    dataset: str
    sha256: str
    kind: str
    engine: str
    step: int
    created: str
    consent: str


def build(service: Service) -> FastAPI:
    """The application; every error answers with an RFC 9457 problem that says what to do."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        follower = asyncio.create_task(service.voices.follow())
        yield
        follower.cancel()
        with suppress(asyncio.CancelledError):
            await follower

    api = FastAPI(
        title="S2V-GAN",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's own pages load their scripts from elsewhere
        redoc_url=None,
    )
    problems.handle(api)
    api.add_middleware(TokenCheck, access=service.access)
    api.add_middleware(OriginCheck, access=service.access)
    if service.access.origins:
        api.add_middleware(
            CORSMiddleware,
            allow_origins=service.access.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", REQUEST_ID],
            expose_headers=[REQUEST_ID, "Retry-After", "Server-Timing"],
        )
    api.add_middleware(RequestLog, meters=service.meters)
    api.include_router(_about(service))
    api.include_router(speak.router(service))
    api.include_router(live.router(service))
    if service.access.token:
        _show_token(api)
    return api


def _about(service: Service) -> APIRouter:
    routes = APIRouter(tags=["about"])

    @routes.get("/", include_in_schema=False)
    def page() -> FileResponse:
        return FileResponse(_STATIC / "index.html")

    @routes.get("/docs", include_in_schema=False)
    def docs() -> FileResponse:
        return FileResponse(_STATIC / "docs.html")

    @routes.get("/healthz", openapi_extra=_OPEN)
    async def healthz() -> Alive:
        """The process answers."""
        return Alive()

    @routes.get(
        "/readyz",
        responses=described(503, "this service is about to end.", retry=True),
        openapi_extra=_OPEN,
    )
    async def readyz() -> Ready:
        """A model is loaded and has spoken once (before that, nothing answers here)."""
        if service.gate.draining:
            raise Refusal(503, "this service is about to end; ask another.", 5)
        return Ready(model=service.voices.champion.reference)

    @routes.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {_METRICS: {}}}, **_TOKEN},
    )
    async def metrics() -> Response:
        """Metrics of this replica for Prometheus."""
        gate = service.gate
        page = service.meters.page(gate.inside, gate.speaking)
        return Response(page, media_type=_METRICS)

    @routes.get(
        "/v1/model",
        responses={
            **_TOKEN,
            **described(404, "no registered model NAME; leave model out for the default."),
            **described(422, "model: use NAME, NAME@ALIAS or NAME/VERSION."),
            **described(503, "model NAME cannot be looked up now; try again.", retry=True),
        },
    )
    async def model(
        model: Annotated[ModelName | None, Query(examples=["s2vgan@champion"])] = None,
    ) -> Card:
        """The model that speaks: name, version, spec, and what it was made from."""
        return Card(**(await service.voices.get(model)).card())

    return routes


def _show_token(api: FastAPI) -> None:
    """Let the OpenAPI file say that a token is asked for."""
    schema = api.openapi()
    schema.setdefault("components", {})["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer"}
    }
    schema["security"] = [{"token": []}]
