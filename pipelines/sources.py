"""What a user may give as sources: files, folders, globs, s3:// URLs, lists, links."""

import glob
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pyarrow.fs as pafs

from s2vgan import storage
from s2vgan.errors import DatasetError, SourceError
from s2vgan.source import Source

VIDEO_SUFFIXES: Final = (
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".flv", ".wmv",
    ".3gp", ".ogv",
)  # fmt: skip
_NUMBER: Final = r"\d+(?:\.\d*)?|\.\d+"
_TIME: Final = re.compile(rf"(?:(?:(?P<h>\d+):)?(?P<m>\d+):)?(?P<s>{_NUMBER})")
_LIKE_TIMES: Final = re.compile(
    r"[\d:.,;\-\u2013\u2014]*[\d\-\u2013\u2014][\d:.,;\-\u2013\u2014smh]*"
)


@dataclass(frozen=True)
class Sources:
    """Sources, resolved.

    Attributes:
        videos: paths, URLs and web links of videos or parts of them, each once, in the order in
            which they were named.
        missing: what was named but is not there, or holds no video.
        expanded: folders and globs that were named and gave videos.
    """

    videos: tuple[Source, ...]
    missing: tuple[Source, ...]
    expanded: tuple[Source, ...]


def resolve(sources: Iterable[str]) -> Sources:
    """Expand folders, globs, s3:// folders and .txt lists; see :func:`read_list` for these.

    Args:
        sources: paths, globs, URLs, links and lists. What a list says about times goes for each
            video of the folder or glob on that line. The same video with other times is another
            source.

    Raises:
        SourceError: if nothing is left, or a list cannot be read.
    """
    videos: dict[Source, None] = {}
    missing: dict[Source, None] = {}
    expanded: dict[Source, None] = {}
    for source in sources:
        for entry in read_list(source) if source.endswith(".txt") else [Source(source)]:
            found = [entry.location] if entry.is_link else _expand(entry.location)
            videos.update((replace(entry, location=location), None) for location in found)
            entry = replace(entry, location=_absolute(entry.location))
            if not found:
                missing[entry] = None
            elif found != [entry.location]:
                expanded[entry] = None
    if not videos:
        named = ", ".join(entry.location for entry in missing) or "no source"
        raise SourceError(
            f"{named}: nothing to extract; give video files, folders with videos, globs, "
            "s3:// paths, or a .txt list of these and of links."
        )
    return Sources(tuple(videos), tuple(missing), tuple(expanded))


def read_list(path: str | Path) -> list[Source]:
    """The entries of a list, one a line, with nothing expanded.

    ``#`` at the start of a line or after a space begins a comment. The last word of a line may be
    a stretch of time, ``start-end``, of which either may be left out: ``12.5-60``, ``0:30-2:15``,
    ``1:02:03-``, ``-90``. If the whole line names something that is there, it is a path all the
    same. Relative paths start at the list's folder.

    Raises:
        SourceError: if the file is missing or is no text, or a stretch of time is none; it names
            the line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: not a list that can be read ({error}).") from error
    entries = []
    for number, line in enumerate(text.splitlines(), start=1):
        line = re.sub(r"(^|\s)#.*", "", line).strip()
        if line:
            entries.append(_entry(line, path.parent, f"{path}, line {number}"))
    return entries


def _entry(line: str, folder: Path, where: str) -> Source:
    """The source of a line; ``where`` is for people."""
    *before, word = line.rsplit(maxsplit=1)
    if not before or not _LIKE_TIMES.fullmatch(word) or _is_there(_located(line, folder)):
        return Source(_located(line, folder))
    video = Source(_located(before[0].strip(), folder))
    start, dash, end = word.partition("-")
    try:
        if not dash or word == "-":
            raise ValueError
        return replace(
            video,
            start=_seconds(start) if start else 0.0,
            end=_seconds(end) if end else None,
        )
    except (ValueError, SourceError) as error:
        raise SourceError(
            f"{where}: {word} is no stretch of time; end the line with start-end, such as "
            "12.5-60, 0:30-2:15, 1:02:03- or -90 (if it belongs to the name of a file, there is "
            f"no such file: {line})."
        ) from error


def _seconds(text: str) -> float:
    """Seconds of ``90``, ``1:30`` or ``0:01:30.5``.

    Raises:
        ValueError: if it is none of these.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(text)
    hours, minutes, seconds = (float(match[name] or 0) for name in "hms")
    if (match["m"] and seconds >= 60) or (match["h"] and minutes >= 60):
        raise ValueError(text)
    return hours * 3600 + minutes * 60 + seconds


def _located(entry: str, folder: Path) -> str:
    """An entry of a list in this folder, as if it had been given by itself."""
    return entry if "://" in entry else str(folder / entry)


def _absolute(entry: str) -> str:
    return entry if "://" in entry else str(Path(entry).absolute())


def _is_there(entry: str) -> bool:
    return "://" not in entry and (Path(entry).exists() or any(glob.iglob(entry, recursive=True)))


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
    return [
        str(child.absolute())
        for child in videos
        if child.is_file() and not _is_hidden(str(child.relative_to(folder)))
    ]


def _expand_url(url: str) -> list[str]:
    scheme, (_, _, query) = url.split("://")[0], url.partition("?")
    try:
        filesystem, path = storage.open_url(url)
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
        if child.type == pafs.FileType.File
        and _is_video(child.path)
        and not _is_hidden(child.path.removeprefix(path))
    ]


def _is_hidden(path: str) -> bool:
    """Whether a name in a path starts with a dot: what others have not finished, or keep."""
    return any(name.startswith(".") for name in path.split("/"))


def _is_video(name: str) -> bool:
    return name.lower().endswith(VIDEO_SUFFIXES)
