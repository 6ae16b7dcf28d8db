"""All that a file tells of being made: its watermark, its tags and its content credentials."""

import dataclasses
from pathlib import Path
from typing import Any

from s2vgan.errors import SourceError
from s2vgan.media import read_tags
from s2vgan.provenance.credentials import Credentials, read_credentials
from s2vgan.provenance.detector import Detection, detect

TAGS = ("title", "comment")


@dataclasses.dataclass(frozen=True)
class Provenance:
    """What a file tells of being made.

    Attributes:
        file: its path.
        watermark: of the key that was looked for.
        tags: title and comment of the container, as far as it has them.
        credentials: its C2PA manifest, None if it carries none or a broken one.
        unreadable: why the manifest that it carries cannot be read; empty if nothing is broken.
    """

    file: str
    watermark: Detection
    tags: dict[str, str]
    credentials: Credentials | None
    unreadable: str

    @classmethod
    def read(cls, path: str | Path, key: str) -> "Provenance":
        """Examine a video for the watermark of a key, tags and content credentials.

        Raises:
            SourceError: if it cannot be read, has no picture, or is too short.
            ConfigError: if c2pa-python cannot be loaded.
        """
        tags = read_tags(path)
        told = {name: tags[name] for name in TAGS if name in tags}
        watermark = detect(path, key)
        credentials, unreadable = None, ""
        try:
            credentials = read_credentials(path)
        except SourceError as error:
            unreadable = str(error)
        return cls(str(path), watermark, told, credentials, unreadable)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)

    def describe(self) -> str:
        """Lines for people; what does not print in them is escaped, since anybody writes a tag."""
        mark = self.watermark
        lines = [
            f"{self.file}: watermark {'found' if mark.found else 'not found'} "
            f"(statistic {mark.statistic:.1f} over {mark.seconds:.1f} s; a video without it "
            f"reaches that with a probability of at most {mark.false_alarm:.1g})."
        ]
        lines += [f"{name}: {text}" for name, text in self.tags.items()]
        if self.unreadable:
            lines.append(f"Content credentials: unreadable. {self.unreadable}")
        elif (signed := self.credentials) is None:
            lines.append("Content credentials: none.")
        else:
            lines.append(
                f"Content credentials: {signed.state}, signed by {signed.issuer or 'nobody named'}."
            )
            if signed.source_type:
                lines.append(f"Source type: {signed.source_type.rpartition('/')[2]}")
            lines += [f"  {name}: {text}" for name, text in signed.model.items()]
        return "\n".join(_printable(line) for line in lines)


def _printable(text: str) -> str:
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )
