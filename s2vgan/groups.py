"""The group: 3 face frames and their speech, and how groups lie on disk as Parquet.

This is the one module that knows the format of ``DATA/groups/<video_id>.parquet``; the ledger and
``DATA/dataset.json`` belong to :mod:`s2vgan.ledger`.
"""

import contextlib
import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from s2vgan import storage
from s2vgan.errors import DatasetError
from s2vgan.spec import FORMAT_VERSION, GroupSpec

CHUNK_BYTES = 20 << 20  # of frames in one row group: bounded memory, large enough reads
ZSTD_LEVEL = -5  # writes a third faster than level 1; pictures grow by 5 %
_METADATA_KEY = b"s2vgan"


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


def rows_per_chunk(spec: GroupSpec) -> int:
    """Groups that are written and read at a time: 568 of 64x64, 35 of 256x256."""
    return max(1, CHUNK_BYTES // math.prod(spec.frame_shape))


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
        _binary(np.stack([group.frames for group in groups])),
        _binary(np.stack([group.audio for group in groups]).astype("<i2", copy=False)),
        pa.FixedSizeListArray.from_arrays(pa.array(boxes), 4 * spec.frames_per_group),
    ]
    return pa.Table.from_arrays(columns, schema=wanted)


def _binary(rows: np.ndarray) -> pa.Array:
    """Rows of one length as a binary column, without a Python object per row."""
    length = rows[0].nbytes
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * np.int32(length)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(rows))]
    return pa.Array.from_buffers(pa.binary(), len(rows), buffers)


@dataclass(frozen=True)
class Written:
    """What was written: number of groups, and SHA-256 and bytes of the file ("" and 0 if none)."""

    groups: int
    sha256: str = ""
    size: int = 0


class _Sink:
    """A file being written, as the Parquet writer sees it; its bytes are hashed as they pass."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._digest = stream, hashlib.sha256()
        self.size = 0

    @property
    def closed(self) -> bool:
        return bool(self._stream.closed)

    def write(self, data: Any) -> int:
        self._digest.update(data)
        self._stream.write(data)
        self.size += len(data)
        return len(data)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        self._stream.close()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


def write_groups(
    data: str | Path,
    video_id: str,
    groups: Iterable[Group],
    spec: GroupSpec,
    *,
    file: str | None = None,
) -> Written:
    """Write a groups file whole or not at all; memory stays bounded.

    Args:
        data: the dataset's folder or URL.
        video_id: of the video.
        groups: in time order.
        spec: that they have.
        file: to write; by default ``groups/<video_id>.parquet``.

    Returns:
        What was written; with no group, no file is left (one of an earlier run is removed).
    """
    file = file or f"groups/{video_id}.parquet"
    count = 0
    sink: _Sink | None = None
    writer: pq.ParquetWriter | None = None
    rows = iter(groups)
    with storage.replacing(data, file) as target:
        try:
            while chunk := list(itertools.islice(rows, rows_per_chunk(spec))):
                if writer is None:
                    sink = _Sink(target.open())
                    writer = pq.ParquetWriter(
                        sink,
                        schema(spec),
                        compression={"frames": "zstd", "audio": "zstd"},
                        compression_level={"frames": ZSTD_LEVEL, "audio": ZSTD_LEVEL},
                        use_dictionary=False,
                        write_statistics=False,
                    )
                writer.write_table(_table(video_id, chunk, spec))
                count += len(chunk)
        finally:
            if writer is not None:
                writer.close()
    if sink is None:
        storage.remove(data, file)
        return Written(0)
    return Written(count, sink.sha256, sink.size)


def iterate_groups(data: str | Path, file: str, spec: GroupSpec) -> Iterator[Group]:
    """The groups of one file one after another; memory stays bounded.

    Raises:
        DatasetError: if the file is missing, torn or of another spec.
    """
    with _opened(data, file) as (found, parquet):
        if found != spec:
            raise DatasetError(f"{data}/{file}: has another spec ({found}); extract it again.")
        for number in range(parquet.num_row_groups):
            table = parquet.read_row_group(number)
            frames, audio = decode_frames(table, spec), decode_audio(table, spec)
            boxes = np.asarray(table["boxes"].to_pylist(), np.int16)
            boxes = boxes.reshape(-1, spec.frames_per_group, 4)
            segments, indices = table["segment"].to_pylist(), table["index"].to_pylist()
            yield from map(Group, segments, indices, frames, audio, boxes)


def read_groups(data: str | Path, video_id: str) -> tuple[GroupSpec, pa.Table]:
    """Spec and rows of one video, all in memory.

    Raises:
        DatasetError: if the file is missing, torn or not a groups file.
    """
    with _opened(data, f"groups/{video_id}.parquet") as (spec, parquet):
        return spec, parquet.read()


def inspect(data: str | Path, video_id: str) -> tuple[GroupSpec, int]:
    """Spec and number of groups of one video, from the end of its file alone.

    Raises:
        DatasetError: if the file is missing, torn or not a groups file.
    """
    with _opened(data, f"groups/{video_id}.parquet") as (spec, parquet):
        return spec, parquet.metadata.num_rows


@dataclass(frozen=True)
class Chunk:
    """Some rows of a groups file.

    Attributes:
        segment: (n,) int32.
        index: (n,) int32.
        frames: (n, T, S, S, 3) uint8 RGB.
        audio: (n, samples_per_group) int16.
    """

    segment: np.ndarray
    index: np.ndarray
    frames: np.ndarray
    audio: np.ndarray


def read_chunks(data: str | Path, video_id: str) -> Iterator[Chunk]:
    """The rows of one video in time order, a bounded number of them at a time.

    Raises:
        DatasetError: if the file is missing, torn or not a groups file.
    """
    with _opened(data, f"groups/{video_id}.parquet") as (spec, parquet):
        for batch in parquet.iter_batches(rows_per_chunk(spec)):
            part = pa.Table.from_batches([batch])
            places = part["segment"].to_numpy(), part["index"].to_numpy()
            yield Chunk(*places, decode_frames(part, spec), decode_audio(part, spec))


@contextlib.contextmanager
def _opened(data: str | Path, file: str) -> Iterator[tuple[GroupSpec, pq.ParquetFile]]:
    filesystem, root = storage.open_url(data)
    path = f"{root}/{file}"
    try:
        with filesystem.open_input_file(path) as stream:
            parquet = pq.ParquetFile(stream)
            spec = _spec_of(parquet.schema_arrow, path)
            if not parquet.schema_arrow.equals(schema(spec)):
                raise DatasetError(f"{path}: its columns are not those of format {FORMAT_VERSION}.")
            yield spec, parquet
    except (OSError, ValueError) as error:  # Arrow's own errors are ValueErrors
        raise DatasetError(f"{path}: cannot be read ({error}); extract it again.") from error


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


def size_of(data: str | Path, video_id: str) -> int:
    """Bytes of a video's groups file; 0 where there is none."""
    return storage.size(data, f"groups/{video_id}.parquet")
