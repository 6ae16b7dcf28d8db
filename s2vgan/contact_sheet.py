"""The contact sheet: one page that shows in ten seconds whether the crops of a dataset are good.

It opens offline and runs no script; a name in it that looks like HTML or holds control characters
is shown as text.
"""

import base64
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import pyarrow.fs as pafs
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from s2vgan import ledger, storage
from s2vgan.errors import ConfigError, DatasetError
from s2vgan.ledger import LedgerRow
from s2vgan.samples import Crops, read_crops
from s2vgan.source import Source
from s2vgan.spec import GroupSpec

SHEET_FILE: Final = "contact_sheet.html"
REASONS: Final = {
    "no_face": "no frontal face",
    "jump": "a cut, or the face jumps",
    "no_audio": "no sound",
    "no_picture": "no picture",
}

_CELL = 96  # largest side of a crop on the page: 40 videos stay below 5 MB
_UNITS = 1000  # of a bar: shorter stretches are drawn one wide, so that a page stays small
_REFUSED = 200  # videos without a group that get a row
_LISTED = 12  # dropped stretches of a video that are listed


def write_sheet(
    data: str | Path, out: str | Path | None = None, videos: int = 40, crops: int = 16
) -> str:
    """Write the contact sheet of a dataset, whole or not at all.

    Args:
        data: the dataset's folder or URL.
        out: file or folder, path or URL; by default DATA/contact_sheet.html.
        videos: with crops at most; of more, half are those that lost most, half an even choice.
        crops: of a video, evenly over its groups; there is a mean crop beside them.

    Returns:
        Where the page is.

    Raises:
        DatasetError: if there is no dataset, or the page cannot be written.
        ConfigError: if a number is not positive.
    """
    if videos < 1 or crops < 1:
        raise ConfigError(f"{videos} videos with {crops} crops: use 1 or more.")
    info, rows = ledger.read_dataset(data), list(ledger.read_rows(data).values())
    ok = [row for row in rows if row.status == "ok" and row.video_id in info.groups]
    refused = sorted((row for row in rows if row.status != "ok"), key=lambda row: row.source)
    shown = _choose(ok, videos)
    entries = [_entry(data, row, info.spec, crops) for row in shown]
    dropped: Counter[str] = Counter()
    for row in rows:
        dropped.update(row.dropped)
    page = render(
        SHEET_FILE,
        name=plain(str(data).rstrip("/")),
        info=info,
        groups=sum(info.groups.values()),
        length=length(sum(info.groups.values()) * info.spec.seconds),
        dropped=[
            (_kind(name), REASONS.get(name, plain(name)), dropped[name])
            for name in sorted(dropped, key=lambda name: (name not in REASONS, name))
        ],
        total=sum(dropped.values()) + sum(info.groups.values()),
        kinds=[*REASONS, "other"],
        entries=entries,
        cells={
            number: entry.sprite for number, entry in enumerate(entries) if entry.sprite
        },
        refused=[_entry(data, row, info.spec, 0) for row in refused[:_REFUSED]],
        more_refused=max(0, len(refused) - _REFUSED),
        ok=len(ok),
    )  # fmt: skip
    return _save(data, out, page)


def plain(text: str) -> str:
    """A name or sentence fit for a terminal and a page: no control characters, no password."""
    text = re.sub(r"://[^/\s@]*@", "://", text)
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def video_name(row: LedgerRow) -> str:
    """A video for people: its source, and which part of it."""
    return plain(row.source + Source("", row.start, row.end).part)


def length(seconds: float) -> str:
    """A length in words: ``48.0 s``, ``12.5 min`` or ``3.2 h``."""
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def kept_share(row: LedgerRow) -> float:
    """Share of a video's groups that were kept, 0 to 1."""
    return row.groups / max(1, row.groups + sum(row.dropped.values()))


