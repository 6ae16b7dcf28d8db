"""The ablations switch off what the recipe has, each idea of it, and nothing else."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from s2vgan.config import Config
from s2vgan.dataset import GroupDataset
from s2vgan.metrics import Instruments
from s2vgan.pieces import cut_pieces
from s2vgan.synthesis import Synthesizer
from tests.benches import BENCH, loaded


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    """bench/ablations.py as a module."""
    with loaded("ablations") as module:
        yield module


def changed(settings: dict[str, Any]) -> set[str]:
    """Keys that a run with these settings has otherwise than the recipe."""
    base = Config().to_dict()
    mine = Config().to_dict()
    for key, value in settings.items():
        section, name = key.split(".")
        mine[section][name] = yaml.safe_load(str(value))
    config = Config.from_dict(mine).to_dict()  # raises if they do not go together
    return {f"{s}.{k}" for s, part in config.items() for k in part if part[k] != base[s][k]}


def test_each_idea_is_a_change_of_the_recipe_as_it_says(bench: Any) -> None:
    for name, settings in bench.IDEAS.items():
        assert changed(settings) == set(settings), name


def test_every_idea_that_paper_yaml_switches_off_is_measured(bench: Any) -> None:
    paper = yaml.safe_load((BENCH.parent / "conf" / "paper.yaml").read_text())
    base = yaml.safe_load((BENCH.parent / "conf" / "base.yaml").read_text())
    added = {f"{s}.{k}" for s in base for k in base[s] if paper[s][k] != base[s][k]}
    measured = {key for settings in bench.IDEAS.values() for key in settings}
    assert added - measured == bench.SIZES


def test_the_table_has_a_row_for_each_run(bench: Any) -> None:
    row = dict.fromkeys(bench.SHOWN, 0.5)
    blind = {name: value for name, value in row.items() if "lpips" not in name}
    lines = bench.markdown({"base, seed 0": row, "no GAN": blind}).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["base, seed 0", "no GAN"]
    assert {line.count("|") for line in lines} == {len(bench.SHOWN) + 2}
    assert "–" in lines[3] and "–" not in lines[2]


def test_a_model_is_measured_with_right_and_with_wrong_speech(
    bench: Any, toy_data: Path, run_folder: Path
) -> None:
    dataset, model = GroupDataset.load(toy_data), Synthesizer.load(run_folder)
    pieces = cut_pieces(dataset, dataset.split()[1], 10, 60)
    found = bench.measured(model, pieces, Instruments())
    assert set(found) >= {name for name in bench.SHOWN if "lpips" not in name}
    assert found["mouth_r"] != found["mouth_r" + bench.WRONG]
    errors = [
        np.square(model.speak(piece.speech)[: len(piece.real)] / 127.5 - piece.real / 127.5)
        for piece in pieces
    ]
    assert found["mse"] == pytest.approx(np.concatenate(errors).mean(), rel=1e-4)


def test_each_condition_has_its_speech_and_its_pose(
    bench: Any, toy_data: Path, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset, model = GroupDataset.load(toy_data), Synthesizer.load(run_folder)
    piece = cut_pieces(dataset, dataset.split()[1], 10, 60)[0]
    pose = np.ones((len(piece.real), model.config.model.pose_dim), np.float32)
    monkeypatch.setattr(model, "pose_of", lambda frames: pose if frames is piece.real else None)
    heard: list[tuple[bool, bool]] = []

    def speak(speech: np.ndarray, pose: np.ndarray | None) -> np.ndarray:
        heard.append((speech is piece.speech, pose is not None))
        return piece.real

    monkeypatch.setattr(model, "speak", speak)
    bench.measured(model, [piece], Instruments())
    assert heard == [(True, False), (False, False), (True, True), (False, True)]
