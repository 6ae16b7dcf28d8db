"""Files in a folder that may lie anywhere ``pyarrow.fs`` knows: local, ``s3://`` and others.

A file appears whole or not at all: it is written under another name, ``<name>.<32 hex>.tmp``, and
renamed. What a killed writer leaves is known for what it is by a lock that ended with its writer,
so that :func:`sweep` is safe while other jobs write to the same folder.
"""

import contextlib
import fcntl
import os
import re
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from s2vgan.errors import DatasetError

_TEMPORARY: Final = re.compile(r"\.[0-9a-f]{32}\.tmp$")
_ABANDONED: Final = 24 * 3600.0  # seconds, where there are no locks: S3 and others


def key_in(url: str) -> str:
    """Why a URL that has a key or a password in it is refused; "" if it has none."""
    scheme, authority, *_ = urlsplit(url) if "://" in url else ("", "")
    # A secret with a slash in it ends the authority before the @; no bucket has a colon.
    if "@" not in authority and not (scheme == "s3" and ":" in authority):
        return ""
    return (
        f"{scheme}://***: a key or password in a URL would be shown in the ledger and in messages; "
        "leave it out, and put a key for S3 into the environment (AWS_ACCESS_KEY_ID, "
        "AWS_SECRET_ACCESS_KEY) or into ~/.aws."
    )


def open_url(url: str | Path) -> tuple[pafs.FileSystem, str]:
    """Filesystem and path of a local path or URL.

    Raises:
        DatasetError: if pyarrow does not know the URL's scheme, or there is a key in it.
    """
    text = str(url)
    if "://" not in text:
        return pafs.LocalFileSystem(), str(Path(text).absolute())
    if refusal := key_in(text):
        raise DatasetError(refusal)
    try:
        filesystem, path = pafs.FileSystem.from_uri(text)
    except (pa.ArrowInvalid, OSError) as error:
        raise DatasetError(f"{text}: not a path or URL that can be opened ({error}).") from error
    return filesystem, path


def make(folder: str | Path) -> None:
    """Make a folder, unless it is there.

    Raises:
        OSError: if that is not possible.
    """
    filesystem, root = open_url(folder)
    filesystem.create_dir(root, recursive=True)


def exists(folder: str | Path, name: str) -> bool:
    """Whether there is a file ``name`` in a folder."""
    filesystem, root = open_url(folder)
    return bool(filesystem.get_file_info(f"{root}/{name}").type == pafs.FileType.File)


def size(folder: str | Path, name: str) -> int:
    """Bytes of a file; 0 where there is none."""
    filesystem, root = open_url(folder)
    info = filesystem.get_file_info(f"{root}/{name}")
    return int(info.size or 0) if info.type == pafs.FileType.File else 0


def names(folder: str | Path, name: str, suffix: str) -> Iterator[str]:
    """Names that end in ``suffix`` of what is in folder ``name``, sorted; none where it is not."""
    filesystem, root = open_url(folder)
    inside = pafs.FileSelector(f"{root}/{name}", allow_not_found=True)
    found = (info.base_name for info in filesystem.get_file_info(inside))
    yield from sorted(base for base in found if base.endswith(suffix))


def sizes(folder: str | Path, name: str) -> dict[str, int]:
    """Bytes of each file in folder ``name``; empty where there is no such folder."""
    filesystem, root = open_url(folder)
    inside = pafs.FileSelector(f"{root}/{name}", allow_not_found=True)
    return {
        info.base_name: int(info.size)
        for info in filesystem.get_file_info(inside)
        if info.type == pafs.FileType.File
    }


def read(folder: str | Path, name: str) -> bytes:
    """The bytes of a small file.

    Raises:
        FileNotFoundError: if there is none.
    """
    filesystem, root = open_url(folder)
    with filesystem.open_input_stream(f"{root}/{name}") as stream:
        return bytes(stream.read())