def render(template: str, **values: Any) -> str:
    """A template of this package with its values; what goes into HTML is escaped."""
    environment = Environment(
        loader=PackageLoader("s2vgan"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**values)


@dataclass(frozen=True)
class _Entry:
    """One video on the page; ``sprite`` is a JPEG in base64: the mean, then the crops."""

    row: LedgerRow
    name: str
    reason: str
    share: float
    flags: list[str]
    sprite: str
    crops: list[tuple[str, int, bool]]  # time, segment, whether another one than the crop before
    paths: dict[str, str]  # SVG path by what became of the stretches
    stretches: list[tuple[str, str, str]]
    more: int
    span: tuple[str, str]


def _choose(rows: Sequence[LedgerRow], videos: int) -> list[LedgerRow]:
    """At most so many, worst first: half the worst, and an even choice of the rest."""
    ordered = sorted(rows, key=lambda row: (not _flags(row), kept_share(row), row.source))
    if len(ordered) <= videos:
        return ordered
    worst = videos // 2
    places = np.linspace(worst, len(ordered) - 1, videos - worst).round().astype(int)
    return ordered[:worst] + [ordered[place] for place in places]


def _flags(row: LedgerRow) -> list[str]:
    """What a person should look at; the bounds are rules of thumb."""
    flags = []
    if kept_share(row) < 0.5:
        flags.append("less than half kept")
    if row.box_jumps > max(2.0, row.seconds / 20):
        flags.append("the face jumps often")
    if row.segments > max(3.0, row.seconds):
        flags.append("segments shorter than a second")
    return flags


def _entry(data: str | Path, row: LedgerRow, spec: GroupSpec, count: int) -> _Entry:
    """What the page says of a video, with ``count`` crops if it has groups."""
    found, reason, flags = None, plain(row.reason), _flags(row) if row.status == "ok" else []
    if row.status == "ok":
        try:
            found = read_crops(data, row.video_id, spec, count)
        except DatasetError as error:  # the others must still be shown
            flags, reason = ["its groups cannot be read"], plain(str(error))
    timeline = row.timeline or (_timeline(found.kept) if found else ())
    first, stop = (timeline[0][0], timeline[-1][1]) if timeline else (0, 1)
    lost = sorted((part for part in timeline if part[2] != "kept"), key=lambda p: p[0] - p[1])
    segments = found.segments if found else []
    return _Entry(
        row,
        video_name(row),
        reason,
        kept_share(row),
        flags,
        _sprite(found) if found else "",
        [
            (_clock(index * spec.seconds), segment, place > 0 and segment != segments[place - 1])
            for place, (index, segment) in enumerate(
                zip(found.indices if found else [], segments, strict=True)
            )
        ],
        _paths(timeline, first, stop, found),
        [
            (_clock(a * spec.seconds), _clock(b * spec.seconds), REASONS.get(what, plain(what)))
            for a, b, what in sorted(lost[:_LISTED])
        ],
        max(0, len(lost) - _LISTED),
        (_clock(first * spec.seconds), _clock(stop * spec.seconds)) if timeline else ("", ""),
    )  # fmt: skip


def _timeline(kept: np.ndarray) -> tuple[tuple[int, int, str], ...]:
    """Stretches of a row that has none: all that is known is which groups were kept."""
    edges = np.flatnonzero(np.diff(kept) > 1)
    starts, stops = kept[np.r_[0, edges + 1]], kept[np.r_[edges, len(kept) - 1]] + 1
    parts: list[tuple[int, int, str]] = [(0, int(starts[0]), "dropped")] if starts[0] else []
    for place, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        parts.append((int(start), int(stop), "kept"))
        if place + 1 < len(starts):
            parts.append((int(stop), int(starts[place + 1]), "dropped"))
    return tuple(parts)


def _kind(what: str) -> str:
    """The page's name of what became of a stretch; a reason that is not known is ``other``."""
    return what if what in {"kept", *REASONS} else "other"


def _paths(
    timeline: Iterable[tuple[int, int, str]], first: int, stop: int, found: Crops | None
) -> dict[str, str]:
    """SVG paths of a bar ``_UNITS`` wide and 14 high: stretches by kind, borders, places of crops.

    What is kept is as high as the bar and what is dropped is lower, for who sees no colours.
    """

    def place(group: float) -> int:
        return round((group - first) / max(1, stop - first) * _UNITS)

    drawn: dict[str, dict[str, None]] = {}
    for start, end, what in timeline:
        x = min(place(start), _UNITS - 1)
        width, kind = max(1, place(end) - x), _kind(what)
        top = 0 if kind == "kept" else 4
        drawn.setdefault(kind, {})[f"M{x} {top}h{width}V10h-{width}z"] = None
    if found is not None:
        drawn["border"] = {f"M{place(index)} 0v10": None for index in found.borders}
        drawn["tick"] = {f"M{place(index + 0.5)} 11v3": None for index in found.indices}
    order = ("kept", *REASONS, "other", "border", "tick")  # later ones lie above
    return {kind: "".join(drawn[kind]) for kind in order if drawn.get(kind)}


def _sprite(found: Crops) -> str:
    """The mean and the crops side by side: one image a video."""
    side = min(_CELL, max(32, found.mean.shape[0] // 16 * 16))  # whole JPEG blocks: none bleeds
    cells = [
        cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA)
        for frame in (found.mean, *found.frames)
    ]
    strip = cv2.cvtColor(np.concatenate(cells, axis=1), cv2.COLOR_RGB2BGR)
    encoded = cv2.imencode(".jpg", strip, [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return base64.b64encode(encoded.tobytes()).decode()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02}:{seconds:04.1f}" if hours else f"{minutes}:{seconds:04.1f}"


def _save(data: str | Path, out: str | Path | None, page: str) -> str:
    """Write the page, and say where it is."""
    folder, file = str(data).rstrip("/"), SHEET_FILE
    try:
        if out is not None:
            filesystem, path = storage.open_url(out)
            if filesystem.get_file_info(path).type == pafs.FileType.Directory:
                folder = str(out).rstrip("/")
            else:
                folder, _, file = str(out).rpartition("/")
        storage.write(folder or ("/" if str(out).startswith("/") else "."), file, page.encode())
    except OSError as error:
        raise DatasetError(
            f"{out or folder}: the page cannot be written ({error}); use --sheet FILE for another "
            "place, or --no-sheet."
        ) from error
    return f"{folder}/{file}" if folder else file
