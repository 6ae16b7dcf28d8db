"""The groups of a dataset, decoded once and mapped into memory: no process holds them all.

The frames of an hour of faces are 1.3 GB at 64x64. They are decoded from Parquet into plain files
of the cache (:mod:`s2vgan.cache`), which the operating system pages in and out as it has room, once
for all workers of a machine.
"""

import json
import math
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final
from zipfile import BadZipFile

import numpy as np
from tqdm import tqdm

from s2vgan import cache, groups, storage
from s2vgan.errors import DatasetError
from s2vgan.ledger import DatasetInfo
from s2vgan.spec import GroupSpec

MAX_CONTEXT: Final = 2.0  # s of silence around each stretch, so that any context window lies inside

_VERSION: Final = 1  # of these files
_FRAMES, _TIMELINE, _ROWS, _ABOUT = "frames.u8", "timeline.i16", "rows.npz", "about.json"
_READERS: Final = 8  # files that are looked into at a time; S3 takes its time over each


@dataclass(frozen=True)
class Decoded:
    """All groups, videos in the order of their ids, rows in time order.

    Attributes:
        frames: (N, T, S, S, 3) uint8 RGB, on disk, read-only.
        timeline: (samples,) int16, on disk, read-only.
        video: (N,) int32, number of the video.
        segment: (N,) int32.
        index: (N,) int32, position on the video's grid.
        offset: (N,) int64, where each group's speech starts in ``timeline``.
    """

    frames: np.ndarray
    timeline: np.ndarray
    video: np.ndarray
    segment: np.ndarray
    index: np.ndarray
    offset: np.ndarray


def load_decoded(data: str | Path, info: DatasetInfo) -> Decoded:
    """The groups that DATA/dataset.json names, from the cache if they are there.

    Args:
        data: the dataset's folder or URL.
        info: contents of its dataset.json.

    Raises:
        DatasetError: if a groups file is missing, torn, of another spec or of another length than
            dataset.json says; if the cache cannot be written.
    """
    if not re.fullmatch("[0-9a-f]{64}", info.sha256):  # it becomes the name of a folder
        raise DatasetError(f"{data}/dataset.json: damaged (sha256); extract again to renew it.")
    sizes = storage.sizes(data, "groups")
    about = {
        "version": _VERSION,
        "dataset": info.sha256,
        "spec": info.spec.to_dict(),
        "sources": {name: sizes.get(f"{name}.parquet", 0) for name in sorted(info.groups)},
    }
    row = math.prod(info.spec.frame_shape) + 2 * info.spec.samples_per_group
    size = row * sum(info.groups.values())
    return cache.fetch(
        info.sha256, size, partial(_open, about), partial(_build, data, info, about, size)
    )


def _open(about: dict[str, Any], folder: Path) -> Decoded | None:
    """What is in a folder of the cache; None if it is not all there, or of other groups files."""
    try:
        told = json.loads((folder / _ABOUT).read_text())
        files = told.pop("files")
        if told != about or files != _sizes(folder):
            return None
        with np.load(folder / _ROWS) as rows:
            columns = dict(rows)
        shape = (len(columns["index"]), *GroupSpec(**about["spec"]).frame_shape)
        # As plain arrays: the subclass np.memmap costs time at each index.
        frames = np.asarray(np.memmap(folder / _FRAMES, np.uint8, "r", shape=shape))
        timeline = np.asarray(np.memmap(folder / _TIMELINE, "<i2", "r"))
        return Decoded(frames, timeline, **columns)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, BadZipFile):
        return None


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of the files with the groups in them."""
    return {name: (folder / name).stat().st_size for name in (_FRAMES, _TIMELINE, _ROWS)}


def _build(
    data: str | Path, info: DatasetInfo, about: dict[str, Any], size: int, folder: Path
) -> None:
    """Decode all groups into a folder; memory stays bounded, but for a few numbers a group."""
    _check(data, info)
    total = sum(info.groups.values())
    print(
        f"Decoding {total} groups once, into {folder.parent} ({size / 1e6:.0f} MB); "
        f"{cache.VARIABLE} names another folder.",
        file=sys.stderr,
    )
    columns = []
    with (
        (folder / _FRAMES).open("wb") as frames,
        (folder / _TIMELINE).open("wb") as speech,
        tqdm(total=total, unit="group", desc="decode", disable=None, delay=2) as bar,
    ):
        timeline = _Timeline(speech, info.spec)
        for number, video_id in enumerate(sorted(info.groups)):
            for chunk in groups.read_chunks(data, video_id):
                frames.write(chunk.frames.data)
                video = np.full(len(chunk.index), number, np.int32)
                places = np.stack([video, chunk.segment, chunk.index], axis=1)
                offset = timeline.append(chunk.audio, places)
                columns.append((video, chunk.segment, chunk.index, offset))
                bar.update(len(video))
        timeline.close()
    video, segment, index, offset = map(np.concatenate, zip(*columns, strict=True))
    np.savez(folder / _ROWS, video=video, segment=segment, index=index, offset=offset)
    (folder / _ABOUT).write_text(json.dumps(about | {"files": _sizes(folder)}))


def _check(data: str | Path, info: DatasetInfo) -> None:
    """Refuse groups files that are not as dataset.json says, before the first is decoded."""
    names = sorted(info.groups)
    with ThreadPoolExecutor(_READERS) as pool:
        found = pool.map(partial(groups.inspect, data), names)
        for name, (spec, count) in zip(names, found, strict=True):
            if spec != info.spec:
                raise DatasetError(f"{data}: {name} has another spec ({spec}) than {info.spec}")
            if count != info.groups[name]:
                raise DatasetError(
                    f"{data}: {name} has {count} groups, dataset.json says {info.groups[name]}; "
                    "extract again to renew it."
                )


class _Timeline:
    """One stretch of speech in which silence lies before, between and after the segments."""

    def __init__(self, stream: BinaryIO, spec: GroupSpec) -> None:
        self._stream, self._size = stream, spec.samples_per_group
        self._silence = round(MAX_CONTEXT * spec.sample_rate)
        self._samples = 0
        self._last = np.full((1, 3), -2)

    def append(self, audio: np.ndarray, places: np.ndarray) -> np.ndarray:
        """Write the speech of some groups.

        Args:
            audio: (n, samples) int16.
            places: (n, 3) video, segment and index of each.

        Returns:
            (n,) int64, where each starts.
        """
        new = (np.diff(places, axis=0, prepend=self._last) != (0, 0, 1)).any(axis=1)
        self._last = places[-1:]
        offset = self._samples + np.arange(len(audio)) * self._size
        offset += np.cumsum(new) * self._silence
        for part in np.split(np.arange(len(audio)), np.flatnonzero(new)):
            if len(part) and new[part[0]]:
                self._stream.write(bytes(2 * self._silence))
            self._stream.write(audio[part].data)
        self._samples = int(offset[-1]) + self._size
        return offset

    def close(self) -> None:
        """Write the silence at the end."""
        self._stream.write(bytes(2 * self._silence))