class Target:
    """A file of :func:`replacing`: what is written to it gets its name when all is well."""

    def __init__(self, filesystem: pafs.FileSystem, path: str) -> None:
        self._filesystem, self._path = filesystem, path
        self._temporary = f"{path}.{uuid.uuid4().hex}.tmp"
        self._stream: Any = None

    def open(self) -> Any:
        """Begin to write; without it, nothing changes."""
        folder = self._path.rpartition("/")[0]
        self._filesystem.create_dir(folder, recursive=True)
        if self._is_local:
            self._stream = open(self._temporary, "xb")  # noqa: SIM115
            with contextlib.suppress(OSError):  # some file systems have no locks
                fcntl.flock(self._stream, fcntl.LOCK_EX)
        else:
            self._stream = self._filesystem.open_output_stream(self._temporary)
        return self._stream

    @property
    def _is_local(self) -> bool:
        return isinstance(self._filesystem, pafs.LocalFileSystem)

    def _finish(self) -> None:
        if self._stream is None:
            return
        if self._is_local:
            self._stream.flush()
            os.fsync(self._stream.fileno())  # else a crash of the machine can leave the name empty
            os.replace(self._temporary, self._path)
            self._stream.close()  # and with it the lock: not before the file has its name
        else:
            self._stream.close()
            self._filesystem.move(self._temporary, self._path)

    def _give_up(self) -> None:
        if self._stream is None:
            return
        with contextlib.suppress(OSError):  # a full disk fails again when the rest is flushed
            self._stream.close()
        with contextlib.suppress(OSError):
            self._filesystem.delete_file(self._temporary)


@contextlib.contextmanager
def replacing(folder: str | Path, name: str) -> Iterator[Target]:
    """Write a file so that it appears whole when the block ends without an error, or not at all."""
    filesystem, root = open_url(folder)
    target = Target(filesystem, f"{root}/{name}")
    try:
        yield target
        target._finish()
    except BaseException:
        target._give_up()
        raise


def write(folder: str | Path, name: str, content: bytes) -> None:
    """Write a small file so that it appears whole or not at all; its folder is made."""
    with replacing(folder, name) as target:
        target.open().write(content)


def remove(folder: str | Path, name: str) -> None:
    """Remove a file, if it is there."""
    filesystem, root = open_url(folder)
    with contextlib.suppress(FileNotFoundError):
        filesystem.delete_file(f"{root}/{name}")


def remove_folder(folder: str | Path, name: str) -> None:
    """Remove a folder with all that is in it, if it is there."""
    filesystem, root = open_url(folder)
    with contextlib.suppress(FileNotFoundError):
        filesystem.delete_dir(f"{root}/{name}")


def sweep(folder: str | Path, *below: str) -> None:
    """Remove what killed writers left in a folder, and in some folders below it, however deep.

    A file that is being written stays: on a local or shared disk its writer holds a lock, and
    elsewhere all that is younger than a day is left alone. Local folders that are empty go too.
    """
    filesystem, root = open_url(folder)
    places = [pafs.FileSelector(root, allow_not_found=True)]
    places += [pafs.FileSelector(f"{root}/{name}", True, recursive=True) for name in below]
    for place in places:
        folders = [place.base_dir] if place.recursive else []
        for info in filesystem.get_file_info(place):
            if info.type == pafs.FileType.Directory:
                folders += [info.path] if place.recursive else []
            elif _TEMPORARY.search(info.base_name) and _is_abandoned(filesystem, info):
                with contextlib.suppress(OSError):  # another job was faster
                    filesystem.delete_file(info.path)
        if isinstance(filesystem, pafs.LocalFileSystem):
            for path in sorted(folders, reverse=True):
                with contextlib.suppress(OSError):  # not empty
                    os.rmdir(path)


def _is_abandoned(filesystem: pafs.FileSystem, info: pafs.FileInfo) -> bool:
    if not isinstance(filesystem, pafs.LocalFileSystem):
        return info.mtime_ns is not None and time.time() - info.mtime_ns / 1e9 > _ABANDONED
    try:
        with open(info.path, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
