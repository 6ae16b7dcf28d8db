"""A few crops of a video, evenly over its groups, without reading all of them.

Only the row groups that hold a chosen crop are read, and of these a piece at a time.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from s2vgan import groups, storage
from s2vgan.errors import DatasetError
from s2vgan.spec import GroupSpec

_PIECE: Final = 16 * 2**20  # bytes of frames decoded at a time


@dataclass(frozen=True)
class Crops:
    """Crops of one video.

    Attributes:
        frames: (n, S, S, 3) uint8, in time order.
        mean: (S, S, 3) uint8, over the middle frames of the groups that were read.
        segments: of the crops.
        indices: of the crops' groups.
        kept: (groups,) indices of all groups.
        borders: indices of the groups that begin a segment, but for the first.
    """

    frames: np.ndarray
    mean: np.ndarray
    segments: list[int]
    indices: list[int]
    kept: np.ndarray
    borders: list[int]


def read_crops(data: str | Path, video_id: str, spec: GroupSpec, count: int) -> Crops:
    """Crops evenly over the groups of a video.

    Args:
        data: the dataset's folder or URL.
        video_id: of the video.
        spec: of the dataset.
        count: of crops; a short video gives fewer.

    Raises:
        DatasetError: if the groups file is missing, torn, or of another spec.
    """
    path = f"groups/{video_id}.parquet"
    try:
        return _read(data, path, spec, count)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DatasetError(f"{data}/{path}: cannot be read ({error}); extract it again.") from error


def _read(data: str | Path, path: str, spec: GroupSpec, count: int) -> Crops:
    filesystem, root = storage.open_url(data)
    middle = spec.frames_per_group // 2
    batch = max(1, _PIECE // int(np.prod(spec.frame_shape)))
    with filesystem.open_input_file(f"{root}/{path}") as stream:
        parquet = pq.ParquetFile(stream, buffer_size=2**20)
        if not parquet.schema_arrow.equals(groups.schema(spec)) or not parquet.metadata.num_rows:
            raise DatasetError(
                f"{data}/{path}: not a groups file of this dataset; extract it again."
            )
        places = parquet.read(columns=["segment", "index"])
        segments, kept = places["segment"].to_numpy(), places["index"].to_numpy()
        wanted = np.unique(np.linspace(0, len(kept) - 1, count).round().astype(int))
        frames: list[np.ndarray] = []
        total, seen, start = np.zeros(spec.frame_shape[1:]), 0, 0
        for number in range(parquet.num_row_groups):
            end = start + parquet.metadata.row_group(number).num_rows
            here = wanted[(wanted >= start) & (wanted < end)]
            at = start
            start = end
            if not len(here):
                continue
            for part in parquet.iter_batches(batch, row_groups=[number], columns=["frames"]):
                decoded = groups.decode_frames(pa.Table.from_batches([part]), spec)[:, middle]
                frames += [decoded[row - at].copy() for row in here if at <= row < at + len(part)]
                total += decoded.sum(axis=0)
                seen, at = seen + len(part), at + len(part)
                if at > here[-1]:
                    break
    borders = kept[1:][np.diff(segments) != 0]
    return Crops(
        np.stack(frames), np.rint(total / seen).astype(np.uint8), segments[wanted].tolist(),
        kept[wanted].tolist(), kept, borders.tolist(),
    )  # fmt: skip
