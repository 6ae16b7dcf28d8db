"""What a sweep shows: a table in the terminal, and SWEEP/report.html, which opens offline."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from s2vgan.files import write_text
from s2vgan.runlog import read_log
from tune import pictures
from tune.effects import Log, common_step, kind_effect, levels
from tune.promotion import Promotion
from tune.search import METRIC
from tune.space import KIND
from tune.trials import RUNS_FOLDER, Trial

REPORT_FILE = "report.html"
PARALLEL_FILE, CURVES_FILE = "parallel_coordinates.png", "curves.png"
SHOWN: Final = (  # of a reading
    METRIC, "val/ssim", "val/sharpness", "val/mouth_amplitude", "val/mouth_r",
    "val/mouth_r_shuffled",
)  # fmt: skip


def table(trials: Sequence[Trial]) -> str:
    """The trials as lines of text, best first; below them why some did not spend their budget."""
    heads = [name.removeprefix("val/") for name in SHOWN]
    widths = [max(8, len(head)) for head in heads]
    width = max(len(trial.name) for trial in trials)
    lines = [
        f"{'trial':{width}}  {'status':7}  {'step':>6}"
        + "".join(f"  {head:>{size}}" for head, size in zip(heads, widths, strict=True))
    ]
    for trial in trials:
        cells = "".join(
            f"  {_number(trial.readings.get(name)):>{size}}"
            for name, size in zip(SHOWN, widths, strict=True)
        )
        lines.append(f"{trial.name:{width}}  {trial.status:7}  {trial.step:6}{cells}")
    told = [trial for trial in trials if trial.status in ("stopped", "failed")]
    lines += [f"{trial.name} {trial.status}: {trial.reason}" for trial in told]
    return "\n".join(lines)


def effects(folder: Path, settings: Mapping[str, Any], trials: Sequence[Trial]) -> str:
    """What the GRU and each field change, in lines of text; empty where nothing can be compared.

    Args:
        folder: SWEEP.
        settings: of the sweep.
        trials: of it.
    """
    read = [trial for trial in trials if trial.readings]
    logs = _logs(folder, read)
    lines = []
    if effect := kind_effect(read, logs):
        spread = "one pair, no interval"
        if effect.low is not None:
            spread = f"95 % interval {effect.low:+.3f} to {effect.high:+.3f}, "
            spread += f"{len(effect.pairs)} pairs"
        lines.append(f"With GRU against without, all else equal: {effect.mean:+.3f} ({spread}).")
    if (step := common_step(logs)) is None:
        return "\n".join(lines)
    for name in _varied(settings):
        means = [f"{level.value} {level.mean:.3f}" for level in levels(name, read, logs, step)]
        if len(means) > 1:
            lines.append(f"Mean score at step {step} by {name}: {', '.join(means)}.")
    return "\n".join(lines)


def write(
    folder: Path,
    settings: Mapping[str, Any],
    trials: Sequence[Trial],
    promotion: Promotion | None,
) -> list[Path]:
    """Write SWEEP/report.html, and its pictures beside it.

    Args:
        folder: SWEEP.
        settings: of the sweep.
        trials: best first.
        promotion: what became of the winner; None before that is decided.

    Returns:
        The files.
    """
    read = [trial for trial in trials if trial.readings]
    logs = _logs(folder, read)
    images: dict[str, bytes] = {}
    if read:
        images = {
            PARALLEL_FILE: pictures.parallel_coordinates(read),
            CURVES_FILE: pictures.curves(read, logs),
        }
    for name, content in images.items():
        temporary = folder / f".{name}.tmp"
        temporary.write_bytes(content)
        temporary.replace(folder / name)
    step, fields = common_step(logs), _varied(settings)
    page = Environment(
        loader=PackageLoader("tune"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("sweep.html").render(
        name=folder.name,
        settings=settings,
        promotion=promotion,
        heads=[name.removeprefix("val/") for name in SHOWN],
        rows=[
            {"trial": trial, "cells": [_number(trial.readings.get(name)) for name in SHOWN]}
            for trial in trials
        ],
        effect=kind_effect(read, logs),
        step=step,
        fields={name: levels(name, read, logs, step) for name in fields} if step else {},
        effects=_base64(pictures.field_effects(fields, read, logs, step))
        if step and fields
        else "",
        parallel=_base64(images.get(PARALLEL_FILE, b"")),
        curves=_base64(images.get(CURVES_FILE, b"")),
        frames={trial.name: _frames(folder / RUNS_FOLDER / trial.name) for trial in read},
    )  # fmt: skip
    path = folder / REPORT_FILE
    write_text(path, page)
    return [path, *(folder / name for name in images)]


def _logs(folder: Path, trials: Sequence[Trial]) -> dict[str, Log]:
    return {trial.name: read_log(folder / RUNS_FOLDER / trial.name) for trial in trials}


def _varied(settings: Mapping[str, Any]) -> list[str]:
    """Fields with more than one value; the kinds of models have a section of their own."""
    tried = settings["space"].items()
    return [name for name, text in tried if name != KIND and ("," in text or ".." in text)]


def _frames(run: Path) -> str:
    """The latest sample picture of a run."""
    found = sorted((run / "samples").glob("step_*.png"))
    return _base64(found[-1].read_bytes()) if found else ""


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
