"""The group: 3 face frames and their speech, and how groups lie on disk.

This is the one module that knows the format. A dataset is a folder (local, ``s3://`` or any
other URL that ``pyarrow.fs`` knows)::

    DATA/groups/<video_id>.parquet   the groups of one video, in time order
    DATA/ledger/<video_id>.json      what became of one video
    DATA/dataset.json                spec, counts and the identity of the dataset
"""

import dataclasses
import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from s2vgan.errors import ConfigError, DatasetError

CropMode = Literal["tracked", "paper"]
Status = Literal["ok", "empty", "rejected", "failed"]

FORMAT_VERSION = 1
ROWS_PER_CHUNK = 512  # 512 groups of 64x64 are 19 MB decoded: bounded memory, large enough I/O
_METADATA_KEY = b"s2vgan"


@dataclass(frozen=True)
class GroupSpec:
    """What one group holds. Two datasets can be mixed only if their specs are equal.

    Attributes:
        fps: frames a second of the grid.
        frames_per_group: T, consecutive frames of one group.
        sample_rate: of the mono speech, in Hz.
        size: S, height and width of a face frame in pixels.
        crop: ``tracked`` (one smoothed square per segment) or ``paper`` (each frame's Haar box).
        version: of the format.
    """

    fps: int = 30
    frames_per_group: int = 3
    sample_rate: int = 16000
    size: int = 64
    crop: CropMode = "tracked"
    version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if self.fps <= 0 or (self.sample_rate * self.frames_per_group) % self.fps:
            raise ConfigError(
                f"fps {self.fps}: a group of {self.frames_per_group} frames is not a whole number "
                f"of samples at {self.sample_rate} Hz; use a rate such as 24, 25, 30, 50 or 60."
            )
        if not 16 <= self.size <= 1024:
            raise ConfigError(f"size {self.size}: use 16 to 1024 pixels.")
        if self.crop not in ("tracked", "paper"):
            raise ConfigError(f"crop {self.crop!r}: use tracked or paper.")

    @property
    def samples_per_group(self) -> int:
        """Samples of speech in one group: 1,600 at 30 frames/s."""
        return self.sample_rate * self.frames_per_group // self.fps

    @property
    def seconds(self) -> float:
        """Length G of one group in seconds: 0.1 at 30 frames/s."""
        return self.frames_per_group / self.fps

    def window(self, past: float, ahead: float) -> tuple[int, int]:
        """Samples before the group, and samples in all, of a window with context in seconds."""
        before = round(past * self.sample_rate)
        return before, before + self.samples_per_group + round(ahead * self.sample_rate)

    @property
    def frame_shape(self) -> tuple[int, int, int, int]:
        """Shape (T, H, W, C) of the frames of one group."""
        return (self.frames_per_group, self.size, self.size, 3)

    def to_dict(self) -> dict[str, Any]:
        """The spec as plain JSON values."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Group:
    """One row: T frames and their speech.

    Attributes:
        segment: rises by one at each gap in time.
        index: position on the video's grid; the group covers [index, index + 1) * G seconds.
        frames: (T, S, S, 3) uint8 RGB.
        audio: (samples_per_group,) int16.
        boxes: (T, 4) int16, crop boxes (x, y, w, h) in source pixels.
    """

    segment: int
    index: int
    frames: np.ndarray
    audio: np.ndarray
    boxes: np.ndarray


@dataclass(frozen=True)
class LedgerRow:
    """What became of one video. ``cpu_seconds`` is the only field that may differ between runs.

    Attributes:
        video_id: from the content's SHA-256; ``src-`` and a hash of the name without content.
        status: ok; empty (no complete group); rejected (cannot be used); failed (tried
            again next time).
        source: path or URL.
        reason: why it is not ok, a sentence.
        sha256: of the content.
        seconds: from its first frame to the end of its last.
        fps: its own average rate, frames a second.
        frames: of the grid that have a picture.
        face_frames: of these with a face.
        groups: written.
        segments: that they form.
        dropped: groups that were not complete, by reason: no_face, no_audio, no_picture, or jump
            (the face jumps, or a cut lies in it).
        extractor: version of the extraction.
        spec: of the groups.
        cpu_seconds: that it took.
    """

    video_id: str
    status: Status
    source: str
    reason: str = ""
    sha256: str = ""
    seconds: float = 0.0
    fps: float = 0.0
    frames: int = 0
    face_frames: int = 0
    groups: int = 0
    segments: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    extractor: str = ""
    spec: dict[str, Any] = field(default_factory=dict)
    cpu_seconds: float = 0.0


@dataclass(frozen=True)
class DatasetInfo:
    """The contents of dataset.json.

    Attributes:
        spec: of every groups file.
        sha256: over the names and bytes of the groups files: the dataset's identity.
        groups: number of groups by video id.
        videos: number of ledger rows by status.
    """

    spec: GroupSpec
    sha256: str
    groups: dict[str, int]
    videos: dict[str, int]


def open_url(url: str | Path) -> tuple[pafs.FileSystem, str]:
    """Filesystem and path of a local path or URL.

    Raises:
        DatasetError: if pyarrow does not know the URL's scheme.
    """
    text = str(url)
    if "://" not in text:
        return pafs.LocalFileSystem(), str(Path(text).absolute())
    try:
        filesystem, path = pafs.FileSystem.from_uri(text)
    except (pa.ArrowInvalid, OSError) as error:
        raise DatasetError(f"{text}: not a path or URL that can be opened ({error}).") from error
    return filesystem, path


def schema(spec: GroupSpec) -> pa.Schema:
    """Arrow schema of a groups file, with the spec in its metadata."""
    fields = [
        ("video_id", pa.string()),
        ("segment", pa.int32()),
        ("index", pa.int32()),
        ("frames", pa.binary()),
        ("audio", pa.binary()),
        ("boxes", pa.list_(pa.int16(), 4 * spec.frames_per_group)),
    ]
    return pa.schema(
        [pa.field(name, kind, nullable=False) for name, kind in fields],
        metadata={_METADATA_KEY: json.dumps(spec.to_dict(), sort_keys=True)},
    )


def _spec_of(found: pa.Schema, where: str) -> GroupSpec:
    try:
        return GroupSpec(**json.loads((found.metadata or {})[_METADATA_KEY]))
    except (KeyError, ValueError, TypeError) as error:
        raise DatasetError(f"{where}: not a groups file of S2V-GAN; extract it again.") from error


def _table(video_id: str, groups: list[Group], spec: GroupSpec) -> pa.Table:
    for group in groups:
        if group.frames.shape != spec.frame_shape or group.frames.dtype != np.uint8:
            raise ValueError(f"frames {group.frames.shape} {group.frames.dtype}: spec is {spec}")
        if group.audio.shape != (spec.samples_per_group,) or group.audio.dtype != np.int16:
            raise ValueError(f"audio {group.audio.shape} {group.audio.dtype}: spec is {spec}")
    boxes = np.asarray([group.boxes for group in groups], dtype=np.int16).reshape(-1)
    wanted = schema(spec)
    columns: list[pa.Array] = [
        pa.array([video_id] * len(groups), pa.string()),
        pa.array([group.segment for group in groups], pa.int32()),
        pa.array([group.index for group in groups], pa.int32()),
        pa.array([group.frames.tobytes() for group in groups], pa.binary()),
        pa.array([group.audio.astype("<i2").tobytes() for group in groups], pa.binary()),
        pa.FixedSizeListArray.from_arrays(pa.array(boxes), 4 * spec.frames_per_group),
    ]
    return pa.Table.from_arrays(columns, schema=wanted)


def _write_whole(filesystem: pafs.FileSystem, path: str, data: bytes) -> None:
    """Write a small file so that it appears whole or not at all."""
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    with filesystem.open_output_stream(temporary) as stream:
        stream.write(data)
    filesystem.move(temporary, path)


def write_groups(data: str | Path, video_id: str, groups: Iterable[Group], spec: GroupSpec) -> int:
    """Write DATA/groups/<video_id>.parquet whole or not at all; memory stays bounded.

    Returns:
        The number of groups; with none, no file is left (one of an earlier run is removed).
    """
    filesystem, root = open_url(data)
    folder = f"{root}/groups"
    filesystem.create_dir(folder, recursive=True)
    target = f"{folder}/{video_id}.parquet"
    temporary = f"{target}.{uuid.uuid4().hex}.tmp"
    count = 0
    writer: pq.ParquetWriter | None = None
    chunk: list[Group] = []

    def flush() -> None:
        nonlocal writer, chunk
        if not chunk:
            return
        if writer is None:
            writer = pq.ParquetWriter(
                temporary,
                schema(spec),
                filesystem=filesystem,
                compression={"frames": "zstd", "audio": "zstd"},
                compression_level={"frames": 1, "audio": 1},
                use_dictionary=False,
                write_statistics=False,
            )
        writer.write_table(_table(video_id, chunk, spec))
        chunk = []

    try:
        for group in groups:
            chunk.append(group)
            count += 1
            if len(chunk) == ROWS_PER_CHUNK:
                flush()
        flush()
        if writer is not None:
            writer.close()
            filesystem.move(temporary, target)
        elif filesystem.get_file_info(target).type == pafs.FileType.File:
            filesystem.delete_file(target)
    except BaseException:
        if writer is not None:
            writer.close()
        if filesystem.get_file_info(temporary).type == pafs.FileType.File:
            filesystem.delete_file(temporary)
        raise
    return count


def read_groups(data: str | Path, video_id: str) -> tuple[GroupSpec, pa.Table]:
    """Spec and rows of one video.

    Raises:
        DatasetError: if the file is missing, torn or not a groups file.
    """
    filesystem, root = open_url(data)
    path = f"{root}/groups/{video_id}.parquet"
    try:
        table = pq.read_table(path, filesystem=filesystem)
    except (OSError, pa.ArrowInvalid) as error:
        raise DatasetError(f"{path}: cannot be read ({error}); extract it again.") from error
    spec = _spec_of(table.schema, path)
    if not table.schema.equals(schema(spec)):
        raise DatasetError(f"{path}: its columns are not those of format {FORMAT_VERSION}.")
    return spec, table


def decode_frames(table: pa.Table, spec: GroupSpec) -> np.ndarray:
    """The frames column as (N, T, S, S, 3) uint8 RGB."""
    return _decode(table, "frames", np.dtype(np.uint8), spec.frame_shape)


def decode_audio(table: pa.Table, spec: GroupSpec) -> np.ndarray:
    """The audio column as (N, samples_per_group) int16."""
    return _decode(table, "audio", np.dtype("<i2"), (spec.samples_per_group,))


def _decode(
    table: pa.Table, column: str, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> np.ndarray:
    """A binary column of rows of one length as one array, without a copy per row."""
    parts = []
    for chunk in table.column(column).chunks:
        offsets = np.frombuffer(chunk.buffers()[1], dtype=np.int32)
        first, last = offsets[chunk.offset], offsets[chunk.offset + len(chunk)]
        values = np.frombuffer(chunk.buffers()[2], dtype=np.uint8)[first:last]
        parts.append(values.view(dtype).reshape(len(chunk), *shape))
    if not parts:
        return np.empty((0, *shape), dtype)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def write_ledger(data: str | Path, row: LedgerRow) -> None:
    """Write DATA/ledger/<video_id>.json, whole."""
    filesystem, root = open_url(data)
    filesystem.create_dir(f"{root}/ledger", recursive=True)
    text = json.dumps(dataclasses.asdict(row), indent=2, sort_keys=True) + "\n"
    _write_whole(filesystem, f"{root}/ledger/{row.video_id}.json", text.encode())


def read_ledger(data: str | Path) -> dict[str, LedgerRow]:
    """All ledger rows by video id, in the order of their ids; empty where there is none."""
    filesystem, root = open_url(data)
    rows = {}
    for path in _files(filesystem, f"{root}/ledger", ".json"):
        try:
            with filesystem.open_input_stream(path) as stream:
                row = LedgerRow(**json.loads(stream.read()))
        except (ValueError, TypeError) as error:
            raise DatasetError(f"{path}: not a ledger record; delete it and extract again.") from (
                error
            )
        rows[row.video_id] = row
    return rows


def read_ledger_row(data: str | Path, video_id: str) -> LedgerRow | None:
    """The ledger row of one video, or None if there is none that can be read."""
    filesystem, root = open_url(data)
    path = f"{root}/ledger/{video_id}.json"
    if filesystem.get_file_info(path).type != pafs.FileType.File:
        return None
    try:
        with filesystem.open_input_stream(path) as stream:
            return LedgerRow(**json.loads(stream.read()))
    except (ValueError, TypeError):
        return None


def has_groups(data: str | Path, video_id: str) -> bool:
    """Whether there is a groups file of a video."""
    return _exists(data, f"groups/{video_id}.parquet")


def has_dataset(data: str | Path) -> bool:
    """Whether there is a DATA/dataset.json."""
    return _exists(data, "dataset.json")


def remove(data: str | Path, video_id: str) -> None:
    """Remove the groups file and the ledger row of a video, if there are any."""
    filesystem, root = open_url(data)
    for name in (f"groups/{video_id}.parquet", f"ledger/{video_id}.json"):
        if _exists(data, name):
            filesystem.delete_file(f"{root}/{name}")


def write_dataset(data: str | Path, spec: GroupSpec) -> DatasetInfo:
    """Read the ledger and the groups files, and write DATA/dataset.json for them.

    A groups file counts only if its ledger row says ``ok``.

    Raises:
        DatasetError: if a video was extracted with another spec, or its groups are gone.
    """
    filesystem, root = open_url(data)
    rows = read_ledger(data)
    digest = hashlib.sha256()
    counts: dict[str, int] = {}
    statuses: dict[str, int] = {}
    for row in rows.values():
        statuses[row.status] = statuses.get(row.status, 0) + 1
        if row.status != "ok":
            continue
        if row.spec != spec.to_dict():
            raise DatasetError(
                f"{data}: {row.source} was extracted with another spec ({row.spec}); extract it "
                "again, or use another folder."
            )
        if not has_groups(data, row.video_id):
            raise DatasetError(
                f"{data}: the groups of {row.source} are gone; extract it again, or delete "
                f"ledger/{row.video_id}.json."
            )
        counts[row.video_id] = row.groups
        digest.update(row.video_id.encode())
        with filesystem.open_input_stream(f"{root}/groups/{row.video_id}.parquet") as stream:
            for block in iter(lambda: stream.read(1 << 20), b""):
                digest.update(block)
    info = DatasetInfo(spec, digest.hexdigest(), counts, dict(sorted(statuses.items())))
    text = json.dumps(dataclasses.asdict(info), indent=2, sort_keys=True) + "\n"
    filesystem.create_dir(root, recursive=True)
    _write_whole(filesystem, f"{root}/dataset.json", text.encode())
    return info


def read_dataset(data: str | Path) -> DatasetInfo:
    """The contents of DATA/dataset.json.

    Raises:
        DatasetError: if there is none, or it cannot be read.
    """
    filesystem, root = open_url(data)
    path = f"{root}/dataset.json"
    if not has_dataset(data):
        raise DatasetError(
            f"{data}: no dataset here (no dataset.json); make one with "
            f"`python pipelines/extract.py SOURCE... --out {data}`."
        )
    try:
        with filesystem.open_input_stream(path) as stream:
            found = json.loads(stream.read())
        return DatasetInfo(
            GroupSpec(**found["spec"]), found["sha256"], found["groups"], found["videos"]
        )
    except (ValueError, TypeError, KeyError) as error:
        raise DatasetError(f"{path}: damaged ({error}); extract again to renew it.") from error


def _exists(data: str | Path, name: str) -> bool:
    filesystem, root = open_url(data)
    return bool(filesystem.get_file_info(f"{root}/{name}").type == pafs.FileType.File)


def _files(filesystem: pafs.FileSystem, folder: str, suffix: str) -> Iterator[str]:
    if filesystem.get_file_info(folder).type != pafs.FileType.Directory:
        return
    found = filesystem.get_file_info(pafs.FileSelector(folder))
    yield from sorted(info.path for info in found if info.path.endswith(suffix))
