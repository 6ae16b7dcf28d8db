"""The report of an evaluation: one HTML file that opens offline, and a table for the terminal."""

import base64
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from s2vgan import figures
from s2vgan.evaluation import Evaluation, Exhibit, Showcase, evaluate
from s2vgan.files import write_text
from s2vgan.media import write_video
from s2vgan.metrics import METRICS
from s2vgan.runlog import read_log

REPORT_FILE = "report.html"
VIDEO_BYTES = 4_500_000  # embedded as base64 a third larger

_ARROWS = {"lower": "↓", "higher": "↑", "one": "→1", "zero": "→0"}
_SPLITS = {"heldout": "Held-out time", "train": "Training time"}
_COLUMNS = 4  # models beside the real face in the video


def write_report(evaluation: Evaluation, out: str | Path) -> Path:
    """Write OUT/report.html, whole or not at all.

    Args:
        evaluation: from :func:`s2vgan.evaluation.evaluate`.
        out: folder.

    Returns:
        Path of the file.
    """
    showcase = evaluation.showcase
    models = [exhibit for exhibit in showcase.exhibits if exhibit.entry.kind == "model"]
    still = [exhibit for exhibit in showcase.exhibits if exhibit.entry.name == "mean_face"]
    shown = models + still
    spec, metrics = evaluation.spec, evaluation.metrics
    logs = {name: read_log(one.run) for name, one in evaluation.contenders.items()}
    losses = figures.loss_plot(logs)
    columns = models[:_COLUMNS]
    video, kept = _video(evaluation, columns) if columns else (b"", 0)
    page = _environment().get_template(REPORT_FILE).render(
        title="Speech to face: evaluation",
        runs=", ".join(evaluation.contenders) or "controls only",
        spec=spec,
        dataset=metrics["dataset"],
        place=_place(showcase.split, len(showcase.real) / spec.fps),
        video=_base64(video),
        video_place=_place(showcase.split, kept / spec.fps),
        columns=["real", *(exhibit.entry.label for exhibit in columns)],
        tables=[_table(metrics, split) for split in _splits(metrics)],
        notes=evaluation.notes,
        frames={name: _base64(png) for name, png in figures.frame_rows(showcase, shown).items()},
        mouths={name: _base64(png) for name, png in figures.mouth_rows(showcase, shown).items()},
        openings=_base64(figures.opening_plot(showcase, models, spec.fps)) if models else "",
        losses=_base64(losses) if losses else "",
        metrics={name: _definition(name) for name in METRICS},
        paper=metrics["paper"],
    )  # fmt: skip
    path = Path(out) / REPORT_FILE
    write_text(path, page)
    return path


def evaluate_and_report(
    data: str | Path, runs: Sequence[str | Path], out: str | Path, **options: Any
) -> Path:
    """Evaluate, write OUT/metrics.json and OUT/report.html, and print the table.

    Args:
        data: the dataset.
        runs: run folders.
        out: folder of the report.
        **options: of :func:`s2vgan.evaluation.evaluate`.

    Returns:
        Path of the report.
    """
    evaluation = evaluate(data, runs, out, **options)
    path = write_report(evaluation, out)
    print(text_table(evaluation.metrics))
    for note in evaluation.notes:
        print(f"- {note}")
    print(f"Report: {path}")
    return path


