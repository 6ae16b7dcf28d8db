"""The pictures of a sweep, as PNG bytes; matplotlib's Agg, no display needed."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from s2vgan.figures import FIRST, REAL
from tune.effects import Log, levels, readings
from tune.space import KIND
from tune.trials import Trial

_RULE, _INK = "#d9dde4", "#4a5160"
_STYLE: Any = {"font.size": 9, "axes.edgecolor": _RULE, "text.color": REAL, "axes.labelcolor": _INK}
_COLOURS: Final = matplotlib.colormaps["viridis"]  # of scores: bright is good


@matplotlib.rc_context(_STYLE)
def parallel_coordinates(trials: Sequence[Trial]) -> bytes:
    """A line for each trial through what it tried and what it scored, the best brightest."""
    shown = [trial for trial in trials if trial.readings]
    fields = [*shown[0].point, "score"]
    columns = [_axis([trial.point[field] for trial in shown]) for field in fields[:-1]]
    columns.append(_axis([trial.score for trial in shown]))
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    panel = figure.subplots()
    low, span = min(trial.score for trial in shown), _span(shown)
    for number, trial in reversed(list(enumerate(shown))):  # the best on top
        heights = [places[number] for places, _ in columns]
        colour = _COLOURS(0.95 * (trial.score - low) / span)
        panel.plot(range(len(fields)), heights, color=colour, lw=2.6 if number == 0 else 1.4)
    for place, (_, ticks) in enumerate(columns):
        panel.axvline(place, color=_RULE, lw=1, zorder=0)
        for height, text in ticks:
            panel.annotate(
                text, (place, height), xytext=(5, 0), textcoords="offset points", va="center",
                fontsize=8, bbox={"fc": "white", "ec": "none", "pad": 0.6, "alpha": 0.8},
            )  # fmt: skip
    panel.set_xticks(range(len(fields)), [field.partition(".")[2] or field for field in fields])
    panel.set_yticks([])
    panel.spines[:].set_visible(False)
    panel.set_xlim(-0.1, len(fields) - 0.7)
    return _png(figure)


@matplotlib.rc_context(_STYLE)
def curves(trials: Sequence[Trial], logs: Mapping[str, Log]) -> bytes:
    """Score, and losses of G and D, over the steps of every trial; a colour for each trial."""
    figure = Figure(figsize=(10, 6.6), layout="constrained")
    panels = figure.subplots(3, 1, sharex=True)
    for number, trial in enumerate(trials):
        colour = matplotlib.colormaps["tab20"](number % 20)
        style = {"gru": "-", "no_gru": "--"}.get(trial.point[KIND], ":")
        found = readings(logs[trial.name])
        panels[0].plot(
            list(found), list(found.values()), color=colour, ls=style, lw=1.5, marker=".", ms=4,
            label=trial.name,
        )  # fmt: skip
        for panel, name in zip(panels[1:], ("loss_g", "loss_d"), strict=True):
            points = [(line["step"], line[name]) for line in logs[trial.name] if name in line]
            if points:
                steps, values = np.array(points, float).T
                panel.plot(steps, _smooth(values), color=colour, ls=style, lw=1.1)
    for panel, title in zip(panels, ("score", "loss of G", "loss of D"), strict=True):
        panel.set_ylabel(title)
        _plain(panel)
    panels[-1].set_xlabel("training step (dashed: no GRU)")
    figure.legend(loc="outside lower center", ncols=4, frameon=False, fontsize=7)
    return _png(figure)


@matplotlib.rc_context(_STYLE)
def field_effects(
    fields: Sequence[str], trials: Sequence[Trial], logs: Mapping[str, Log], step: int
) -> bytes:
    """Scores over the values of each field at a step that every trial reached, by kind."""
    figure = Figure(figsize=(10, 2.9), layout="constrained")
    panels = figure.subplots(1, len(fields), sharey=True, squeeze=False)[0]
    kinds = sorted({trial.point[KIND] for trial in trials})
    for panel, field in zip(panels, fields, strict=True):
        for kind, colour in zip(kinds, FIRST, strict=False):
            own = [trial for trial in trials if trial.point[KIND] == kind]
            found = levels(field, own, logs, step)
            numbers = all(isinstance(level.value, float) for level in found)
            places = [level.value if numbers else str(level.value) for level in found]
            panel.plot(places, [level.mean for level in found], color=colour, lw=1.6, label=kind)
            for place, level in zip(places, found, strict=True):
                panel.plot([place] * len(level.scores), level.scores, ".", color=colour, ms=6)
            if numbers and all(level.value > 0 for level in found):
                panel.set_xscale("log")
        panel.set_xlabel(field)
        _plain(panel)
    panels[0].set_ylabel(f"score at step {step}")
    panels[-1].legend(frameon=False, fontsize=8)
    return _png(figure)


def _axis(values: Sequence[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    """Heights in [0, 1] of some values on an axis, and its ticks; numbers logarithmic if > 0."""
    known = sorted(set(values), key=lambda value: (str(type(value)), value))
    numbers = all(isinstance(value, float) for value in known)
    heights = {value: place / max(1, len(known) - 1) for place, value in enumerate(known)}
    if numbers and len(known) > 1:
        scale = np.log(known) if min(known) > 0 else np.array(known)
        places = (scale - scale[0]) / (scale[-1] - scale[0])
        heights = dict(zip(known, places.tolist(), strict=True))
    shown = known if len(known) <= 6 else [known[0], known[len(known) // 2], known[-1]]
    texts = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in shown]
    ticks = [(heights[value], text) for value, text in zip(shown, texts, strict=True)]
    return [heights[value] for value in values], ticks


def _span(trials: Sequence[Trial]) -> float:
    scores = [trial.score for trial in trials]
    return max(max(scores) - min(scores), 1e-9)


def _smooth(values: np.ndarray) -> np.ndarray:
    """Mean over a window of a twentieth of the curve, shrunk at its ends."""
    width = max(1, len(values) // 20)
    weights = np.convolve(np.ones(len(values)), np.ones(width), "same")
    return np.convolve(values, np.ones(width), "same") / weights


def _plain(panel: Axes) -> None:
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(colors=_INK, length=3)
    panel.grid(axis="y", color=_RULE, lw=0.5)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()
