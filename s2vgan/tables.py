"""The rows of metrics.json as tables: for the report, the terminal, Markdown and LaTeX."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from s2vgan.metrics import METRICS

Metrics = Mapping[str, Any]
"""The content of metrics.json."""

SPLITS = {
    "heldout": "Held-out time",
    "train": "Training time",
    "unseen": "Speech of other people",
}
GROUPS = {  # of columns, so that a table fits on a page
    "Picture": (
        "mse", "mse_01", "psnr", "ssim", "lpips", "mouth_mse", "identity", "sharpness",
    ),
    "Motion": (
        "mouth_r", "mouth_r_luma", "mouth_components_r", "mouth_amplitude", "pause_motion",
        "flicker", "warping", "seam",
    ),
    "Speech and lips": (
        "sync_r", "sync_lag", "sync_retrieval", "sync_upper_r", "lse_d", "lse_c",
    ),
}  # fmt: skip

_ARROWS = {"lower": "↓", "higher": "↑", "one": "→1", "zero": "→0"}
_WORDS = {"lower": "lower", "higher": "higher", "one": "nearer to 1", "zero": "nearer to 0"}
_DIGITS = {
    "mse": 4, "mse_01": 4, "mouth_mse": 4, "lpips": 4, "identity": 4, "ssim": 3, "psnr": 1,
    "sync_lag": 0,
}  # fmt: skip
# They win nothing: two are looks at the true frames, and noise can be near 1 in a ratio by chance.
_NO_WINNERS = {"noise", "previous_frame", "real_frames"}
_TEX = {
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "→": r"$\to$",
    "−": "$-$",
    "–": "--",
    "·": r"$\cdot$",
}


def splits(metrics: Metrics) -> list[str]:
    """The splits that have rows, held-out time first."""
    found = {row["split"] for row in metrics["rows"]}
    return [split for split in SPLITS if split in found]


def split_table(metrics: Metrics, split: str, names: Sequence[str] | None = None) -> dict[str, Any]:
    """One split's rows, formatted; a metric that no row has is left out.

    Args:
        metrics: of an evaluation.
        split: of its rows.
        names: of the columns; by default all, in the order of ``GROUPS``.

    Returns:
        ``title``, ``heads`` (``name``, ``title``, ``arrow``, ``unit``), ``groups`` (``title``,
        ``span``), and ``rows`` (``kind``, ``label``, ``way``, ``cells``); a cell is None, or has
        ``value``, ``interval``, ``best`` and the ``number`` behind it.
    """
    rows = [row for row in metrics["rows"] if row["split"] == split]
    names = columns(rows, names)
    best = {name: _best(name, rows) for name in names}
    return {
        "title": f"{SPLITS[split]}, {max(row['n'] for row in rows):,} frames",
        "heads": [head(name) for name in names],
        "groups": [
            {"title": title, "span": span}
            for title, members in GROUPS.items()
            if (span := sum(name in members for name in names))
        ],
        "rows": [
            {
                "kind": row["kind"],
                "label": row["name"],
                "way": way(row),
                "cells": [
                    _cell(row["metrics"].get(name), name, number in best[name]) for name in names
                ],
            }
            for number, row in enumerate(rows)
        ],
    }


def seeds_table(metrics: Metrics) -> dict[str, Any]:
    """Mean over seeds and the half of its 95 % interval; a row for each recipe, split and pose."""
    entries = metrics["seeds"]
    names = columns(entries)
    rows = []
    for entry in entries:
        cells = []
        for name in names:
            found = entry["metrics"].get(name)
            half = found and number((found["high"] - found["low"]) / 2, name)
            shown = found and number(found["mean"], name)
            cells.append(found and {"value": shown, "interval": f"± {half}", "best": False})
        counts = {found["n"] for found in entry["metrics"].values()}
        place = [SPLITS[entry["split"]].lower(), _pose(entry["pose"]), f"{max(counts)} seeds"]
        rows.append(
            {"label": entry["recipe"], "way": ", ".join(filter(None, place)), "cells": cells}
        )
    return {"heads": [head(name) for name in names], "rows": rows}


def differences_table(metrics: Metrics) -> dict[str, Any]:
    """What one recipe has more than another, with the interval; ``sure`` where it excludes 0."""
    entries = metrics["differences"]
    names = columns(entries)
    rows = []
    for entry in entries:
        cells = []
        for name in names:
            cell = _cell(entry["metrics"].get(name), name, False, signed=True)
            if cell:
                found = entry["metrics"][name]
                low, high = found["ci_low"], found["ci_high"]
                cell["sure"] = low is not None and (low > 0 or high < 0)
            cells.append(cell)
        seeds = f"{entry['seeds']} seeds" if entry["seeds"] > 1 else ""
        place = [SPLITS[entry["split"]].lower(), _pose(entry["pose"]), seeds]
        label = f"{entry['a']} − {entry['b']}"
        rows.append({"label": label, "way": ", ".join(filter(None, place)), "cells": cells})
    return {"heads": [head(name) for name in names], "rows": rows}


def markdown(metrics: Metrics) -> str:
    """A Markdown table for each split and group of columns; the best values are bold."""
    blocks = []
    for table, group in _grouped(metrics):
        lines = [["row", *(f"{item['title']} {item['arrow']}" for item in table["heads"])]]
        for row in table["rows"]:
            cells = [
                "–" if not cell else f"**{cell['value']}**" if cell["best"] else cell["value"]
                for cell in row["cells"]
            ]
            lines.append([_named(row), *cells])
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        lines.insert(1, ["-" * width for width in widths])
        texts = (
            " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            for line in lines
        )
        blocks.append(
            "\n".join([f"{table['title']}: {group}", "", *(f"| {text} |" for text in texts)])
        )
    return "\n\n".join(blocks) + "\n"


def latex(metrics: Metrics) -> str:
    """The same as LaTeX tables, which need the package booktabs."""
    blocks = []
    for table, group in _grouped(metrics):
        heads = " & ".join(_escape(f"{item['title']} {item['arrow']}") for item in table["heads"])
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escape(table['title'] + ': ' + group)}}}",
            rf"\begin{{tabular}}{{l{'r' * len(table['heads'])}}}",
            r"\toprule",
            rf"row & {heads} \\",
            r"\midrule",
        ]
        kinds = [row["kind"] for row in table["rows"]]
        for number_, row in enumerate(table["rows"]):
            if number_ and kinds[number_] == "control" and kinds[number_ - 1] == "model":
                lines.append(r"\addlinespace")
            cells = [
                "--" if not cell
                else rf"\textbf{{{_escape(cell['value'])}}}" if cell["best"]
                else _escape(cell["value"])
                for cell in row["cells"]
            ]  # fmt: skip
            lines.append(rf"{' & '.join([_escape(_named(row)), *cells])} \\")
        blocks.append("\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]))
    return "\n\n".join(blocks) + "\n"


def columns(rows: Iterable[Mapping[str, Any]], names: Sequence[str] | None = None) -> list[str]:
    """Names of metrics that some row has, in the order of ``GROUPS``."""
    wanted = [name for members in GROUPS.values() for name in members] if names is None else names
    rows = list(rows)
    return [name for name in wanted if any(name in row["metrics"] for row in rows)]


def head(name: str) -> dict[str, str]:
    """What stands above a column."""
    metric = METRICS[name]
    return {
        "name": name, "title": metric.title, "arrow": _ARROWS[metric.best], "unit": metric.unit
    }  # fmt: skip


def way(row: Mapping[str, Any]) -> str:
    """How a row was made, in a few words."""
    if row["kind"] == "control":
        return f"of {Path(row['run']).name}" if row["run"] else ""
    return _pose(row["pose"])


def number(value: float, name: str, signed: bool = False) -> str:
    """A value as it is shown."""
    text = f"{value:{'+' if signed else ''}.{_DIGITS.get(name, 2)}f}"
    if not any(digit in text for digit in "123456789"):
        text = text.lstrip("+-")  # no signed nothing
    return text.replace("-", "−")


def definition(name: str) -> dict[str, str]:
    """Range, direction, unit and source of a metric, for people."""
    metric = METRICS[name]
    high = f"{metric.high:g}" if math.isfinite(metric.high) else "∞"
    return {
        "span": f"{metric.low:g} to {high}".replace("-", "−"),
        "better": _WORDS[metric.best],
        "unit": metric.unit,
        "source": metric.source,
    }


def _grouped(metrics: Metrics) -> Iterable[tuple[dict[str, Any], str]]:
    for split in splits(metrics):
        for title, members in GROUPS.items():
            table = split_table(metrics, split, members)
            if table["heads"]:
                yield table, title


def _named(row: Mapping[str, Any]) -> str:
    return " · ".join(part for part in (row["label"], row["way"]) if part)


def _pose(pose: str | None) -> str:
    return {None: "", "true": "pose from the true video"}.get(pose, "pose held at a reference")


def _best(name: str, rows: Sequence[Mapping[str, Any]]) -> set[int]:
    """Numbers of the best rows: those that look equal are equally good."""
    values = {
        place: row["metrics"][name]["value"]
        for place, row in enumerate(rows)
        if name in row["metrics"] and row["name"] not in _NO_WINNERS
    }
    rank = {
        "lower": lambda value: value,
        "higher": lambda value: -value,
        "one": lambda value: abs(math.log(max(value, 1e-9))),
        "zero": abs,
    }[METRICS[name].best]
    if not values:
        return set()
    best = number(min(values.values(), key=rank), name)
    return {place for place, value in values.items() if number(value, name) == best}


def _cell(
    found: Mapping[str, float | None] | None, name: str, best: bool, signed: bool = False
) -> dict[str, Any] | None:
    if found is None or found["value"] is None:
        return None
    low, high = found["ci_low"], found["ci_high"]
    interval = (
        f"{number(low, name, signed)} – {number(high, name, signed)}"
        if low is not None and high is not None
        else ""
    )
    shown = number(found["value"], name, signed)
    return {"value": shown, "interval": interval, "best": best, "number": found["value"]}


def _escape(text: str) -> str:
    r"""Text for LaTeX: ``a_b & 5 %`` as ``a\_b \& 5 \%``."""
    special = {character: f"\\{character}" for character in "&%$#_{}"}
    special |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join((special | _TEX).get(character, character) for character in text)
