"""The parts of the training's bench that need no measurement. It is not run here: minutes."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from s2vgan import groups
from s2vgan.batches import Batch
from s2vgan.config import Config, ModelConfig, TrainConfig
from s2vgan.dataset import GroupDataset
from s2vgan.spec import GroupSpec
from tests.benches import loaded


@pytest.fixture(scope="module")
def plain() -> Iterator[Any]:
    """bench/_plain.py as a module."""
    with loaded("_plain") as module:
        yield module


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    """bench/train.py as a module."""
    with loaded("train") as module:
        yield module


def test_files_hold_what_our_batches_hold(plain: Any, toy_data: Path, tmp_path: Path) -> None:
    spec = plain.write_files(toy_data, "video0", tmp_path / "files")
    assert spec == GroupSpec(size=32)
    files, dataset = plain.Files(tmp_path / "files", spec), GroupDataset.load(toy_data)
    assert len(files) == 60
    config = Config(ModelConfig(audio_past=0, audio_ahead=0), train=TrainConfig(batch=8))
    rows = dataset.split()[0][:8, None]
    batch = Batch.gather(dataset, rows, config, torch.device("cpu"))
    for number in range(8):
        audio, frames = files[number]
        torch.testing.assert_close(audio, batch.audio[number])
        torch.testing.assert_close(frames, batch.frames[number])


def test_the_plain_loop_trains(plain: Any, bench: Any, toy_data: Path, tmp_path: Path) -> None:
    spec = plain.write_files(toy_data, "video0", tmp_path / "files")
    paper = bench.recipe("paper", batch=16)
    small = dataclasses.replace(paper, model=dataclasses.replace(paper.model, width=4))
    step = plain.plain_step(tmp_path / "files", spec, small)
    losses = [step() for _ in range(4)]  # the fourth begins another pass
    assert np.isfinite(losses).all() and len(set(losses)) == 4
    assert losses[-1][0] < losses[0][0]  # D learns at once


def test_repeated_groups_are_a_dataset(bench: Any, toy_data: Path, tmp_path: Path) -> None:
    some = list(groups.iterate_groups(toy_data, "groups/video0.parquet", GroupSpec(size=32)))
    wide = [
        dataclasses.replace(group, frames=group.frames.repeat(2, 1).repeat(2, 2)) for group in some
    ]
    data = bench.repeat(tmp_path / "data", wide, 300, 3)
    dataset = GroupDataset.load(data)
    assert len(dataset) == 300 and len(dataset.video_ids) == 3
    assert (dataset.frames[60] == wide[60 % 60].frames).all()
    ours = bench.Ours(data, bench.recipe("base"))
    ours.read()
    ours.close()
