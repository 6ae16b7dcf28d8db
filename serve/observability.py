"""What the service tells of itself: one line of JSON for each request, and Prometheus metrics.

Neither holds any sound, text or picture of a request.
"""

import json
import logging
import re
import time
import uuid
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.problems import Refusal, answer

REQUEST_ID: Final = "X-Request-ID"
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_SECONDS: Final = (0.005, 0.01, 0.02, 0.04, 0.08, 0.12, 0.25, 0.5, 1, 2, 5, 15, 60)
_FACTORS: Final = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_log = logging.getLogger("s2vgan.serve")


class Meters:
    """The metrics of one replica, each with a registry of its own.

    Args:
        replica: name of the replica, a label of all of them.
    """

    def __init__(self, replica: str = "local") -> None:
        registry = self._registry = CollectorRegistry()
        own = {"replica": replica}

        self._requests = Counter(
            "s2vgan_requests", "Answers.", ("replica", "path", "status"), registry=registry
        )
        self._groups = Counter(
            "s2vgan_groups", "Groups of frames made.", ("replica",), registry=registry
        ).labels(**own)
        self._batch = Histogram(
            "s2vgan_batch_streams",
            "Streams that share a forward.",
            ("replica",),
            buckets=(1, 2, 4, 8, 16, 32),
            registry=registry,
        ).labels(**own)
        self._forward = Histogram(
            "s2vgan_forward_seconds",
            "Time of a batch of groups.",
            ("replica",),
            buckets=_SECONDS,
            registry=registry,
        ).labels(**own)
        self._first = Histogram(
            "s2vgan_first_frame_seconds",
            "From the speech of the first group to its frames.",
            ("replica", "kind"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._factor = Histogram(
            "s2vgan_real_time_factor",
            "Time to answer a file over the seconds of its speech.",
            ("replica",),
            buckets=_FACTORS,
            registry=registry,
        ).labels(**own)
        self._speaking = Gauge(
            "s2vgan_speaking", "Requests and streams served now.", ("replica",), registry=registry
        ).labels(**own)
        self._queue = Gauge(
            "s2vgan_queue",
            "Requests that send or wait for a turn.",
            ("replica",),
            registry=registry,
        ).labels(**own)
        self._replica = replica

    def request(self, path: str, status: int) -> None:
        """A request was answered; ``path`` is the route's."""
        self._requests.labels(self._replica, path, status).inc()

    def batch(self, streams: int, groups: int, seconds: float) -> None:
        """A batch of ``groups`` groups of so many streams was made."""
        self._batch.observe(streams)
        self._groups.inc(groups)
        self._forward.observe(seconds)

    def first_frame(self, kind: str, seconds: float) -> None:
        """The first frames of a request are there; ``kind`` is ``file`` or ``live``."""
        self._first.labels(self._replica, kind).observe(seconds)

    def real_time(self, factor: float) -> None:
        """A file was answered, in so many times the duration of its speech."""
        self._factor.observe(factor)

    def page(self, inside: int, speaking: int) -> bytes:
        """All of it in Prometheus's text format."""
        self._speaking.set(speaking)
        self._queue.set(inside - speaking)
        return generate_latest(self._registry)


class RequestLog:
    """ASGI middleware: gives each request an id, logs it, and counts it; a failure is a 500.

    A client's own X-Request-ID is kept if it has at most 64 letters, digits and ``._-``.

    Args:
        app: what is behind it.
        meters: count the answers.
    """

    def __init__(self, app: ASGIApp, meters: Meters) -> None:
        self._app, self._meters = app, meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        given = Headers(scope=scope).get(REQUEST_ID, "")
        request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        status = sent = 0
        scope.setdefault("state", {})["request_id"] = request_id
        began = time.perf_counter()

        async def tell(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID] = request_id
            elif message["type"] == "websocket.accept":
                status = 101
            sent += len(message.get("body") or message.get("bytes") or b"")
            await send(message)

        try:
            await self._app(scope, receive, tell)
        except Exception:
            if status or scope["type"] != "http":
                raise  # it is too late for another answer
            _log.exception("a request failed", extra={"fields": {"id": request_id}})
            failure = Refusal(500, "the service failed on this request; its log says why.")
            await answer(failure)(scope, receive, tell)
        finally:
            route = scope.get("route")
            path = getattr(route, "path", "other")
            self._meters.request(path, status)
            _log.info(
                "request",
                extra={
                    "fields": {
                        "id": request_id,
                        "status": status,
                        "sent": sent,
                        "method": scope.get("method", "WS"),
                        "path": path,
                        "ms": round((time.perf_counter() - began) * 1000, 1),
                    }
                },
            )


class JsonLines(logging.Formatter):
    """A log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """``time``, ``level`` and ``event``, and what else the record knows."""
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def log_to_stderr() -> None:
    """Let the service's log go to stderr as lines of JSON; a second time changes nothing."""
    if not _log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(JsonLines())
        _log.addHandler(handler)
    _log.setLevel(logging.INFO)
    _log.propagate = False
