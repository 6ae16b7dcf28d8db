"""What a training run writes down as it goes: RUN/metrics.jsonl, one JSON object a line."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"


class RunLog:
    """Appends to RUN/metrics.jsonl; every line holds ``step`` and ``seconds`` of training.

    Args:
        run: the run's folder; made if missing.
        step: lines after this step are cut off: they were written after the checkpoint from which
            the run goes on.
    """

    def __init__(self, run: str | Path, step: int = 0) -> None:
        folder = Path(run)
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / METRICS
        kept = [line for line in read_log(folder) if line["step"] <= step]
        self.path.write_text("".join(json.dumps(line) + "\n" for line in kept))

    def write(
        self, step: int, seconds: float, values: dict[str, float], warnings: Sequence[str] = ()
    ) -> None:
        """Append one line and hand it to the operating system; ``warnings`` only if there are."""
        line: dict[str, Any] = {"step": step, "seconds": round(seconds, 3)}
        line |= {name: float(f"{value:.6g}") for name, value in values.items()}
        if warnings:
            line["warnings"] = list(warnings)
        with self.path.open("a") as stream:
            stream.write(json.dumps(line) + "\n")


def read_log(run: str | Path) -> list[dict[str, Any]]:
    """The whole lines of RUN/metrics.jsonl; a last line that was cut off by a crash is left out."""
    path = Path(run) / METRICS
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text().splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines
