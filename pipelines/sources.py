"""What a user may give as sources: files, folders, globs, s3:// URLs, lists, links."""

import glob
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow.fs as pafs

from s2vgan import groups
from s2vgan.errors import DatasetError, SourceError

VIDEO_SUFFIXES: Final = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".flv", ".wmv",
    ".3gp", ".ogv",
)  # fmt: skip


@dataclass(frozen=True)
class Sources:
    """Sources, resolved.

    Attributes:
        videos: paths and URLs of videos, each once.
        links: web links that must be downloaded first, each once.
        missing: what was named but is not there.
    """

    videos: tuple[str, ...]
    links: tuple[str, ...]
    missing: tuple[str, ...]


def resolve(sources: Iterable[str]) -> Sources:
    """Expand folders, globs, s3:// folders and .txt lists (``#`` starts a comment).

    Raises:
        SourceError: if nothing is left, or a list cannot be read.
    """
    videos: dict[str, None] = {}
    links: dict[str, None] = {}
    missing: dict[str, None] = {}
    for source in sources:
        for entry in _entries(source):
            if entry.startswith(("https://", "http://")):
                links[entry] = None
                continue
            found = _expand(entry)
            if found:
                videos.update(dict.fromkeys(found))
            else:
                missing[entry] = None
    if not videos and not links:
        named = ", ".join(missing) or "no source"
        raise SourceError(
            f"{named}: nothing to extract; give video files, folders with videos, globs, "
            "s3:// paths, or a .txt list of these and of links."
        )
    return Sources(tuple(videos), tuple(links), tuple(missing))


def read_list(path: str | Path) -> list[str]:
    """The entries of a list: one a line, ``#`` at its start or after a space comments.

    Raises:
        SourceError: if the file is missing or is no text.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: not a list that can be read ({error}).") from error
    lines = (line.split(" #")[0].strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _entries(source: str) -> Iterator[str]:
    """The source itself, or the entries of a list; its relative paths start at the list."""
    if not source.endswith(".txt"):
        yield source
        return
    for entry in read_list(source):
        local = "://" not in entry and not Path(entry).is_absolute()
        yield str(Path(source).parent / entry) if local else entry


def _expand(entry: str) -> list[str]:
    if "://" in entry:
        return _expand_url(entry)
    path = Path(entry)
    if path.is_file():
        return [str(path.absolute())]
    if path.is_dir():
        return _inside(path)
    found: list[str] = []
    for match in map(Path, sorted(glob.glob(entry, recursive=True))):
        if match.is_dir():
            found += _inside(match)
        elif _is_video(match.name):
            found.append(str(match.absolute()))
    return found


def _inside(folder: Path) -> list[str]:
    videos = sorted(child for child in folder.rglob("*") if _is_video(child.name))
    return [str(child.absolute()) for child in videos if child.is_file()]


def _expand_url(url: str) -> list[str]:
    scheme, (_, _, query) = url.split("://")[0], url.partition("?")
    try:
        filesystem, path = groups.open_url(url)
        info = filesystem.get_file_info(path)
        if info.type == pafs.FileType.File:
            return [url]
        if info.type != pafs.FileType.Directory:
            return []
        children = filesystem.get_file_info(pafs.FileSelector(path, recursive=True))
    except (OSError, DatasetError) as error:
        raise SourceError(f"{url}: cannot be listed ({error}).") from error
    tail = f"?{query}" if query else ""  # such as endpoint_override, for stores like S3
    return [
        f"{scheme}://{child.path}{tail}"
        for child in sorted(children, key=lambda child: child.path)
        if child.type == pafs.FileType.File and _is_video(child.path)
    ]


def _is_video(name: str) -> bool:
    return name.lower().endswith(VIDEO_SUFFIXES)
