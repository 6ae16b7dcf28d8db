"""The real service as a process of its own, and what Linux's /proc tells of its replica."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch

from s2vgan import artifact
from s2vgan.config import Config
from s2vgan.models import TalkingFace
from s2vgan.spec import GroupSpec

ROOT: Final = Path(__file__).resolve().parents[1]
HOST: Final = "127.0.0.1"
START_SECONDS: Final = 300.0  # until a service on a busy machine is given up
END_SECONDS: Final = 90.0  # more than it gives those who speak
_REPLICA: Final = "ray::ServeReplica"
_OURS: Final = ("S2VGAN_", "RAY_", "MLFLOW_")  # variables that would make it another service


def save_model(run: Path) -> Path:
    """Write a run folder that holds the default model with random weights, at 64x64."""
    torch.manual_seed(0)
    config = Config()
    face = TalkingFace(config.model, GroupSpec())
    artifact.save(
        run / artifact.FOLDER, face, config, name="bench", dataset="0" * 64, step=0, readings={}
    )
    return run


class Service:
    """``python serve/app.py`` on a free port, until the end of a ``with`` block.

    All that it has started ends with it, however the block is left.

    Args:
        model: run folder.
        folder: for its log and its MLflow store.
        settings: environment variables of Ray Serve.
        arguments: further ones of serve/app.py.

    Attributes:
        port: that it listens on.
    """

    def __init__(
        self, model: Path, folder: Path, settings: Mapping[str, str], arguments: tuple[str, ...]
    ) -> None:
        self.port = _free_port()
        self._command = [sys.executable, "serve/app.py", "--port", str(self.port)]
        self._command += ["--model", str(model), *arguments]
        self._log = folder / "service.log"
        kept = {key: value for key, value in os.environ.items() if not key.startswith(_OURS)}
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        store = f"sqlite:///{folder}/mlflow.db"
        own = {"PYTHONPATH": path, "MLFLOW_TRACKING_URI": store, "RAY_USAGE_STATS_ENABLED": "0"}
        self._environment = kept | own | dict(settings)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Service":
        """Start it, and wait until it can speak.

        Raises:
            RuntimeError: if it does not come up.
        """
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._environment, stdout=log, stderr=log
            )
        try:
            self._wait()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._end()

    def replica(self) -> int:
        """The process that speaks.

        Raises:
            RuntimeError: if there is none, or more than one.
        """
        assert self._process is not None
        found = [
            pid for pid in descendants(self._process.pid) if _command(pid).startswith(_REPLICA)
        ]
        if len(found) != 1:
            raise RuntimeError(f"{len(found)} replicas run, not 1; see {self._log}.")
        return found[0]

    def ready(self) -> bool:
        """Whether ``/readyz`` says yes at this moment."""
        line = http.client.HTTPConnection(HOST, self.port, timeout=10)
        try:
            line.request("GET", "/readyz")
            return line.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            line.close()

    def _wait(self) -> None:
        assert self._process is not None
        end = time.monotonic() + START_SECONDS
        while not self.ready():
            if self._process.poll() is not None or time.monotonic() > end:
                said = self._log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"the service did not start:\n{said}")
            time.sleep(0.5)

    def _end(self) -> None:
        """Ask it to end, and kill what is left of it and of what it started."""
        assert self._process is not None
        started = {pid: born(pid) for pid in descendants(self._process.pid)}
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_SECONDS)
        self._process.kill()
        self._process.wait()
        for pid, when in started.items():
            if when and born(pid) == when:  # and not another process under an old number
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def memory(pid: int) -> float:
    """Memory of a process in MB: its proportional set size, pages that it shares divided."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"/proc/{pid}/smaps_rollup tells no Pss.")


def descendants(root: int) -> list[int]:
    """All that a process has started, and they in turn."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _status(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, new = [], [root]
    while new:
        new = [child for pid in new for child in children.get(pid, [])]
        found += new
    return found


def _status(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on; none if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def born(pid: int) -> str:
    """When a process started, in ticks since the machine did; empty if there is none."""
    fields = _status(pid)
    return fields[19] if fields and fields[0] != "Z" else ""


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def _free_port() -> int:
    with socket.socket() as free:
        free.bind((HOST, 0))
        return int(free.getsockname()[1])
