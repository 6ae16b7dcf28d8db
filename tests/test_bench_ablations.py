"""The ablations switch off what the recipe has, each idea of it, and nothing else."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from s2vgan.config import Config

BENCH = Path(__file__).resolve().parents[1] / "bench"


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    """bench/ablations.py as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        yield importlib.import_module("ablations")
    del sys.modules["ablations"]


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
    row = dict.fromkeys([*bench.SHOWN, "wrong speech"], 0.5)
    lines = bench.markdown({"base, seed 0": row, "no GAN": row}).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["base, seed 0", "no GAN"]
    assert {line.count("|") for line in lines} == {len(bench.SHOWN) + 3}
