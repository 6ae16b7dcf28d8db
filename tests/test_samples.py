"""A few crops of a video, evenly over its groups."""

import math
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from s2vgan import groups
from s2vgan.errors import DatasetError
from s2vgan.groups import Group, write_groups
from s2vgan.samples import read_crops
from s2vgan.spec import GroupSpec

SPEC = GroupSpec(size=16)


def noise(count: int) -> list[Group]:
    """Groups of noise, two of three kept, a new segment at each gap."""
    random = np.random.default_rng(0)
    return [
        Group(
            number // 2,
            number // 2 * 3 + number % 2,
            random.integers(0, 256, SPEC.frame_shape, np.uint8),
            np.zeros(1600, np.int16),
            np.zeros((3, 4), np.int16),
        )
        for number in range(count)
    ]


def test_the_crops_are_even_over_the_groups(tmp_path: Path) -> None:
    rows = noise(1200)  # three row groups
    write_groups(tmp_path, "v", rows, SPEC)
    found = read_crops(tmp_path, "v", SPEC, 4)
    wanted = [rows[place] for place in (0, 400, 799, 1199)]
    assert found.indices == [row.index for row in wanted]
    assert found.segments == [row.segment for row in wanted]
    assert np.array_equal(found.frames, np.stack([row.frames[1] for row in wanted]))
    assert abs(found.mean.astype(float).mean() - 127.5) < 1
    assert found.mean.astype(float).std() < 4  # of one frame it is 74
    assert found.borders == [3 * number for number in range(1, 600)]
    assert found.kept.tolist() == [row.index for row in rows]
    assert len(read_crops(tmp_path, "v", SPEC, 5000).frames) == 1200


def test_only_the_pieces_that_are_needed_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "CHUNK_BYTES", 512 * math.prod(SPEC.frame_shape))
    write_groups(tmp_path, "v", noise(1200), SPEC)
    path = tmp_path / "groups/v.parquet"
    frames = pq.ParquetFile(path).metadata.row_group(1).column(3)
    assert frames.path_in_schema == "frames"
    content = bytearray(path.read_bytes())
    middle = frames.data_page_offset + frames.total_compressed_size // 2
    content[middle - 50_000 : middle + 50_000] = bytes(100_000)
    path.write_bytes(content)
    assert len(read_crops(tmp_path, "v", SPEC, 2).frames) == 2  # the first and the last
    with pytest.raises(DatasetError, match="extract it again"):
        read_crops(tmp_path, "v", SPEC, 9)


def test_a_file_of_no_use_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="gone.parquet: cannot be read"):
        read_crops(tmp_path, "gone", SPEC, 4)
    (tmp_path / "groups").mkdir()
    (tmp_path / "groups/text.parquet").write_text("no Parquet")
    with pytest.raises(DatasetError, match="text.parquet: cannot be read"):
        read_crops(tmp_path, "text", SPEC, 4)
    pq.write_table(pq.read_table(_written(tmp_path)).drop(["boxes"]), tmp_path / "groups/x.parquet")
    with pytest.raises(DatasetError, match=r"x.parquet: not a groups file.*extract it again"):
        read_crops(tmp_path, "x", SPEC, 4)
    with pytest.raises(DatasetError, match="v.parquet: cannot be read"):
        read_crops(tmp_path, "v", GroupSpec(size=32), 4)  # its rows are too short


def _written(data: Path) -> Path:
    write_groups(data, "v", noise(4), SPEC)
    return data / "groups/v.parquet"
