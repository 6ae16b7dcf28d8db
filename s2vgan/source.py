"""A source: one video, or a part of one, and where it comes from."""

import hashlib
import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs as pafs

from s2vgan import storage
from s2vgan.errors import DatasetError, SourceError


@dataclass(frozen=True)
class Source:
    """A video, or a part of it.

    Attributes:
        location: path, URL (``s3://``) or web link.
        start: where the part begins on the presentation clock, in seconds.
        end: where it ends, in seconds; None for the video's end.
    """

    location: str
    start: float = 0.0
    end: float | None = None

    def __post_init__(self) -> None:
        if refusal := storage.key_in(self.location):
            raise SourceError(refusal)
        end = self.start + 1 if self.end is None else self.end
        if not 0 <= self.start < end < math.inf:
            raise SourceError(
                f"{self.location}: from {self.start} s to {self.end} s is no stretch of time; "
                "give a start and a later end."
            )

    @property
    def is_link(self) -> bool:
        """Whether it must be downloaded from the web first."""
        return self.location.startswith(("https://", "http://"))

    @property
    def part(self) -> str:
        """The stretch of time for people, such as `` 12-34.5 s``; empty for a whole video."""
        if self.start == 0 and self.end is None:
            return ""
        return f" {self.start:g}-{'' if self.end is None else f'{self.end:g}'} s"


@contextmanager
def local(location: str) -> Iterator[Path]:
    """A local file with the content of a path or URL; one that lies elsewhere is fetched.

    Raises:
        SourceError: if it is missing or cannot be fetched.
    """
    if "://" not in location:
        if not Path(location).is_file():
            raise SourceError(f"{location}: no such file; check the path.")
        yield Path(location)
        return
    with tempfile.TemporaryDirectory(prefix="s2vgan-") as folder:
        try:
            filesystem, remote = storage.open_url(location)
            path = Path(folder) / Path(remote).name
            pafs.copy_files(
                remote, str(path), source_filesystem=filesystem,
                destination_filesystem=pafs.LocalFileSystem(),
            )  # fmt: skip
        except (OSError, DatasetError) as error:
            raise SourceError(f"{location}: cannot be fetched ({error}).") from error
        yield path


def sha256(path: Path) -> str:
    """SHA-256 of a file's content.

    Raises:
        SourceError: if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}).") from error
