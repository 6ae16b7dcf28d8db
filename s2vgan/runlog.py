"""What a training run writes down as it goes: RUN/run.json, and a line of RUN/metrics.jsonl."""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from s2vgan.errors import RunError
from s2vgan.files import write_text

RUN_FILE, METRICS = "run.json", "metrics.jsonl"


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say which file of a run could not be written, and how to go on.

    Raises:
        RunError: in place of an OSError of what is done inside.
    """
    try:
        yield
    except OSError as error:
        raise RunError(unwritten(path, error.strerror or str(error))) from error


def unwritten(path: Path, reason: str) -> str:
    """The sentence about a file of a run that could not be written."""
    return (
        f"{path}: cannot be written ({reason}); make room there, then the same command with "
        "--resume goes on from the latest checkpoint, or without it if there is none."
    )


def read_run(run: str | Path) -> dict[str, Any]:
    """The contents of RUN/run.json, empty if there is none.

    They are ``name``, ``data``, ``dataset``, ``tags`` (of MLflow), ``parent`` (MLflow run of the
    sweep), ``begun`` and ``ended`` (ms since 1970), ``status`` (RUNNING, FINISHED, FAILED or
    KILLED), ``step`` (of the latest checkpoint, -1 if there is none), ``mlflow_run``, and
    ``told``: the ``step`` and ``status`` up to which MLflow knows all. ``consent`` says who
    consented that the face is learned; it is no part of the configuration.
    """
    path = Path(run) / RUN_FILE
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def update_run(run: str | Path, **values: Any) -> dict[str, Any]:
    """Put values into RUN/run.json, and return all of it.

    Raises:
        RunError: if it cannot be written.
    """
    path = Path(run) / RUN_FILE
    content = read_run(run) | values
    with writing(path):
        write_text(path, json.dumps(content, indent=2) + "\n")
    return content


class RunLog:
    """Appends to RUN/metrics.jsonl; every line holds ``step`` and ``seconds`` of training.

    Args:
        run: the run's folder; made if missing.
        step: lines after this step are cut off: they were written after the checkpoint from which
            the run goes on.

    Raises:
        RunError: if it cannot be written; what was there is then still there.
    """

    def __init__(self, run: str | Path, step: int = 0) -> None:
        self.path = Path(run) / METRICS
        kept = [line for line in read_log(run) if line["step"] <= step]
        with writing(self.path):
            write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))

    def write(
        self, step: int, seconds: float, values: dict[str, float], warnings: Sequence[str] = ()
    ) -> None:
        """Append one line and hand it to the operating system; ``warnings`` only if there are."""
        line: dict[str, Any] = {"step": step, "seconds": round(seconds, 3)}
        line |= {name: float(f"{value:.6g}") for name, value in values.items()}
        if warnings:
            line["warnings"] = list(warnings)
        with writing(self.path), self.path.open("a") as stream:
            stream.write(json.dumps(line) + "\n")


class LogReader:
    """Reads RUN/metrics.jsonl as it grows, each line once.

    A log that was written anew, as when a run goes on from a checkpoint, is read from its start.

    Args:
        run: the run's folder; neither it nor the log need be there yet.
    """

    def __init__(self, run: str | Path) -> None:
        self._path = Path(run) / METRICS
        self._file, self._read = -1, 0  # its inode; bytes of it

    def new(self) -> list[dict[str, Any]]:
        """The whole lines since the last call; one that a crash has cut off is left out."""
        try:
            stream = self._path.open("rb")
        except (FileNotFoundError, NotADirectoryError):
            return []
        with stream:
            now = os.fstat(stream.fileno())
            if now.st_ino != self._file or now.st_size < self._read:
                self._file, self._read = now.st_ino, 0
            stream.seek(self._read)
            grown = stream.read()
        lines = []
        for text in grown[: grown.rfind(b"\n") + 1].splitlines(keepends=True):
            try:
                lines.append(json.loads(text))
            except ValueError:  # a crash left it, and what follows was never meant to
                break
            self._read += len(text)
        return lines


def read_log(run: str | Path) -> list[dict[str, Any]]:
    """The whole lines of RUN/metrics.jsonl; a last line that was cut off by a crash is left out."""
    return LogReader(run).new()
