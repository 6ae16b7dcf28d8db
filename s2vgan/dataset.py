"""A dataset in memory: Parquet groups as arrays, their timeline of speech, and splits in time."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from s2vgan.errors import DatasetError
from s2vgan.groups import decode_audio, decode_frames, read_groups
from s2vgan.ledger import DatasetInfo, read_dataset
from s2vgan.spec import GroupSpec

MAX_CONTEXT = 2.0  # s of silence kept around each segment, so that any context window lies inside


@dataclass(frozen=True)
class GroupDataset:
    """All groups of a dataset, videos in the order of their ids, rows in time order.

    Attributes:
        info: contents of dataset.json.
        video_ids: names behind the numbers in ``video``.
        frames: (N, T, S, S, 3) uint8 RGB.
        video: (N,) int32, index into ``video_ids``.
        segment: (N,) int32.
        index: (N,) int32, position on the video's grid.
        timeline: (samples,) int16, the segments' speech with silence between them.
        offset: (N,) int64, where each group's speech starts in ``timeline``.
    """

    info: DatasetInfo
    video_ids: tuple[str, ...]
    frames: np.ndarray
    video: np.ndarray
    segment: np.ndarray
    index: np.ndarray
    timeline: np.ndarray
    offset: np.ndarray

    @classmethod
    def load(cls, data: str | Path) -> "GroupDataset":
        """Read every groups file named in DATA/dataset.json.

        Raises:
            DatasetError: if the folder is no dataset, holds no group, or a file is missing, torn,
                of another spec, or of another length than dataset.json says.
        """
        info = read_dataset(data)
        if not info.groups:
            raise DatasetError(
                f"{data}: holds no group; see its ledger folder for what became of each video."
            )
        frames, audio, video, segment, index = [], [], [], [], []
        for number, (video_id, count) in enumerate(sorted(info.groups.items())):
            spec, table = read_groups(data, video_id)
            if spec != info.spec:
                raise DatasetError(f"{data}: {video_id} has another spec ({spec}) than {info.spec}")
            if table.num_rows != count:
                raise DatasetError(
                    f"{data}: {video_id} has {table.num_rows} groups, dataset.json says {count}; "
                    "extract again to renew it."
                )
            frames.append(decode_frames(table, spec))
            audio.append(decode_audio(table, spec))
            video.append(np.full(count, number, np.int32))
            segment.append(table.column("segment").to_numpy())
            index.append(table.column("index").to_numpy())
        columns = {
            "video": np.concatenate(video),
            "segment": np.concatenate(segment),
            "index": np.concatenate(index),
        }
        timeline, offset = _timeline(np.concatenate(audio), info.spec, **columns)
        return cls(
            info=info,
            video_ids=tuple(sorted(info.groups)),
            frames=np.concatenate(frames) if len(frames) > 1 else frames[0],
            timeline=timeline,
            offset=offset,
            **columns,
        )

    def __len__(self) -> int:
        return len(self.index)

    @property
    def spec(self) -> GroupSpec:
        """The spec of every group."""
        return self.info.spec

    def split(self, held_out: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
        """Rows of training time and of held-out time: the last share of each video, never random.

        Args:
            held_out: share of each video's groups, in (0, 1).

        Returns:
            Two int64 arrays of rows in time order; the second is empty for very short videos.
        """
        training, kept = [], []
        for number in range(len(self.video_ids)):
            rows = np.flatnonzero(self.video == number)
            cut = len(rows) - int(len(rows) * held_out)
            training.append(rows[:cut])
            kept.append(rows[cut:])
        return np.concatenate(training), np.concatenate(kept)

    def segments(self, rows: np.ndarray) -> list[np.ndarray]:
        """Rows cut into maximal stretches without a gap in time; ``rows`` in time order."""
        if not len(rows):
            return []
        follows = (
            (np.diff(rows) == 1)
            & (np.diff(self.video[rows]) == 0)
            & (np.diff(self.segment[rows]) == 0)
            & (np.diff(self.index[rows]) == 1)
        )
        return np.split(rows, np.flatnonzero(~follows) + 1)

    def sequences(self, rows: np.ndarray, length: int) -> np.ndarray:
        """Every stretch of ``length`` contiguous groups among ``rows``, as (M, length) rows."""
        starts = [part[: len(part) - length + 1] for part in self.segments(rows)]
        first = np.concatenate(starts) if starts else np.empty(0, np.int64)
        return first[:, None] + np.arange(length)

    def speech(self, rows: np.ndarray) -> np.ndarray:
        """The speech of one contiguous stretch as (n * samples_per_group,) float32 in [-1, 1)."""
        start = self.offset[rows[0]]
        stop = self.offset[rows[-1]] + self.spec.samples_per_group
        return self.timeline[start:stop].astype(np.float32) / 32768

    def windows(self, rows: np.ndarray, past: float, ahead: float) -> np.ndarray:
        """The speech of each group with its context; silence beyond the ends of a segment.

        Args:
            rows: (...,) of rows.
            past: seconds before the group.
            ahead: seconds after the group.

        Returns:
            (..., (past + G + ahead) * sample_rate) float32 in [-1, 1).
        """
        before, length = self.spec.window(past, ahead)
        positions = self.offset[rows][..., None] - before + np.arange(length)
        return self.timeline[positions].astype(np.float32) / 32768


def _timeline(
    audio: np.ndarray, spec: GroupSpec, video: np.ndarray, segment: np.ndarray, index: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """One stretch of samples in which every segment is followed by silence, and row offsets."""
    silence = round(MAX_CONTEXT * spec.sample_rate)
    size = spec.samples_per_group
    new = np.ones(len(audio), bool)
    new[1:] = (np.diff(video) != 0) | (np.diff(segment) != 0) | (np.diff(index) != 1)
    offset = np.arange(len(audio)) * size + np.cumsum(new) * silence
    timeline = np.zeros(offset[-1] + size + silence, np.int16)
    for rows in np.split(np.arange(len(audio)), np.flatnonzero(new)[1:]):
        start = offset[rows[0]]
        timeline[start : start + len(rows) * size] = audio[rows].reshape(-1)
    return timeline, offset