def text_table(metrics: dict[str, Any]) -> str:
    """The rows of metrics.json as Markdown tables, one per split; the best values in bold."""
    blocks = []
    for split in _splits(metrics):
        table = _table(metrics, split)
        head = ["row", *(f"{item['title']} {item['arrow']}" for item in table["heads"])]
        lines = [head]
        for row in table["rows"]:
            name = " · ".join(part for part in (row["label"], row["way"]) if part)
            cells = [
                "–" if not cell else f"**{cell['value']}**" if cell["best"] else cell["value"]
                for cell in row["cells"]
            ]
            lines.append([name, *cells])
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        lines.insert(1, ["-" * width for width in widths])
        texts = [
            "| "
            + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            + " |"
            for line in lines
        ]
        blocks.append("\n".join([table["title"], "", *texts]))
    return "\n\n".join(blocks) + "\n"


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("s2vgan"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _splits(metrics: dict[str, Any]) -> list[str]:
    found = {row["split"] for row in metrics["rows"]}
    return [split for split in _SPLITS if split in found]


def _table(metrics: dict[str, Any], split: str) -> dict[str, Any]:
    """One split's rows, formatted; a metric that no row has is left out."""
    rows = [row for row in metrics["rows"] if row["split"] == split]
    names = [name for name in METRICS if any(name in row["metrics"] for row in rows)]
    best = {name: _best(name, rows) for name in names}
    return {
        "title": f"{_SPLITS[split]}, {max(row['n'] for row in rows):,} frames",
        "heads": [
            {
                "title": METRICS[name].title,
                "arrow": _ARROWS[METRICS[name].best],
                "unit": METRICS[name].unit,
            }
            for name in names
        ],
        "rows": [
            {
                "kind": row["kind"],
                "label": row["name"],
                "way": _way(row),
                "cells": [
                    _cell(row["metrics"].get(name), name, number in best[name]) for name in names
                ],
            }
            for number, row in enumerate(rows)
        ],
    }


def _way(row: dict[str, Any]) -> str:
    """How a row was made, in a few words."""
    if row["kind"] == "control":
        return f"of {Path(row['run']).name}" if row["run"] else ""
    return "pose from the true video" if row["pose"] == "true" else "pose held at a reference"


def _place(split: str, seconds: float) -> str:
    return f"{_SPLITS[split]}, {seconds:.0f} s."


def _best(name: str, rows: Sequence[dict[str, Any]]) -> set[int]:
    """Numbers of the best rows: those that look equal are equally good.

    Noise wins nothing: it can be near 1 in a ratio by chance.
    """
    values = {
        number: row["metrics"][name]["value"]
        for number, row in enumerate(rows)
        if name in row["metrics"] and row["name"] != "noise"
    }
    rank = {
        "lower": lambda value: value,
        "higher": lambda value: -value,
        "one": lambda value: abs(math.log(max(value, 1e-9))),
        "zero": abs,
    }[METRICS[name].best]
    if not values:
        return set()
    best = _number(min(values.values(), key=rank), name)
    return {number for number, value in values.items() if _number(value, name) == best}


def _cell(found: dict[str, float | None] | None, name: str, best: bool) -> dict[str, Any] | None:
    if found is None or found["value"] is None:
        return None
    value = _number(found["value"], name)
    low, high = found["ci_low"], found["ci_high"]
    interval = (
        f"{_number(low, name)} – {_number(high, name)}"
        if low is not None and high is not None
        else ""
    )
    return {"value": value, "interval": interval, "best": best}


def _number(value: float, name: str) -> str:
    digits = {"mse": 4, "mouth_mse": 4, "lpips": 4, "ssim": 3, "psnr": 1}.get(name, 2)
    return f"{value:.{digits}f}".replace("-", "−")


def _definition(name: str) -> dict[str, str]:
    metric = METRICS[name]
    high = f"{metric.high:g}" if math.isfinite(metric.high) else "∞"
    return {
        "span": f"{metric.low:g} to {high}".replace("-", "−"),
        "better": {
            "lower": "lower",
            "higher": "higher",
            "one": "nearer to 1",
            "zero": "nearer to 0",
        }[metric.best],
        "unit": metric.unit,
        "source": metric.source,
    }


def _video(evaluation: Evaluation, columns: Sequence[Exhibit]) -> tuple[bytes, int]:
    """The side-by-side MP4 with its sound, and its number of frames.

    It is cut until it stays below ``VIDEO_BYTES``, or lasts a second.
    """
    showcase, spec = evaluation.showcase, evaluation.spec
    frames = figures.side_by_side(showcase, columns)
    while True:
        content = _encode(showcase, frames, spec.fps, spec.sample_rate)
        if len(content) <= VIDEO_BYTES or len(frames) <= spec.fps:
            return content, len(frames)
        frames = frames[: len(frames) // 2]


def _encode(showcase: Showcase, frames: Any, fps: int, sample_rate: int) -> bytes:
    samples = round(len(frames) * sample_rate / fps)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "side_by_side.mp4"
        write_video(path, frames, fps, showcase.speech[:samples], sample_rate, crf=20)
        return path.read_bytes()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
