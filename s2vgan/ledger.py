"""The ledger, what became of each video, and dataset.json, the identity of a dataset::

DATA/ledger/<video_id>.json      what became of one video
DATA/dataset.json                spec, counts and a hash over the groups files
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from s2vgan import groups, storage
from s2vgan.errors import DatasetError
from s2vgan.spec import FaceChoice, GroupSpec

Status = Literal["ok", "empty", "rejected", "failed"]


@dataclass(frozen=True)
class LedgerRow:
    """What became of one video. ``cpu_seconds`` is the only field that may differ between runs.

    Attributes:
        video_id: from the content's SHA-256; ``src-`` and a hash of the name without content.
        status: ok; empty (no complete group); rejected (cannot be used); failed (tried
            again next time).
        source: path, URL or link that the user gave, without the times.
        reason: why it is not ok, a sentence.
        sha256: of the content.
        size: of the content in bytes.
        modified: time of the file's last change in ns, so that it need not be hashed again; 0
            where it is not known.
        start: where in the video the extraction began, s.
        end: where it ended, s; None for the video's end.
        seconds: from its first frame to the end of its last.
        fps: its own average rate, frames a second.
        frames: of the grid that have a picture.
        face_frames: of these with a face.
        false_starts: places where the coarse search saw a face that was none.
        box_jumps: times the face was found in another place than the frame before.
        groups: written.
        segments: that they form.
        dropped: groups that were not complete, by reason: no_face, no_audio, no_picture, or jump
            (the face jumps, or a cut lies in it).
        timeline: stretches of the grid in time order: first group, one after the last, and
            ``kept`` or the reason.
        groups_sha256: of the groups file.
        groups_size: of the groups file in bytes.
        face: which face was followed: ``largest`` or ``central``.
        extractor: version of the extraction.
        spec: of the groups.
        cpu_seconds: that it took.
    """

    video_id: str
    status: Status
    source: str
    reason: str = ""
    sha256: str = ""
    size: int = 0
    modified: int = 0
    start: float = 0.0
    end: float | None = None
    seconds: float = 0.0
    fps: float = 0.0
    frames: int = 0
    face_frames: int = 0
    false_starts: int = 0
    box_jumps: int = 0
    groups: int = 0
    segments: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    timeline: tuple[tuple[int, int, str], ...] = ()
    groups_sha256: str = ""
    groups_size: int = 0
    face: FaceChoice = "largest"
    extractor: str = ""
    spec: dict[str, Any] = field(default_factory=dict)
    cpu_seconds: float = 0.0

    def __post_init__(self) -> None:
        stretches = tuple((first, stop, what) for first, stop, what in self.timeline)
        object.__setattr__(self, "timeline", stretches)  # JSON knows lists only


@dataclass(frozen=True)
class DatasetInfo:
    """The contents of dataset.json.

    Attributes:
        spec: of every groups file.
        sha256: over the ids and hashes of the groups files: the dataset's identity.
        groups: number of groups by video id.
        videos: number of ledger rows by status.
    """

    spec: GroupSpec
    sha256: str
    groups: dict[str, int]
    videos: dict[str, int]


def write_row(data: str | Path, row: LedgerRow) -> None:
    """Write DATA/ledger/<video_id>.json, whole."""
    text = json.dumps(dataclasses.asdict(row), indent=2, sort_keys=True) + "\n"
    storage.write(data, f"ledger/{row.video_id}.json", text.encode())


def read_rows(data: str | Path) -> dict[str, LedgerRow]:
    """All ledger rows by video id, in the order of their ids; empty where there is none.

    Raises:
        DatasetError: if a record is damaged; it names the file.
    """
    rows = {}
    for name in storage.names(data, "ledger", ".json"):
        row = _parse(storage.read(data, f"ledger/{name}"))
        if row is None:
            raise DatasetError(
                f"{data}/ledger/{name}: not a ledger record; delete it and extract again."
            )
        rows[row.video_id] = row
    return rows


def read_row(data: str | Path, video_id: str) -> LedgerRow | None:
    """The ledger row of one video, or None if there is none that can be read."""
    name = f"ledger/{video_id}.json"
    return _parse(storage.read(data, name)) if storage.exists(data, name) else None


def _parse(record: bytes) -> LedgerRow | None:
    try:
        return LedgerRow(**json.loads(record))
    except (ValueError, TypeError):
        return None


def remove(data: str | Path, video_id: str) -> None:
    """Remove the groups file and the ledger row of a video, if there are any."""
    storage.remove(data, f"groups/{video_id}.parquet")
    storage.remove(data, f"ledger/{video_id}.json")


def has_dataset(data: str | Path) -> bool:
    """Whether there is a DATA/dataset.json."""
    return storage.exists(data, "dataset.json")


def write_dataset(data: str | Path, spec: GroupSpec) -> DatasetInfo:
    """Read the ledger, and write DATA/dataset.json for the groups files that it names.

    A groups file counts only if its ledger row says ``ok``.

    Raises:
        DatasetError: if a video was extracted with another spec, or its groups are gone.
    """
    digest = hashlib.sha256()
    counts: dict[str, int] = {}
    statuses: dict[str, int] = {}
    for row in read_rows(data).values():
        statuses[row.status] = statuses.get(row.status, 0) + 1
        if row.status != "ok":
            continue
        if row.spec != spec.to_dict():
            raise DatasetError(
                f"{data}: {row.source} was extracted with another spec ({row.spec}); extract it "
                "again, or use another folder."
            )
        if groups.size_of(data, row.video_id) != row.groups_size or not row.groups_sha256:
            raise DatasetError(
                f"{data}: the groups of {row.source} are gone or others than before; extract it "
                f"again, or delete ledger/{row.video_id}.json."
            )
        counts[row.video_id] = row.groups
        digest.update(f"{row.video_id} {row.groups_sha256}\n".encode())
    info = DatasetInfo(spec, digest.hexdigest(), counts, dict(sorted(statuses.items())))
    text = json.dumps(dataclasses.asdict(info), indent=2, sort_keys=True) + "\n"
    storage.write(data, "dataset.json", text.encode())
    return info


def read_dataset(data: str | Path) -> DatasetInfo:
    """The contents of DATA/dataset.json.

    Raises:
        DatasetError: if there is none, or it cannot be read.
    """
    if not has_dataset(data):
        raise DatasetError(
            f"{data}: no dataset here (no dataset.json); make one with "
            f"`python pipelines/extract.py SOURCE... --out {data}`."
        )
    try:
        found = json.loads(storage.read(data, "dataset.json"))
        return DatasetInfo(
            GroupSpec(**found["spec"]), found["sha256"], found["groups"], found["videos"]
        )
    except (ValueError, TypeError, KeyError) as error:
        raise DatasetError(
            f"{data}/dataset.json: damaged ({error}); extract again to renew it."
        ) from error
