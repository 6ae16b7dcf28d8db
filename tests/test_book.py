from pathlib import Path

import numpy as np

from s2vgan.book import RunBook
from s2vgan.config import Config, ModelConfig
from s2vgan.dataset import GroupDataset
from s2vgan.runlog import read_log
from s2vgan.training import TrainState


def test_a_line_tells_the_speed_and_the_wait_since_the_last_one(
    toy_data: Path, tmp_path: Path
) -> None:
    dataset = GroupDataset.load(toy_data)
    state = TrainState.create(Config(ModelConfig(width=4)), dataset.spec)
    store = f"sqlite:///{tmp_path}/mlflow.db"
    book = RunBook(tmp_path, "run", "data", dataset, np.empty(0), state, store, None)
    state.step = 10
    book.log(20.0, {"loss_g": 1.0}, waited=5.0)
    state.step = 30
    book.log(30.0, {"loss_g": 1.0}, waited=6.0)
    lines = read_log(tmp_path)
    assert [line["data_wait"] for line in lines] == [0.25, 0.1]
    assert [line["groups_per_second"] for line in lines] == [8.0, 32.0]
