"""A dataset for people: a summary for the terminal, the data card, and the contact sheet.

``DATA/DATA_CARD.md`` holds one part that is renewed with the dataset; all around it is the user's.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from s2vgan import ledger, storage
from s2vgan.contact_sheet import kept_share, length, plain, render, video_name, write_sheet
from s2vgan.ledger import DatasetInfo, LedgerRow

__all__ = ["CARD_FILE", "describe", "show", "summary", "write_card", "write_sheet"]

CARD_FILE: Final = "DATA_CARD.md"
STATUSES: Final = ("ok", "empty", "rejected", "failed")

_LINES = 20  # videos named in the terminal
_SOURCES = 50  # videos named in the card
_COMMON = 5  # reasons counted where not every video is named

# Both marks are whole lines, which no name in the card can be. A first mark without its second,
# lost in an edit, must not reach up to a later one and take the user's text with it.
_BEGIN: Final = r"^<!-- s2vgan: begin\b[^\n]*-->\r?$"
_OURS: Final = re.compile(
    rf"{_BEGIN}(?:(?!{_BEGIN}).)*?^<!-- s2vgan: end -->(?=\r?$)", re.MULTILINE | re.DOTALL
)


def summary(done: Sequence[LedgerRow], fresh: Sequence[LedgerRow]) -> str:
    """The table at the end of a run: counts by status, what was dropped, and what went wrong.

    Args:
        done: rows of videos that needed no work.
        fresh: rows of this run.

    Returns:
        Lines; of the videos without a group, the first 20.
    """
    rows = [*done, *fresh]
    lines = [f"{'status':<10}{'videos':>8}{'groups':>10}{'seconds':>10}"]
    for status in STATUSES:
        some = [row for row in rows if row.status == status]
        if some:
            total, seconds = sum(row.groups for row in some), sum(row.seconds for row in some)
            lines.append(f"{status:<10}{len(some):>8}{total:>10}{seconds:>10.1f}")
    dropped = _dropped(rows)
    if dropped:
        everything = sum(dropped.values()) + sum(row.groups for row in rows)
        counts = [f"{name} {n} ({n / everything:.1%})" for name, n in sorted(dropped.items())]
        lines.append(f"dropped groups: {', '.join(counts)}")
    frames = sum(row.frames for row in rows)
    if frames:
        faceless = frames - sum(row.face_frames for row in rows)
        lines.append(
            f"frames: {frames}, {faceless} of them without a face ({faceless / frames:.1%}); "
            f"{sum(row.box_jumps for row in rows)} box jumps, "
            f"{sum(row.false_starts for row in rows)} false starts"
        )
    seconds = sum(row.seconds for row in rows)
    if seconds:
        cost = sum(row.cpu_seconds for row in rows) / seconds
        lines.append(f"CPU: {cost:.3f} s per second of video")
    if done:
        lines.append(f"{len(done)} of the videos were done or refused before.")
    return "\n".join([*lines, *_refused(rows)])


def _dropped(rows: Sequence[LedgerRow]) -> Counter[str]:
    dropped: Counter[str] = Counter()
    for row in rows:
        dropped.update(row.dropped)
    return dropped


def _refused(rows: Sequence[LedgerRow]) -> list[str]:
    """A line for each video that is not ``ok``; of very many, the commonest reasons as well."""
    bad = sorted((row for row in rows if row.status != "ok"), key=lambda row: row.source)
    lines = [f"{row.status}: {video_name(row)}: {plain(row.reason)}" for row in bad[:_LINES]]
    if len(bad) <= _LINES:
        return lines
    lines.append(f"... and {len(bad) - _LINES} more in DATA/ledger; of all {len(bad)}:")
    reasons = Counter(f"{row.status}: {plain(row.reason)}" for row in bad)
    common = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return lines + [f"{count:>6} x {reason}" for reason, count in common[:_COMMON]]


def describe(data: str | Path) -> str:
    """A dataset in a screenful: spec, identity, counts, and its videos by status.

    Raises:
        DatasetError: if there is no dataset, or it cannot be read.
    """
    info, rows = ledger.read_dataset(data), list(ledger.read_rows(data).values())
    spec, total = info.spec, sum(info.groups.values())
    lines = [
        f"{plain(str(data))}: {total} groups of {len(info.groups)} videos, "
        f"{length(total * spec.seconds)} of faces and speech",
        f"identity  {info.sha256}",
        f"spec      {spec.size}x{spec.size} pixels, {spec.fps} frames/s, {spec.crop} crops, "
        f"groups of {spec.frames_per_group} ({spec.seconds:g} s), sound {spec.sample_rate} Hz",
        "",
        summary([], rows),
    ]
    good = _good(info, rows)
    if good:
        lines += ["", f"{'kept':>7}{'groups':>10}{'segments':>10}  video"]
        worst = sorted(good, key=lambda row: (kept_share(row), row.source))
        lines += [
            f"{kept_share(row):>7.1%}{row.groups:>10}{row.segments:>10}  {video_name(row)}"
            for row in worst[:_LINES]
        ]
        if len(good) > _LINES:
            lines.append(f"... and {len(good) - _LINES} more of which a larger part was kept")
    if {row.video_id for row in rows if row.status == "ok"} != set(info.groups):
        lines.append("The ledger is ahead of dataset.json: run the same extraction to the end.")
    return "\n".join(lines)


def _good(info: DatasetInfo, rows: Sequence[LedgerRow]) -> list[LedgerRow]:
    return [row for row in rows if row.status == "ok" and row.video_id in info.groups]


def show(data: str | Path, sheet: str | Path | None = None, videos: int = 40) -> None:
    """Print :func:`describe`, write the contact sheet, and print where it is.

    Args:
        data: the dataset's folder or URL.
        sheet: file or folder of the page; by default DATA/contact_sheet.html.
        videos: with crops at most.

    Raises:
        DatasetError: if there is no dataset, or the page cannot be written.
    """
    print(describe(data))
    print(f"Contact sheet: {plain(write_sheet(data, sheet, videos))}")


def write_card(data: str | Path) -> None:
    """Write DATA/DATA_CARD.md from dataset.json and the ledger, or renew its marked part.

    The same dataset gives the same card: no times of day or of the CPU are in it. What stands
    outside the marked part is kept to the letter; where the marks are gone, the part is added at
    the end.

    Raises:
        DatasetError: if there is no dataset, or it cannot be read.
    """
    info, rows = ledger.read_dataset(data), list(ledger.read_rows(data).values())
    good = _good(info, rows)
    total = sum(info.groups.values())
    named = sorted(rows, key=lambda row: (row.status != "ok", row.source, row.video_id))
    card = render(
        "data_card.md",
        info=info,
        spec=info.spec,
        groups=total,
        length=length(total * info.spec.seconds),
        statuses={name: info.videos[name] for name in STATUSES if name in info.videos},
        dropped=dict(sorted(_dropped(rows).items())),
        sources=[(_code(video_name(row)), row) for row in named[:_SOURCES]],
        more=max(0, len(named) - _SOURCES),
        faces=" or ".join(sorted({row.face for row in good})),
        extractors=", ".join(sorted({row.extractor or "unknown" for row in good})),
    )
    old = ""
    if storage.exists(data, CARD_FILE):
        old = storage.read(data, CARD_FILE).decode("utf-8", "surrogateescape")
    if old.strip():
        ours = _OURS.search(card)
        assert ours is not None
        part = ours.group()
        card, renewed = _OURS.subn(lambda _: part, old, count=1)
        if not renewed:
            card = f"{old.rstrip()}\n\n{part}\n"
    if card != old:
        storage.write(data, CARD_FILE, card.encode("utf-8", "surrogateescape"))


def _code(text: str) -> str:
    """Text as Markdown code that no backtick or bar in it ends."""
    text = plain(text).replace("|", "\\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}"
