"""The archive of downloads: what became of each link, one small file a link.

    VIDEOS/link-<hash>.mp4            a video, named by its link
    VIDEOS/archive/link-<hash>.json   which link, its file with size and hash, or why it failed
    VIDEOS/.partial/link-<hash>/      what is being fetched; locked by the .lock beside it

Each file appears whole or not at all, and no two links share one: any number of processes can
fetch at once.
"""

import contextlib
import dataclasses
import datetime
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from s2vgan.files import write_text
from s2vgan.source import sha256

ARCHIVE: Final = "archive"  # folder of the records
_PARTIAL: Final = ".partial"  # folder of what is being fetched


@dataclass(frozen=True)
class Record:
    """What became of a link: VIDEOS/archive/<stem>.json.

    Attributes:
        link: as it was given.
        status: ``ok`` or ``failed`` (tried again next time).
        time: when, UTC.
        reason: why it failed, a sentence.
        file: name of the video.
        size: of the video in bytes.
        modified: time of the file's last change in ns.
        sha256: of the video.
    """

    link: str
    status: Literal["ok", "failed"]
    time: str
    reason: str = ""
    file: str = ""
    size: int = 0
    modified: int = 0
    sha256: str = ""


def stem(link: str) -> str:
    """Name of a link's file and record, without suffix."""
    return "link-" + hashlib.sha256(link.encode()).hexdigest()[:16]


def read_record(link: str, out: str | Path) -> Record | None:
    """What became of a link before; None if that is not known."""
    try:
        text = (Path(out) / ARCHIVE / f"{stem(link)}.json").read_text(encoding="utf-8")
        return Record(**json.loads(text))
    except (OSError, ValueError, TypeError):
        return None


def present(link: str, out: str | Path) -> Path | None:
    """The file of a link that was fetched before, if it is still what was fetched."""
    record = read_record(link, out)
    if record is None or record.status != "ok":
        return None
    path = Path(out) / Path(record.file).name
    try:
        found = path.stat()
    except OSError:
        return None
    if found.st_size != record.size:
        return None
    same = found.st_mtime_ns == record.modified or sha256(path) == record.sha256
    return path if same else None


def keep(link: str, found: Path, out: Path) -> Path:
    """Give a downloaded file its name, and record it."""
    path = out / (stem(link) + found.suffix.lower())
    digest = sha256(found)
    with found.open("rb") as file:
        os.fsync(file.fileno())  # else a crash of the machine can leave the name without content
    os.replace(found, path)
    size, modified = path.stat().st_size, path.stat().st_mtime_ns
    _write(out, Record(link, "ok", _now(), "", path.name, size, modified, digest))
    return path


def note_failure(link: str, reason: str, out: Path) -> None:
    """Record that a link could not be fetched, unless its file is there."""
    if present(link, out) is None:
        _write(out, Record(link, "failed", _now(), reason))


def _write(out: Path, record: Record) -> None:
    text = json.dumps(dataclasses.asdict(record), indent=2, ensure_ascii=False) + "\n"
    write_text(out / ARCHIVE / f"{stem(record.link)}.json", text)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@contextlib.contextmanager
def alone(link: str, out: Path) -> Iterator[Path]:
    """An empty folder for a link that no other process or thread uses; removed in the end.

    Waits for one that does.
    """
    folder = out / _PARTIAL / stem(link)
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_suffix(".lock")
    handle = _locked(lock)
    try:
        if folder.exists():  # of a process that was killed
            shutil.rmtree(folder)
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # what is raised, or done, matters more
        lock.unlink(missing_ok=True)  # last: from here on it is another's
        os.close(handle)


def _locked(lock: Path) -> int:
    """A file, made and locked; the lock lasts until its handle is closed."""
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT)
        fcntl.flock(handle, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), lock.stat()):
                return handle
        os.close(handle)  # it was removed while we waited: that lock keeps nobody out
