"""The Ray Serve application.

On this machine::

    python serve/app.py --model runs/demo/run
    serve run serve.app:app model=runs/demo/run

On a cluster: ``serve deploy serve/config.yaml``. The model is a run folder or a registered model;
by default S2VGAN_MODEL, and without it the champion.
"""

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import ray
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve import Application
from ray.serve.config import BackpressureConfig
from ray.serve.context import _get_global_client
from ray.serve.handle import DeploymentHandle

from s2vgan import __version__, cluster, tracking
from s2vgan.engine import Engine
from s2vgan.errors import S2VError
from s2vgan.media import StreamWriter
from s2vgan.ports import require_free_port
from s2vgan.provenance import Origin, sign_bytes, watermark_key
from serve.access import Access
from serve.api import build
from serve.limits import Limits
from serve.observability import Meters, log_to_stderr
from serve.service import Service
from serve.voices import Voice, Voices

HOST = "127.0.0.1"  # nobody but this machine
PORT = 8000
DRAIN_SECONDS = 60.0  # that those who speak are given when the service ends
SPARE_REQUESTS = 32  # that a replica takes beyond those who speak and wait
HEALTH_SECONDS = 1.0  # until a replica that has died is missed; Ray Serve's own 10 are felt
# For how long a proxy of Ray's at least says that it still drains, 30 s by default.
_PROXY_PERIOD = "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S"


def default_model() -> str:
    """S2VGAN_MODEL, or the champion."""
    return os.environ.get("S2VGAN_MODEL") or tracking.CHAMPION


class Settings(BaseModel):
    """Arguments of the application: ``args`` in config.yaml, ``key=value`` after ``serve run``.

    Attributes:
        model: run folder, ``models:/s2vgan@champion``, ``models:/s2vgan/3``, ``runs:/<id>/model``.
        mlflow: URI of the MLflow store that knows it.
        engine: that makes the frames: ``onnx``, ONNX Runtime, which takes models of one face on
            the CPU and leaves others to PyTorch; or ``torch``.
        unlabelled: whether a request may switch the visible label off.
        max_body: bytes of a sound file, at most.
        max_seconds: of speech of a request or a live stream.
        speakers: requests and live streams that a replica serves at a time.
        waiting: requests that may wait for their turn.
    """

    model_config = ConfigDict(extra="forbid")

    model: str = Field(default_factory=default_model)
    mlflow: str = Field(default_factory=tracking.tracking_uri)
    engine: Engine = "onnx"
    unlabelled: bool = False
    max_body: int = Field(default=Limits.body, ge=1)
    max_seconds: float = Field(default=Limits.seconds, gt=0)
    speakers: int = Field(default=Limits.speakers, ge=1)
    waiting: int = Field(default=Limits.waiting, ge=0)


