"""Seeds and paired differences against numbers that are known without them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from s2vgan.comparison import Place, differences, find_recipes, seeds_of
from s2vgan.config import Config, ModelConfig, TrainConfig
from s2vgan.metrics import difference, estimate, over_seeds


def config(seed: int, kind: Any = "gru", **train: Any) -> Config:
    return Config(ModelConfig(kind=kind), train=TrainConfig(seed=seed, **train))


RUNS = [
    ("base_gru-0", config(0)),
    ("base_no_gru-0", config(0, "no_gru")),
    ("base_gru-1", config(1)),
    ("base_no_gru-1", config(1, "no_gru")),
    ("quick", config(0, minutes=1)),
]


def blocks(errors: np.ndarray) -> dict[str, np.ndarray]:
    return {"mse": np.stack([errors, np.ones_like(errors)], axis=1)}


def test_runs_that_differ_in_the_seed_alone_are_one_recipe() -> None:
    recipes = find_recipes(RUNS)
    assert [(recipe.name, recipe.rows, recipe.seeds) for recipe in recipes] == [
        ("base_gru", ["base_gru-0", "base_gru-1"], [0, 1]),
        ("base_no_gru", ["base_no_gru-0", "base_no_gru-1"], [0, 1]),
        ("quick", ["quick"], [0]),
    ]
    twice = find_recipes([("a", config(0)), ("b", config(0))])
    assert len(twice) == 2, "the same seed twice is no second seed"


def test_the_interval_over_seeds_is_students() -> None:
    found = over_seeds([1.0, 2.0, 3.0])
    assert found["mean"] == 2 and found["sd"] == 1 and found["n"] == 3
    assert found["high"] == pytest.approx(2 + 4.303 / np.sqrt(3))
    assert found["low"] == pytest.approx(2 - 4.303 / np.sqrt(3))
    with pytest.raises(ValueError, match="at least 2"):
        over_seeds([1.0])


def test_a_row_over_seeds_has_what_all_seeds_have() -> None:
    rows = [
        {
            "name": name,
            "kind": "model",
            "split": "heldout",
            "pose": "reference",
            "metrics": {"mse": {"value": value}}
            | ({"ssim": {"value": 1.0}} if value < 0.2 else {}),
        }
        for name, value in (("base_gru-0", 0.1), ("base_gru-1", 0.3), ("quick", 0.5))
    ]
    [found] = seeds_of(find_recipes(RUNS[0:1] + RUNS[2:3]), rows)
    assert (found["recipe"], found["split"], found["pose"]) == ("base_gru", "heldout", "reference")
    assert found["metrics"].keys() == {"mse"}
    assert found["metrics"]["mse"]["mean"] == pytest.approx(0.2)


def test_a_paired_difference_is_surer_than_two_intervals() -> None:
    random = np.random.default_rng(0)
    hard = random.exponential(0.1, 40)  # some moments are hard for both
    a, b = blocks(hard + 0.01), blocks(hard + random.normal(0, 0.002, 40))
    found = difference("mse", [a["mse"]], [b["mse"]])
    assert found is not None and found.low is not None and found.high is not None
    assert found.value == pytest.approx((a["mse"] - b["mse"])[:, 0].mean())
    assert 0 < found.low < 0.01 < found.high
    alone = estimate("mse", a["mse"])
    assert alone is not None and alone.low is not None and alone.high is not None
    assert found.high - found.low < 0.1 * (alone.high - alone.low)
    assert difference("flicker", [np.zeros((5, 2))], [np.ones((5, 2))]) is None


def test_the_gru_is_compared_with_its_absence_over_the_seeds_that_both_have() -> None:
    errors = {"base_gru-0": 0.1, "base_gru-1": 0.3, "base_no_gru-0": 0.5, "base_no_gru-1": 0.5}
    made: dict[Place, Any] = {
        (name, "heldout", "reference"): blocks(np.full(6, error)) for name, error in errors.items()
    }
    made["quick", "heldout", "reference"] = blocks(np.full(6, 0.7))
    found = {(item["a"], item["b"]): item for item in differences(find_recipes(RUNS), made)}
    assert found.keys() == {("base_gru", "base_no_gru"), ("base_gru", "quick")}
    ours = found["base_gru", "base_no_gru"]
    assert (ours["split"], ours["pose"], ours["seeds"]) == ("heldout", "reference", 2)
    assert ours["metrics"]["mse"]["value"] == pytest.approx(0.2 - 0.5)
    assert ours["metrics"]["mse"]["ci_low"] == pytest.approx(-0.3)
    assert found["base_gru", "quick"]["metrics"]["mse"]["value"] == pytest.approx(0.1 - 0.7)

    # Given the other way round, it is still what the ConvGRU adds.
    turned = find_recipes([RUNS[1], RUNS[0]])
    [item] = differences(turned, made)
    assert (item["a"], item["b"]) == ("base_gru", "base_no_gru")

    other = [("x", config(5)), ("y", replace(config(6), model=ModelConfig(kind="no_gru")))]
    apart: dict[Place, Any] = {
        (name, "heldout", None): blocks(np.full(6, 1.0)) for name, _ in other
    }
    [lone] = differences(find_recipes(other), apart)
    assert lone["seeds"] == 0 and lone["metrics"]["mse"]["value"] == 0
