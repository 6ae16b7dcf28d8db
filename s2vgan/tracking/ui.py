"""MLflow's pages."""

import os
import sys
import tempfile
from typing import NoReturn

from s2vgan.errors import ServiceError
from s2vgan.ports import require_free_port
from s2vgan.tracking.store import database_of, tracking_uri


def serve_ui(port: int = 5000, host: str = "127.0.0.1") -> NoReturn:
    """Become MLflow's server, with its pages on http://host:port, until interrupted.

    Raises:
        ServiceError: if the port is taken, or the store is a server (which has pages of its own).
    """
    uri = tracking_uri()
    if uri.startswith(("http://", "https://")):
        raise ServiceError(f"MLflow is a server already: open {uri} in a browser.")
    require_free_port(port, host)
    database = database_of(uri)
    artifacts = str(database.parent / "mlartifacts") if database else tempfile.gettempdir()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    command += ["--artifacts-destination", artifacts, "--host", host, "--port", str(port)]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    print(f"MLflow shows {uri} on http://{host}:{port} (Ctrl-C ends it).", flush=True)
    # In place of this process: signals reach the server itself, and nothing is left behind.
    os.execve(sys.executable, [*command, "--workers", "1"], quiet | os.environ)
