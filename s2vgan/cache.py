"""A folder on local disk for what was computed once: entries are there whole or not at all.

One process at a time builds; others that want an entry wait for it. Entries that were not used for
longest go when the room is wanted. An entry that is in use may go too: its files stay readable for
those who have them open. Whatever else is in the folder is somebody else's, and stays.
"""

import contextlib
import errno
import fcntl
import os
import re
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

from s2vgan.errors import DatasetError

VARIABLE: Final = "S2VGAN_CACHE"
KEPT: Final = 50 * 2**30  # bytes that all entries together may take

_LOCK: Final = "lock"
_ENTRY: Final = re.compile(r"(graph-)?[0-9a-f]{64}")
_TEMPORARY: Final = re.compile(_ENTRY.pattern + r"\.[0-9a-f]{32}\.tmp")

T = TypeVar("T")


def home() -> Path:
    """The folder of all entries: S2VGAN_CACHE, or ~/.cache/s2vgan."""
    return Path(os.environ.get(VARIABLE) or "~/.cache/s2vgan").expanduser().absolute()


def fetch(
    name: str, size: int, open_entry: Callable[[Path], T | None], build: Callable[[Path], None]
) -> T:
    """Open an entry; build it first if it is not there, or damaged.

    Args:
        name: of the entry, which decides its content: a SHA-256 in hex, or one after ``graph-``.
        size: about how many bytes it takes.
        open_entry: given the entry's folder, what is in it; None if it is not whole.
        build: fills an empty folder.

    Returns:
        What ``open_entry`` gave.

    Raises:
        DatasetError: if the entry cannot be written; it names the folder and the way out.
    """
    path = home() / name
    found = open_entry(path)
    try:
        if found is None:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _locked(path.parent):
                found = open_entry(path)  # another process may have built it meanwhile
                if found is None:
                    _make_room(path, size)
                    _build(path, build)
                    found = open_entry(path)
        with contextlib.suppress(OSError):  # a cache that somebody else owns
            os.utime(path)
    except OSError as error:
        raise DatasetError(
            f"{path.parent}: {size / 1e9:.1f} GB cannot be kept there "
            f"({error.strerror or error}); make room, or set {VARIABLE} to a folder on a local "
            "disk that has it."
        ) from error
    if found is None:
        raise DatasetError(f"{path}: damaged as soon as it was written; check that disk.")
    return found


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which ends with the process whatever becomes of it."""
    with (folder / _LOCK).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"Waiting for another process that writes to {folder}.", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make_room(path: Path, size: int) -> None:
    """Remove what killed builders left, and old entries as far as their room is wanted."""
    folders = [folder for folder in path.parent.iterdir() if folder.is_dir()]
    for left in folders:
        if _TEMPORARY.fullmatch(left.name):
            shutil.rmtree(left, ignore_errors=True)  # its builder had the lock that we have
    others = [entry for entry in folders if _ENTRY.fullmatch(entry.name) and entry != path]
    others.sort(key=lambda entry: entry.stat().st_mtime)
    taken = {entry: sum(file.stat().st_size for file in entry.iterdir()) for entry in others}
    shutil.rmtree(path, ignore_errors=True)  # damaged
    while others and (
        sum(taken.values()) + size > KEPT or shutil.disk_usage(path.parent).free < size
    ):
        shutil.rmtree(others[0], ignore_errors=True)
        del taken[others.pop(0)]
    if shutil.disk_usage(path.parent).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _build(path: Path, build: Callable[[Path], None]) -> None:
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    temporary.mkdir()
    try:
        build(temporary)
        for file in temporary.iterdir():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())  # else a crash of the machine can leave files of zeros
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
