import dataclasses
import threading
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from s2vgan.batches import Batch, Sampler
from s2vgan.config import Config, ModelConfig, TrainConfig
from s2vgan.dataset import GroupDataset
from s2vgan.loading import Loader

CONFIG = Config(model=ModelConfig(width=8), train=TrainConfig(batch=8))
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset(toy_data: Path) -> GroupDataset:
    return GroupDataset.load(toy_data)


@pytest.fixture
def sampler(dataset: GroupDataset) -> Sampler:
    return Sampler.over(dataset, dataset.split()[0], CONFIG.train)


@pytest.mark.parametrize(("first", "rank", "world"), [(0, 0, 1), (37, 1, 2)])
def test_each_step_gets_its_batch(
    dataset: GroupDataset, sampler: Sampler, first: int, rank: int, world: int
) -> None:
    with closing(Loader(dataset, sampler, CONFIG, CPU, rank, world).batches(first)) as batches:
        for step, batch in enumerate(islice(batches, 30), first):
            rows = sampler.rows(step, rank, world)
            wanted = Batch.gather(dataset, rows, CONFIG, CPU)
            assert torch.equal(batch.audio, wanted.audio)
            assert torch.equal(batch.frames, wanted.frames)


def test_the_next_batch_is_read_while_one_is_trained_on(
    dataset: GroupDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, read = [], threading.Event()

    def rows(self: Sampler, step: int, rank: int, world: int) -> np.ndarray:
        asked.append((step, threading.current_thread() is threading.main_thread()))
        if step == 6:
            read.set()
        return np.array([[0, 1]])

    monkeypatch.setattr(Sampler, "rows", rows)
    sampler = Sampler.over(dataset, dataset.split()[0], CONFIG.train)
    loader = Loader(dataset, sampler, CONFIG, CPU)
    batches = loader.batches(5)
    next(batches)
    assert read.wait(60)
    batches.close()
    assert asked == [(5, False), (6, False)]  # no further ahead
    assert loader.waited > 0
    assert not any(thread.name.startswith("batches") for thread in threading.enumerate())


def test_what_fails_in_the_thread_fails_in_training(
    dataset: GroupDataset, sampler: Sampler
) -> None:
    broken = dataclasses.replace(dataset, frames=dataset.frames[:10])
    with pytest.raises(IndexError):
        next(Loader(broken, sampler, CONFIG, CPU).batches(0))
