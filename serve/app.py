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
import sys
import threading
from collections.abc import Sequence

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.serve import Application

from s2vgan import cluster, tracking
from s2vgan.errors import S2VError
from s2vgan.ports import require_free_port
from serve.api import Voice, build

HOST = "127.0.0.1"  # nobody but this machine: there is no authentication yet
PORT = 8000


def default_model() -> str:
    """S2VGAN_MODEL, or the champion."""
    return os.environ.get("S2VGAN_MODEL") or tracking.CHAMPION


class Settings(BaseModel):
    """Arguments of the application: ``args`` in config.yaml, ``key=value`` after ``serve run``.

    Attributes:
        model: run folder, ``models:/s2vgan@champion``, ``models:/s2vgan/3``, ``runs:/<id>/model``.
        mlflow: URI of the MLflow store that knows it.
    """

    model_config = ConfigDict(extra="forbid")

    model: str = Field(default_factory=default_model)
    mlflow: str = Field(default_factory=tracking.tracking_uri)


@serve.deployment(
    max_ongoing_requests=8,
    max_queued_requests=32,
    max_constructor_retry_count=2,  # a model that is not there will not be there in a minute
)
@serve.ingress()
class Speaker:
    """One replica: loads its model once, then speaks."""

    def __init__(self, model: str, mlflow: str) -> None:
        self._voice = Voice.load(model, mlflow)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Ray Serve once the model is loaded."""
        return build(self._voice)


def app(settings: Settings) -> Application:
    """Build the application; Ray Serve calls this with the arguments it was given."""
    ref = settings.model
    if not ref.startswith("models:/"):  # an alias stays one: each replica asks when it starts
        ref = tracking.resolve(ref)
    return Speaker.bind(ref, settings.mlflow)  # type: ignore[attr-defined]  # a decorated class


def main(argv: Sequence[str] | None = None) -> int:
    """Serve on this machine until Ctrl-C; 2 if that cannot start."""
    parser = argparse.ArgumentParser(prog="serve/app.py", description="Serve a talking face.")
    parser.add_argument("--model", default=default_model(), help="run folder or models:/NAME@ALIAS")
    parser.add_argument("--port", type=int, default=PORT)
    options = parser.parse_args(argv)
    try:
        require_free_port(options.port, HOST)
        Voice.load(options.model)  # say what is wrong with the model before anything starts
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        cluster.connect()
        serve.start(http_options={"host": HOST, "port": options.port})
        serve.run(app(Settings(model=options.model)))
    except S2VError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"Open http://localhost:{options.port}/ (Ctrl-C ends it).", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        if not cluster.is_local():  # a local Ray ends with this process
            serve.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