@serve.deployment(
    max_queued_requests=32,
    backpressure_config=BackpressureConfig(status_code=429, retry_after_s=5),
    max_constructor_retry_count=2,  # a model that is not there will not be there in a minute
    graceful_shutdown_timeout_s=DRAIN_SECONDS,
    health_check_period_s=HEALTH_SECONDS,
)
@serve.ingress()
class Speaker:
    """One replica: loads its model once, then speaks."""

    def __init__(self, settings: dict[str, Any]) -> None:
        log_to_stderr()
        access = Access.from_environment()
        for host in _hosts():
            access.require_for(host)
        _check_marks()
        chosen = Settings(**settings)
        limits = Limits(
            body=chosen.max_body,
            seconds=chosen.max_seconds,
            speakers=chosen.speakers,
            waiting=chosen.waiting,
        )
        first = Voice.load(chosen.model, chosen.mlflow, chosen.engine)
        self._service = Service(
            Voices(chosen.model, chosen.mlflow, first, engine=chosen.engine),
            limits,
            access,
            chosen.unlabelled,
            Meters(serve.get_replica_context().replica_id.unique_id),
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Ray Serve once the model is loaded."""
        return build(self._service)

    async def drain(self) -> None:
        """Let nobody in any more, and wait for those who speak."""
        await self._service.gate.drain()


def _check_marks() -> None:
    """Find out at the start what would fail at the first film, by signing three black frames.

    Raises:
        ConfigError: if the key of the watermark, the certificate or c2pa-python cannot be used.
    """
    watermark_key()
    writer = StreamWriter("mp4", 30, None, 16000)
    movie = writer.write(np.zeros((3, 16, 16, 3), np.uint8)) + writer.finish()
    sign_bytes(movie, Origin("start", __version__, "", "", ""))


def _hosts() -> list[str]:
    """Addresses that Ray Serve binds; none where it runs without a cluster."""
    client = _get_global_client(raise_if_no_controller_running=False)
    return [] if client is None else [client.http_config.host]


def app(settings: Settings) -> Application:
    """Build the application; Ray Serve calls this with the arguments it was given."""
    ref = settings.model
    if not ref.startswith("models:/"):  # an alias stays one: each replica follows it
        ref = tracking.resolve(ref)
    arguments = settings.model_dump() | {"model": ref}
    # More than the application lets in, so that it can refuse by itself, and be asked how it is.
    ongoing = settings.speakers + settings.waiting + SPARE_REQUESTS
    return Speaker.options(max_ongoing_requests=ongoing).bind(arguments)  # type: ignore[attr-defined]


def main(argv: Sequence[str] | None = None) -> int:
    """Serve on this machine until Ctrl-C or SIGTERM; 2 if that cannot start."""
    parser = argparse.ArgumentParser(prog="serve/app.py", description="Serve a talking face.")
    parser.add_argument("--model", default=default_model(), help="run folder or models:/NAME@ALIAS")
    parser.add_argument("--host", default=HOST, help="0.0.0.0 for the network; asks for a token")
    parser.add_argument("--port", type=int, default=PORT)
    parser.add_argument(
        "--speakers", type=int, default=Limits.speakers, help="requests and streams at a time"
    )
    options = parser.parse_args(argv)
    try:
        Access.from_environment().require_for(options.host)
        _check_marks()
        require_free_port(options.port, options.host)
        Voice.load(options.model)  # say what is wrong with the model before anything starts
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        # Ray lets its workers give way to all other processes; speech cannot wait.
        os.environ.setdefault("RAY_worker_niceness", "0")
        os.environ.setdefault(_PROXY_PERIOD, "0.1")  # before Ray starts: see _drain
        cluster.connect()
        serve.start(http_options={"host": options.host, "port": options.port})
        # It answers before run() returns: from here on SIGTERM lets those who speak finish.
        ended = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: ended.set())
        handle = serve.run(app(Settings(model=options.model, speakers=options.speakers)))
    except S2VError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"Open http://localhost:{options.port}/ (Ctrl-C ends it).", flush=True)
    signal.signal(signal.SIGINT, lambda *_: ended.set())
    ended.wait()
    _drain(handle)
    if not cluster.is_local():  # a local Ray ends with this process
        serve.shutdown()
    return 0


def _drain(handle: DeploymentHandle) -> None:
    """Let those who speak finish; a second Ctrl-C does not wait for them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    end = time.monotonic() + DRAIN_SECONDS
    try:
        handle.drain.remote().result(timeout_s=DRAIN_SECONDS)
        _deliver(end)
    except TimeoutError:
        print(f"Some still spoke after {DRAIN_SECONDS:g} s; ended.", file=sys.stderr)
    except KeyboardInterrupt:
        print("Ended at once.", file=sys.stderr)


def _deliver(end: float) -> None:
    """Wait for Ray's proxies: they take what is made at once, and clients may read it slowly.

    Args:
        end: when it is too late, on the monotonic clock.

    Raises:
        TimeoutError: if it is.
    """
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:  # has been shut down from elsewhere
        return
    controller = client._controller
    proxies = list(ray.get(controller.get_proxies.remote()).values())
    ray.get([proxy.update_draining.remote(True) for proxy in proxies])
    while not all(ray.get([proxy.is_drained.remote() for proxy in proxies])):
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
