import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from s2vgan.dataset import GroupDataset
from s2vgan.errors import DatasetError
from s2vgan.groups import Group, write_groups
from s2vgan.ledger import write_dataset
from s2vgan.spec import GroupSpec
from tests.conftest import write_video


def test_held_out_time_is_the_end_of_each_video(toy_data: Path) -> None:
    dataset = GroupDataset.load(toy_data)
    training, held_out = dataset.split(0.15)
    assert len(training) == 102 and len(held_out) == 18
    assert not set(training) & set(held_out)
    for video in (0, 1):
        last = dataset.index[training][dataset.video[training] == video].max()
        first = dataset.index[held_out][dataset.video[held_out] == video].min()
        assert first == last + 1 == 51


def test_windows_hold_the_group_in_its_context(toy_data: Path) -> None:
    dataset = GroupDataset.load(toy_data)
    whole = dataset.speech(np.arange(60))
    assert whole.shape == (60 * 1600,)
    window = dataset.windows(np.array([10]), past=0.3, ahead=0.1)[0]
    np.testing.assert_array_equal(window, whole[10 * 1600 - 4800 : 11 * 1600 + 1600])
    first = dataset.windows(np.array([0, 60]), past=0.3, ahead=0.1)
    assert (first[:, :4800] == 0).all() and (first[:, 4800:] != 0).any(axis=1).all()
    last = dataset.windows(np.array([59]), past=0.0, ahead=0.1)[0]
    assert (last[1600:] == 0).all()


def gap_data(folder: Path) -> Path:
    spec = GroupSpec(size=32)
    shape = spec.frame_shape
    rows = [
        Group(segment, index, np.zeros(shape, np.uint8), np.full(1600, index, np.int16),
              np.zeros((3, 4), np.int16))
        for segment, index in [(0, 0), (0, 1), (0, 2), (1, 7), (1, 8), (2, 9)]
    ]  # fmt: skip
    write_video(folder, "v", rows, spec)
    write_dataset(folder, spec)
    return folder


def test_sequences_and_context_never_cross_a_gap(tmp_path: Path) -> None:
    dataset = GroupDataset.load(gap_data(tmp_path / "data"))
    rows = np.arange(6)
    assert [part.tolist() for part in dataset.segments(rows)] == [[0, 1, 2], [3, 4], [5]]
    assert dataset.sequences(rows, 2).tolist() == [[0, 1], [1, 2], [3, 4]]
    assert dataset.sequences(np.array([0, 2, 3]), 2).size == 0
    window = dataset.windows(np.array([3]), past=0.1, ahead=0.1)[0]
    assert (window[:1600] == 0).all()
    assert (window[1600:3200] * 32768 == 7).all() and (window[3200:] * 32768 == 8).all()


def test_what_is_no_dataset_is_named(tmp_path: Path, toy_data: Path) -> None:
    with pytest.raises(DatasetError, match="no dataset here"):
        GroupDataset.load(tmp_path)
    data = tmp_path / "data"
    shutil.copytree(toy_data, data)
    parquet = data / "groups" / "video1.parquet"
    whole = parquet.read_bytes()
    parquet.write_bytes(whole[:-100])
    with pytest.raises(DatasetError, match="video1.parquet: cannot be read"):
        GroupDataset.load(data)
    write_groups(data, "video1", [], GroupSpec(size=32))
    with pytest.raises(DatasetError, match="video1"):
        GroupDataset.load(data)
    other = dataclasses.replace(GroupSpec(size=32), crop="paper")
    group = Group(0, 0, np.zeros(other.frame_shape, np.uint8), np.zeros(1600, np.int16),
                  np.zeros((3, 4), np.int16))  # fmt: skip
    write_groups(data, "video1", [group] * 60, other)
    with pytest.raises(DatasetError, match="another spec"):
        GroupDataset.load(data)
