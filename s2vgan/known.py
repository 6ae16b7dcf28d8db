"""What a dataset knows of its videos: which are done, under which id, and what may be removed."""

import dataclasses
import hashlib
import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow.fs as pafs

from s2vgan import groups, ledger, source, storage
from s2vgan.errors import DatasetError, SourceError
from s2vgan.ledger import LedgerRow
from s2vgan.source import Source
from s2vgan.spec import FaceChoice, GroupSpec

EXTRACTOR: Final = "2"  # raise it when the same video gives other groups than before
FINAL: Final = ("ok", "empty", "rejected")  # not tried again while nothing has changed


@dataclass(frozen=True)
class Options:
    """What decides the groups of a video beside its content.

    Attributes:
        spec: of the groups.
        face: which face to follow where there are several.
    """

    spec: GroupSpec = GroupSpec()
    face: FaceChoice = "largest"


def check_spec(data: str | Path, spec: GroupSpec) -> None:
    """Make sure that a dataset, if there is one, is of this spec.

    Raises:
        DatasetError: if it is not (it names the fields that differ), or ``data`` is a file.
    """
    filesystem, root = storage.open_url(data)
    if filesystem.get_file_info(root).type == pafs.FileType.File:
        raise DatasetError(f"{data}: is a file; give a folder.")
    if ledger.has_dataset(data):
        specs = [ledger.read_dataset(data).spec.to_dict()]
    else:  # a job that was killed leaves rows only, which have to fit in the end
        specs = [row.spec for row in ledger.read_rows(data).values() if row.status == "ok"]
    for found in specs:
        differ = [
            f"{name} {found.get(name)} (asked for: {value})"
            for name, value in spec.to_dict().items()
            if found.get(name) != value
        ]
        if differ:
            raise DatasetError(
                f"{data}: this dataset has {', '.join(differ)}; use another folder, or the same "
                "values."
            )


class Known:
    """The videos of a dataset that need no work, found without reading them where possible."""

    def __init__(self, data: str | Path, options: Options) -> None:
        self._data = data
        found = ledger.read_rows(data)
        self._all_ids = set(found)
        self._ids_at: dict[tuple[str, float, float | None], list[str]] = {}
        for row in found.values():
            self._ids_at.setdefault((row.source, row.start, row.end), []).append(row.video_id)
        sizes = storage.sizes(data, "groups")  # one request, where a file is one as well
        rows = [
            row
            for row in found.values()
            if is_done(row, options, sizes.get(f"{row.video_id}.parquet", 0))
        ]
        self._rows = {(row.source, row.start, row.end): row for row in rows}
        self._sizes = {row.size for row in rows}
        self._ids = {row.video_id: row for row in rows}

    def forget_replaced(self, row: LedgerRow, present: Collection[str]) -> None:
        """Remove what an earlier content of a source gave, once the new one has been extracted.

        Args:
            row: of the new content.
            present: ids that stay, since their content is there under another name.
        """
        for old in self._ids_at.get((row.source, row.start, row.end), ()):
            if row.status in FINAL and old != row.video_id and old not in present:
                ledger.remove(self._data, old)

    def find(self, video: Source, path: str | None) -> LedgerRow | None:
        """The row of a video, if it is done and has not changed since.

        A file of the same size and time as before is taken for the same; so is a link that was
        extracted. A file that was moved or copied is known by its content.

        Args:
            video: as the user named it.
            path: the file or URL that holds it; None for a link that was not downloaded.
        """
        row = self._rows.get((video.location, video.start, video.end))
        if path is None:
            return row
        size, modified = stat(path)
        if row is not None and (row.size, row.modified) == (size, modified) and modified:
            return row
        if size not in self._sizes or "://" in path:
            return None
        try:
            row = self._ids.get(video_id(source.sha256(Path(path)), video))
        except SourceError:
            return None
        return None if row is None else renewed(row, video, modified, self._data)

    def forget_failure(self, video: Source) -> None:
        """As :func:`forget_failure`; costs nothing where there is nothing to forget."""
        if missing_id(video) in self._all_ids:
            forget_failure(video, self._data)


def is_done(row: LedgerRow, options: Options, size: int) -> bool:
    """Whether a row is the last word on a video whose groups file has ``size`` bytes."""
    same = (row.extractor, row.spec, row.face) == (
        EXTRACTOR,
        options.spec.to_dict(),
        options.face,
    )
    if not same or row.status not in FINAL:
        return False
    return row.status != "ok" or size == row.groups_size


def renewed(row: LedgerRow, video: Source, modified: int, data: str | Path) -> LedgerRow:
    """The row of a file that was touched or moved, written so that it need not be read again."""
    if row.source != video.location and ("://" in row.source or os.path.exists(row.source)):
        return row  # a copy
    row = dataclasses.replace(row, source=video.location, modified=modified)
    ledger.write_row(data, row)
    return row


def tidy(data: str | Path, options: Options) -> None:
    """Remove what killed jobs left: files half written, and the parts of videos that are done."""
    for name in storage.names(data, "parts", ""):
        row = done_before(name, data, options)
        if row is not None:
            storage.remove_folder(data, parts_folder(row))
    storage.sweep(data, "groups", "ledger", "parts")


def done_before(some_id: str, data: str | Path, options: Options) -> LedgerRow | None:
    """The row of a video if that is done."""
    row = ledger.read_row(data, some_id)
    done = row is not None and is_done(row, options, groups.size_of(data, some_id))
    return row if done else None


def stat(path: str) -> tuple[int, int]:
    """Size in bytes and time of the last change in ns; 0 where it is not known."""
    try:
        if "://" not in path:  # whose name may be no UTF-8, which Arrow wants
            found = os.stat(path)
            return found.st_size, found.st_mtime_ns
        filesystem, inner = storage.open_url(path)
        info = filesystem.get_file_info(inner)
    except (DatasetError, OSError):
        return 0, 0
    return info.size or 0, info.mtime_ns or 0


def video_id(digest: str, video: Source) -> str:
    """Id of a video with this SHA-256; a part of one has its milliseconds in its id."""
    if not video.part:
        return digest[:16]
    end = "" if video.end is None else round(1000 * video.end)
    return f"{digest[:16]}-{round(1000 * video.start)}-{end}"


def missing_id(video: Source) -> str:
    """Id of a video whose content could not be had, made from its name."""
    name = f"{video.location}{video.part}".encode(errors="surrogateescape")
    return "src-" + hashlib.sha256(name).hexdigest()[:16]


def failed_row(video: Source, options: Options, reason: str) -> LedgerRow:
    """The row of a video whose content could not be had; its id is made from its name."""
    return LedgerRow(
        missing_id(video), "failed", video.location,
        reason.removeprefix(f"{video.location}: "), start=video.start, end=video.end,
        face=options.face, extractor=EXTRACTOR, spec=options.spec.to_dict(),
    )  # fmt: skip


def forget_failure(video: Source, data: str | Path) -> None:
    """Remove the row of :func:`failed_row`, if any: the content could be had this time."""
    ledger.remove(data, missing_id(video))


def record(row: LedgerRow, data: str | Path) -> LedgerRow:
    """Write a ledger row; parts of a video that is done with go."""
    ledger.write_row(data, row)
    if row.status in FINAL:
        storage.remove_folder(data, parts_folder(row))
    return row


def parts_folder(row: LedgerRow) -> str:
    """Where the parts of a video wait for the others, below the dataset's folder."""
    return f"parts/{row.video_id}"
