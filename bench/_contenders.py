"""What the extraction is compared with, and how: the naive script, bare decoding, a plain table."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from cv2.data import haarcascades

from s2vgan import extraction, groups, media
from s2vgan.extraction import Call
from s2vgan.faces import FaceTracker, iou
from s2vgan.known import Options
from s2vgan.spec import GroupSpec

BATCH: Final = 64  # groups in a batch of tensors
GROUPS: Final = 1024  # in a table

Boxes = list[np.ndarray | None]


def naive(path: Path, step: int = 1) -> Boxes:
    """The naive script: its face box in every frame, or in every so many."""
    cascade = cv2.CascadeClassifier(str(Path(haarcascades) / "haarcascade_frontalface_default.xml"))
    capture = cv2.VideoCapture(str(path))
    boxes: Boxes = []
    number = 0
    while True:
        more, frame = capture.read()
        if not more:
            return boxes
        if number % step == 0:
            grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
            found = cascade.detectMultiScale(grey, 1.1, 5)
            box = max(found, key=lambda box: box[2] * box[3], default=None)
            if box is not None:
                x, y, width, height = box
                cv2.resize(frame[y : y + height, x : x + width], (64, 64))
            boxes.append(None if box is None else np.asarray(box))
        number += 1


def decode(path: Path) -> None:
    """PyAV alone."""
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for _ in container.decode(video=0):
            pass


def tracked(path: Path, step: int = 1) -> Boxes:
    """Our face box in the same frames as :func:`naive`'s; it sees all of them."""
    tracker = FaceTracker()
    return [tracker.update(picture.luma) for picture in media.pictures(path)][::step]


@dataclass
class Agreement:
    """Frames compared: as to whether there is a face, and the overlaps of the boxes of both."""

    same: list[bool]
    overlaps: list[float]

    def add(self, theirs: Boxes, ours: Boxes, path: Path) -> None:
        """Count a video's frames."""
        if len(theirs) != len(ours):
            raise RuntimeError(f"{path}: OpenCV sees {len(theirs)} frames, we {len(ours)}")
        for a, b in zip(theirs, ours, strict=True):
            self.same.append((a is None) == (b is None))
            if a is not None and b is not None:
                self.overlaps.append(iou(a, b))


class Tables:
    """Groups of a real video, written and read in our way and in the plain one."""

    def __init__(self, source: Path, folder: Path, call: Call) -> None:
        spec = GroupSpec()
        row = extraction.extract_video(str(source), folder / "first", Options(spec), call)
        file = f"groups/{row.video_id}.parquet"
        some = list(groups.iterate_groups(folder / "first", file, spec))
        self._groups = [some[number % len(some)] for number in range(GROUPS)]
        self._folder, self._spec = folder, spec
        self._plain = folder / "plain.parquet"

    def write(self) -> None:
        """Our groups file."""
        groups.write_groups(self._folder, "ours", self._groups, self._spec)

    def write_plain(self) -> None:
        """Arrow's defaults, but for zstd-1 and row groups as large as ours."""
        kinds = {
            "frames": pa.list_(pa.uint8(), math.prod(self._spec.frame_shape)),
            "audio": pa.list_(pa.int16(), self._spec.samples_per_group),
        }
        schema = pa.schema([("video_id", pa.string()), ("index", pa.int32()), *kinds.items()])
        with pq.ParquetWriter(
            self._plain, schema, compression="zstd", compression_level=1
        ) as writer:
            chunk = groups.rows_per_chunk(self._spec)
            for start in range(0, GROUPS, chunk):
                some = self._groups[start : start + chunk]
                columns: list[Any] = [["video"] * len(some), [group.index for group in some]]
                for name, kind in kinds.items():
                    values = np.stack([getattr(group, name) for group in some]).reshape(-1)
                    columns.append(pa.FixedSizeListArray.from_arrays(pa.array(values), type=kind))
                writer.write_table(pa.table(columns, schema=schema))

    def read(self) -> None:
        """Our groups file, as the dataset reads it."""
        spec, table = groups.read_groups(self._folder, "ours")
        self._batches(groups.decode_frames(table, spec), groups.decode_audio(table, spec))

    def read_plain(self) -> None:
        """The plain table."""
        table = pq.read_table(self._plain)
        frames, audio = (
            np.concatenate([chunk.flatten().to_numpy() for chunk in table.column(name).chunks])
            for name in ("frames", "audio")
        )
        self._batches(frames.reshape(-1, *self._spec.frame_shape), audio.reshape(GROUPS, -1))

    def _batches(self, frames: np.ndarray, audio: np.ndarray) -> None:
        assert np.array_equal(frames[-1], self._groups[-1].frames)
        for start in range(0, GROUPS, BATCH):
            torch.tensor(frames[start : start + BATCH])
            torch.tensor(audio[start : start + BATCH])
