import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from s2vgan import groups, ledger
from s2vgan.dataset import GroupDataset
from s2vgan.decoded import MAX_CONTEXT
from s2vgan.errors import DatasetError
from s2vgan.groups import Group
from s2vgan.spec import GroupSpec
from tests.conftest import write_video

SPEC = GroupSpec(size=32)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("S2VGAN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the size of each chunk that is decoded."""
    sizes: list[int] = []
    whole = groups.decode_frames

    def counted(table: pa.Table, spec: GroupSpec) -> np.ndarray:
        sizes.append(table.num_rows)
        return whole(table, spec)

    monkeypatch.setattr(groups, "decode_frames", counted)
    return sizes


def noisy(data: Path, places: dict[str, list[tuple[int, int]]], seed: int = 0) -> Path:
    """A dataset of noise, each video with groups at the given segments and indices."""
    random = np.random.default_rng(seed)

    def rows(where: list[tuple[int, int]]) -> Iterator[Group]:
        for segment, index in where:
            frames = random.integers(0, 256, SPEC.frame_shape, np.uint8)
            audio = random.integers(-32768, 32768, SPEC.samples_per_group, np.int16)
            yield Group(segment, index, frames, audio, np.zeros((3, 4), np.int16))

    for name, where in places.items():
        write_video(data, name, rows(where), SPEC)
    ledger.write_dataset(data, SPEC)
    return data


def test_the_same_as_all_of_parquet_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {
        "a": [(0, 3), (0, 4), (0, 5), (1, 6), (1, 7), (2, 9)],
        "b": [(2, 10), (2, 11)],
        "c": [(0, index) for index in range(20)],
    }
    data = noisy(tmp_path / "data", places)
    monkeypatch.setattr(groups, "CHUNK_BYTES", 4 * 3 * 32 * 32 * 3)  # 4 groups
    dataset = GroupDataset.load(data)
    tables = [groups.read_groups(data, name)[1] for name in "abc"]
    frames = np.concatenate([groups.decode_frames(table, SPEC) for table in tables])
    np.testing.assert_array_equal(dataset.frames, frames)
    expected, starts, last = [], [], (-1, -1, -1)
    for video, (table, where) in enumerate(zip(tables, places.values(), strict=True)):
        for audio, (segment, index) in zip(groups.decode_audio(table, SPEC), where, strict=True):
            if (video, segment, index) != (*last[:2], last[2] + 1):
                expected.append(np.zeros(round(MAX_CONTEXT * 16000), np.int16))
            starts.append(sum(map(len, expected)))
            expected.append(audio)
            last = (video, segment, index)
    expected.append(np.zeros(round(MAX_CONTEXT * 16000), np.int16))
    np.testing.assert_array_equal(dataset.timeline, np.concatenate(expected))
    np.testing.assert_array_equal(dataset.offset, starts)
    assert dataset.video.tolist() == [0] * 6 + [1] * 2 + [2] * 20
    assert dataset.segment.tolist()[:6] == [0, 0, 0, 1, 1, 2]
    assert dataset.index.tolist()[:8] == [3, 4, 5, 6, 7, 9, 10, 11]
    kinds = (dataset.video, dataset.segment, dataset.index, dataset.offset, dataset.timeline)
    assert [str(array.dtype) for array in kinds] == ["int32", "int32", "int32", "int64", "int16"]


def test_it_is_decoded_once(toy_data: Path, decoded: list[int], capsys: Any) -> None:
    first = GroupDataset.load(toy_data)
    assert sum(decoded) == 120
    assert "Decoding 120 groups once, into" in capsys.readouterr().err
    again = GroupDataset.load(toy_data)
    assert sum(decoded) == 120 and capsys.readouterr().err == ""
    np.testing.assert_array_equal(first.frames, again.frames)
    with pytest.raises(ValueError, match="read-only"):
        again.frames[0] = 0
    again.frames[np.array([0, 1])][:] = 0  # a copy
    np.testing.assert_array_equal(first.frames, again.frames)


@pytest.mark.parametrize("file", ["frames.u8", "timeline.i16", "rows.npz", "about.json"])
def test_a_damaged_cache_is_built_anew(
    toy_data: Path, decoded: list[int], cache_folder: Path, file: str
) -> None:
    whole = GroupDataset.load(toy_data).frames.copy()
    path = next(cache_folder.glob(f"*/{file}"))
    path.write_bytes(path.read_bytes()[:-5])
    np.testing.assert_array_equal(GroupDataset.load(toy_data).frames, whole)
    assert sum(decoded) == 240
    path.unlink()
    GroupDataset.load(toy_data)
    assert sum(decoded) == 360


def test_what_changed_since_is_seen(toy_data: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(toy_data, data)
    GroupDataset.load(data)
    parquet = data / "groups" / "video1.parquet"
    whole = parquet.read_bytes()
    parquet.write_bytes(whole[:-100])
    with pytest.raises(DatasetError, match="video1.parquet: cannot be read"):
        GroupDataset.load(data)
    parquet.unlink()
    with pytest.raises(DatasetError, match="video1.parquet: cannot be read"):
        GroupDataset.load(data)
    parquet.write_bytes(whole)
    assert len(GroupDataset.load(data)) == 120


def test_a_file_torn_in_its_middle_is_named(tmp_path: Path, cache_folder: Path) -> None:
    data = noisy(tmp_path / "data", {"a": [(0, index) for index in range(9)]})
    parquet = data / "groups" / "a.parquet"
    content = bytearray(parquet.read_bytes())
    content[2000:40000] = bytes(38000)
    parquet.write_bytes(content)
    with pytest.raises(DatasetError, match="a.parquet: cannot be read"):
        GroupDataset.load(data)
    assert [path.name for path in cache_folder.iterdir()] == ["lock"]


def test_an_identity_that_is_none_names_no_folder(toy_data: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(toy_data, data)
    told = json.loads((data / "dataset.json").read_text())
    (data / "dataset.json").write_text(json.dumps(told | {"sha256": "../../elsewhere"}))
    with pytest.raises(DatasetError, match=r"dataset.json: damaged"):
        GroupDataset.load(data)


SAMPLE = """
import resource, sys
import numpy as np
from s2vgan.dataset import GroupDataset
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
dataset = GroupDataset.load(sys.argv[1])
rows = np.random.default_rng(0).permutation(len(dataset))
total = sum(int(dataset.frames[part].sum(dtype=np.int64)) for part in np.array_split(rows, 200))
print(dataset.frames.nbytes, total)
"""


def test_a_dataset_larger_than_the_memory_can_be_read(tmp_path: Path) -> None:
    """RLIMIT_DATA counts memory of a process's own: not files mapped read-only."""
    limit = 400 << 20
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, SPEC.frame_shape, np.uint8)
    audio = np.zeros(SPEC.samples_per_group, np.int16)
    same = Group(0, 0, frames, audio, np.zeros((3, 4), np.int16))
    count = 2 * limit // frames.nbytes // 100
    rows = (dataclasses.replace(same, index=index) for index in range(count))
    data = tmp_path / "data"
    row = write_video(data, "000", rows, SPEC)
    for number in range(1, 100):
        name = f"{number:03d}"
        (data / "groups" / f"{name}.parquet").hardlink_to(data / "groups" / "000.parquet")
        ledger.write_row(data, dataclasses.replace(row, video_id=name))
    ledger.write_dataset(data, SPEC)
    command = [sys.executable, "-c", SAMPLE, str(data), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    size, total = map(int, done.stdout.split())
    assert size > 1.9 * limit
    assert total == 100 * count * int(frames.sum(dtype=np.int64))
    assert pq.read_metadata(data / "groups" / "000.parquet").num_rows == count
