"""The report of an evaluation: one HTML file that opens offline, and tables beside it."""

import base64
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from s2vgan import diagram, figures, tables
from s2vgan.artifact import git_commit
from s2vgan.evaluation import METRICS_FILE, Evaluation, Exhibit, Showcase, evaluate
from s2vgan.files import write_text
from s2vgan.media import h264, write_video
from s2vgan.metrics import METRICS
from s2vgan.runlog import read_log
from s2vgan.tracking import Tracker

REPORT_FILE, MARKDOWN_FILE, LATEX_FILE = "report.html", "table.md", "table.tex"
VIDEO_BYTES = 4_500_000  # embedded as base64 a third larger

_COLUMNS = 5  # models beside the real face in the video
_STILLS = ("mean_face", "medoid_frame", "nearest_audio")  # controls among the pictures


def write_report(evaluation: Evaluation, out: str | Path) -> Path:
    """Write OUT/report.html, table.md and table.tex, each whole or not at all.

    Args:
        evaluation: from :func:`s2vgan.evaluation.evaluate`.
        out: folder.

    Returns:
        Path of the page.
    """
    showcase, spec, metrics = evaluation.showcase, evaluation.spec, evaluation.metrics
    models = _pictured(evaluation)
    held = [exhibit for exhibit in models if exhibit.entry.pose == "reference"]
    controls = [exhibit for exhibit in showcase.exhibits if exhibit.entry.name in _STILLS]
    shown = models + controls
    names = {exhibit.entry.name for exhibit in models}
    extremes = [extreme for extreme in evaluation.extremes if extreme.entry.name in names]
    logs = {name: read_log(evaluation.contenders[name].run) for name in evaluation.contenders}
    losses = figures.loss_plot({name: log for name, log in logs.items() if name in names})
    video, kept = _video(evaluation, held[:_COLUMNS]) if held else (b"", 0)
    place = _place(showcase.split, len(showcase.real) / spec.fps)
    page = _environment().get_template(REPORT_FILE).render(
        title="Speech to face: evaluation",
        runs=", ".join(evaluation.contenders) or "controls only",
        spec=spec,
        dataset=metrics["dataset"],
        place=place,
        video=_base64(video),
        video_place=_place(showcase.split, kept / spec.fps),
        columns=["real", *(exhibit.entry.label for exhibit in held[:_COLUMNS])],
        tables=[tables.split_table(metrics, split) for split in tables.splits(metrics)],
        seeds=tables.seeds_table(metrics),
        differences=tables.differences_table(metrics),
        notes=evaluation.notes,
        frames={name: _base64(png) for name, png in figures.frame_rows(showcase, shown).items()},
        mouths={name: _base64(png) for name, png in figures.mouth_rows(showcase, shown).items()},
        maps=_base64(figures.error_maps(showcase, shown)),
        extremes={name: _base64(png) for name, png in figures.extreme_rows(extremes).items()},
        openings=_base64(figures.opening_plot(showcase, held, spec.fps)) if held else "",
        losses=_base64(losses) if losses else "",
        drawings={
            name: diagram.draw(one.config.model, spec)
            for name, one in evaluation.contenders.items()
            if name in names and one.config is not None
        },
        metrics={name: tables.definition(name) for name in METRICS},
        paper=metrics["paper"],
    )  # fmt: skip
    folder = Path(out)
    write_text(folder / MARKDOWN_FILE, tables.markdown(metrics))
    write_text(folder / LATEX_FILE, tables.latex(metrics))
    write_text(folder / REPORT_FILE, page)
    return folder / REPORT_FILE


def evaluate_and_report(
    data: str | Path, runs: Sequence[str | Path], out: str | Path, **options: Any
) -> Path:
    """Evaluate, write metrics.json, the report and its tables, tell MLflow, print the tables.

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
    _track(evaluation, str(data), path.parent)
    print(tables.markdown(evaluation.metrics))
    for note in evaluation.notes:
        print(f"- {note}")
    print(f"Report: {path}")
    return path


def _track(evaluation: Evaluation, data: str, folder: Path) -> None:
    """Log an evaluation as an MLflow run of its own: its numbers, and its files."""
    tracker = Tracker()
    config = {name: one.run for name, one in evaluation.contenders.items()}
    tags = {"kind": "evaluation", "report": str(folder.absolute()), "git_commit": git_commit()}
    tracker.start(f"evaluation {folder.absolute().name}", {"runs": config}, tags)
    tracker.log_input(evaluation.metrics["dataset"], Path(data).name, data, "evaluation")
    numbers = {
        _key(row["split"], row["pose"], row["name"], name): found["value"]
        for row in evaluation.metrics["rows"]
        if row["kind"] == "model"
        for name, found in row["metrics"].items()
    }
    tracker.log_metrics(numbers, 0)
    files = (METRICS_FILE, REPORT_FILE, MARKDOWN_FILE, LATEX_FILE)
    tracker.log_files(*(folder / name for name in files))
    tracker.finish()


def _key(*parts: str | None) -> str:
    """A name of a metric that MLflow takes: letters, digits and a few signs."""
    text = "/".join(part for part in parts if part)
    return "".join(c if c.isalnum() or c in "_-./ " else "_" for c in text)


def _pictured(evaluation: Evaluation) -> list[Exhibit]:
    """The models among the pictures: of each recipe the first run."""
    recipes = evaluation.metrics["recipes"]
    known = {name for recipe in recipes for name in recipe["rows"]}
    first = {recipe["rows"][0] for recipe in recipes}
    return [
        exhibit
        for exhibit in evaluation.showcase.exhibits
        if exhibit.entry.kind == "model"
        and (exhibit.entry.name in first or exhibit.entry.name not in known)
    ]


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("s2vgan"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _place(split: str, seconds: float) -> str:
    return f"{tables.SPLITS[split]}, {seconds:.0f} s."


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
        write_video(path, frames, fps, showcase.speech[:samples], sample_rate, codecs=h264(20))
        return path.read_bytes()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
