"""A dataset as arrays: groups mapped from disk, their timeline of speech, and splits in time."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from s2vgan.decoded import load_decoded
from s2vgan.errors import DatasetError
from s2vgan.ledger import DatasetInfo, read_dataset
from s2vgan.spec import GroupSpec


@dataclass(frozen=True)
class GroupDataset:
    """All groups of a dataset, videos in the order of their ids, rows in time order.

    ``frames`` and ``timeline`` lie on disk: take the rows you want, as ``frames[rows]``, which are
    copied into memory; all of them may be far more than fits.

    Attributes:
        info: contents of dataset.json.
        video_ids: names behind the numbers in ``video``.
        frames: (N, T, S, S, 3) uint8 RGB, read-only.
        video: (N,) int32, index into ``video_ids``.
        segment: (N,) int32.
        index: (N,) int32, position on the video's grid.
        timeline: (samples,) int16, read-only: the segments' speech with silence between them.
        offset: (N,) int64, where each group's speech starts in ``timeline``.
        references: (V, S, S, 3) uint8, the frame that stands for who is in each video; None until
            :func:`s2vgan.people.with_references` finds them.
    """

    info: DatasetInfo
    video_ids: tuple[str, ...]
    frames: np.ndarray
    video: np.ndarray
    segment: np.ndarray
    index: np.ndarray
    timeline: np.ndarray
    offset: np.ndarray
    references: np.ndarray | None = None

    @classmethod
    def load(cls, data: str | Path) -> "GroupDataset":
        """Open the groups named in DATA/dataset.json; the first time they are decoded to disk.

        Raises:
            DatasetError: if the folder is no dataset, holds no group, or a file is missing, torn,
                of another spec, or of another length than dataset.json says; if there is no room
                for the decoded groups.
        """
        info = read_dataset(data)
        if not info.groups:
            raise DatasetError(
                f"{data}: holds no group; see its ledger folder for what became of each video."
            )
        decoded = load_decoded(data, info)
        return cls(info=info, video_ids=tuple(sorted(info.groups)), **vars(decoded))

    def __len__(self) -> int:
        return len(self.index)

    @property
    def spec(self) -> GroupSpec:
        """The spec of every group."""
        return self.info.spec

    def rows_of(self, video: int) -> np.ndarray:
        """Rows of a video, which is given by its number, in time order."""
        first, stop = np.searchsorted(self.video, [video, video + 1])
        return np.arange(first, stop)

    def split(self, held_out: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
        """Rows of training time and of held-out time: the last share of each video, never random.

        Args:
            held_out: share of each video's groups, in (0, 1).

        Returns:
            Two int64 arrays of rows in time order; the second is empty for very short videos.
        """
        training, kept = [], []
        for number in range(len(self.video_ids)):
            rows = self.rows_of(number)
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
