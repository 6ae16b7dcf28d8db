"""The pictures of a report, as PNG bytes; matplotlib's Agg, no display needed."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import matplotlib.image
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from s2vgan.evaluation import Exhibit, Showcase
from s2vgan.measuring import Extreme
from s2vgan.regions import MOUTH

REAL, FIRST = "#20242c", ("#0b6bcb", "#d1495b", "#2e8b57", "#8e5bd0", "#c77d0a")
_INK, _RULE = "#4a5160", "#d9dde4"
_FRAME = 96  # pixels of a frame in a picture
_GAP = 3
_MAPS_A_ROW = 6

_STYLE: Any = {"font.size": 9, "axes.edgecolor": _RULE, "text.color": REAL, "axes.labelcolor": _INK}


def frame_rows(
    showcase: Showcase, exhibits: Sequence[Exhibit], count: int = 10
) -> dict[str, bytes]:
    """Frames at the same, evenly chosen instants: a picture by name, the real ones first."""
    instants = np.unique(np.linspace(0, len(showcase.real) - 1, count).astype(int))
    return {
        name: _row(frames[instants], _FRAME) for name, frames in _rows(showcase, exhibits).items()
    }


def mouth_rows(
    showcase: Showcase, exhibits: Sequence[Exhibit], count: int = 20
) -> dict[str, bytes]:
    """Mouths at consecutive instants, every second frame, around the widest true opening."""
    length = min(2 * count, len(showcase.real))
    widest = int(np.argmax(showcase.opening))
    start = int(np.clip(widest - length // 2, 0, len(showcase.real) - length))
    rows, columns = MOUTH.slices(showcase.real.shape[1])
    return {
        name: _row(frames[start : start + length : 2, rows, columns], _FRAME // 3)
        for name, frames in _rows(showcase, exhibits).items()
    }


def extreme_rows(extremes: Sequence[Extreme], count: int = 10) -> dict[str, bytes]:
    """A picture for each: real mouths of the second above the made ones, evenly spaced."""
    pictures = {}
    for extreme in extremes:
        instants = np.linspace(0, len(extreme.real) - 1, count).astype(int)
        pair = np.concatenate([extreme.real[instants], extreme.made[instants]], axis=1)
        pictures[f"{extreme.entry.label}: {extreme.kind}"] = _row(pair, 2 * _FRAME)
    return pictures


@matplotlib.rc_context(_STYLE)
def error_maps(showcase: Showcase, exhibits: Sequence[Exhibit]) -> bytes:
    """Mean absolute error of every pixel on [0, 1], a map for each exhibit, on one scale."""
    real = showcase.real.astype(np.float32)
    maps = [np.abs(one.frames - real).mean(axis=(0, 3)) / 255 for one in exhibits]
    columns = min(len(maps), _MAPS_A_ROW)
    rows = -(-len(maps) // columns)
    figure = Figure(figsize=(1.65 * columns + 0.9, 1.95 * rows + 0.1), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    top = max(float(np.percentile(found, 99.5)) for found in maps)
    for place, panel in enumerate(panels.flat):
        panel.axis("off")
        if place < len(maps):
            panel.imshow(maps[place], cmap="magma", vmin=0, vmax=top)
            panel.set_title(exhibits[place].entry.label.replace(", ", ",\n"), fontsize=8)
    figure.colorbar(panels.flat[0].images[0], ax=panels, shrink=0.8, label="mean absolute error")
    return _png(figure)


@matplotlib.rc_context(_STYLE)
def opening_plot(showcase: Showcase, exhibits: Sequence[Exhibit], fps: int) -> bytes:
    """Mouth opening over time, real and generated, a panel for each exhibit."""
    figure = Figure(figsize=(10, 1.7 * len(exhibits) + 0.4), layout="constrained")
    panels = figure.subplots(len(exhibits), 1, sharex=True, squeeze=False)[:, 0]
    seconds = np.arange(len(showcase.opening)) / fps
    for number, (panel, exhibit) in enumerate(zip(panels, exhibits, strict=True)):
        panel.fill_between(seconds, showcase.opening, min(showcase.opening), color="#e6e9ef")
        panel.plot(seconds, showcase.opening, color=REAL, lw=1, label="real")
        colour = FIRST[number % len(FIRST)]
        panel.plot(seconds, exhibit.opening, color=colour, lw=1.4, label=exhibit.entry.label)
        panel.legend(loc="upper right", ncols=3, frameon=False, fontsize=8)
        _plain(panel)
        panel.set_ylabel("opening")
        panel.margins(x=0)
    panels[-1].set_xlabel("seconds")
    return _png(figure)


@matplotlib.rc_context(_STYLE)
def loss_plot(logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> bytes | None:
    """Losses of D and G over steps, a panel for each run; None where none was logged."""
    drawn = {name: log for name, log in logs.items() if any("loss_d" in line for line in log)}
    if not drawn:
        return None
    figure = Figure(figsize=(10, 2.3 * len(drawn)), layout="constrained")
    panels = figure.subplots(len(drawn), 1, squeeze=False)[:, 0]
    for panel, (name, log) in zip(panels, drawn.items(), strict=True):
        for key, title, colour in (
            ("loss_d", "discriminator", FIRST[1]),
            ("loss/gan", "generator, adversarial", FIRST[0]),
            ("loss_g", "generator, all terms", FIRST[2]),
        ):
            points = [(line["step"], line[key]) for line in log if key in line]
            if not points:
                continue
            steps, losses = np.array(points, float).T
            panel.plot(steps, losses, color=colour, lw=0.6, alpha=0.35)
            panel.plot(steps, _smooth(losses), color=colour, lw=1.6, label=title)
        panel.set_title(name, loc="left", fontsize=10)
        panel.legend(loc="upper right", ncols=3, frameon=False, fontsize=8)
        panel.set_ylabel("loss")
        panel.margins(x=0)
        _plain(panel)
    panels[-1].set_xlabel("training step")
    return _png(figure)


def side_by_side(showcase: Showcase, exhibits: Sequence[Exhibit], side: int = 256) -> np.ndarray:
    """Frames (n, side, width, 3) uint8: real on the left, then each exhibit.

    Frames are enlarged by a whole factor, so that a 64 pixel face is not a stamp.
    """
    factor = max(1, side // showcase.real.shape[1])
    parts = list(_rows(showcase, exhibits).values())
    wide = np.concatenate(parts, axis=2)
    return wide.repeat(factor, axis=1).repeat(factor, axis=2)


def _rows(showcase: Showcase, exhibits: Sequence[Exhibit]) -> dict[str, np.ndarray]:
    return {"real": showcase.real} | {exhibit.entry.label: exhibit.frames for exhibit in exhibits}


def _smooth(values: np.ndarray) -> np.ndarray:
    """Mean over a window of a fiftieth of the curve, shrunk at its ends."""
    width = max(1, len(values) // 50)
    sums = np.concatenate([[0], np.cumsum(values)])
    ends = np.minimum(np.arange(len(values)) + width // 2 + 1, len(values))
    starts = np.maximum(np.arange(len(values)) - width // 2, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _plain(panel: Axes) -> None:
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(colors=_INK, length=3)
    panel.grid(axis="y", color=_RULE, lw=0.5)


def _row(frames: np.ndarray, height: int) -> bytes:
    """(n, h, w, 3) uint8 frames beside each other as a PNG, each about ``height`` pixels high."""
    factor = max(1, round(height / frames.shape[1]))
    large = frames.repeat(factor, axis=1).repeat(factor, axis=2)
    spaced = np.pad(large, ((0, 0), (0, 0), (0, _GAP), (0, 0)), constant_values=255)
    buffer = io.BytesIO()
    image = np.concatenate(list(spaced), axis=1)[:, :-_GAP]
    matplotlib.image.imsave(buffer, np.ascontiguousarray(image), format="png")
    return buffer.getvalue()


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()
