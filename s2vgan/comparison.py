"""Runs of one recipe over seeds, and recipes against each other on the same blocks of time."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from s2vgan.config import Config, changed_keys
from s2vgan.metrics import difference, over_seeds

Place = tuple[str, str, str | None]
Blocks = Mapping[Place, Mapping[str, np.ndarray]]
"""Sums (B, K) of each metric's terms by the name of a run, its split, and its pose."""


@dataclass(frozen=True)
class Recipe:
    """Runs whose configuration is the same but for the seed.

    Attributes:
        name: what their names have in common.
        rows: names of the runs, in the order of their seeds.
        seeds: of the runs.
        config: of the first.
    """

    name: str
    rows: list[str]
    seeds: list[int]
    config: Config

    def to_dict(self) -> dict[str, Any]:
        """As in metrics.json."""
        return {"name": self.name, "rows": self.rows, "seeds": self.seeds}


def find_recipes(runs: Sequence[tuple[str, Config]]) -> list[Recipe]:
    """Group runs, given by name and configuration, that differ in nothing but ``train.seed``.

    Budgets count: a run of ten minutes is no seed of one of five.
    """
    alike: list[list[tuple[str, Config]]] = []
    for name, config in runs:
        for group in alike:
            keys = changed_keys(group[0][1].to_dict(), config.to_dict())
            taken = {other.train.seed for _, other in group}
            if set(keys) <= {"train.seed"} and config.train.seed not in taken:
                group.append((name, config))
                break
        else:
            alike.append([(name, config)])
    recipes = []
    for group in alike:
        group.sort(key=lambda item: item[1].train.seed)
        names = [name for name, _ in group]
        recipes.append(
            Recipe(_common(names), names, [config.train.seed for _, config in group], group[0][1])
        )
    return recipes


def seeds_of(recipes: Sequence[Recipe], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Mean and spread over seeds, for recipes of two and more: an entry a split and pose.

    Args:
        recipes: from :func:`find_recipes`.
        rows: of metrics.json.
    """
    found = []
    for recipe in recipes:
        if len(recipe.rows) < 2:
            continue
        own = [row for row in rows if row["kind"] == "model" and row["name"] in recipe.rows]
        for split, pose in dict.fromkeys((row["split"], row["pose"]) for row in own):
            alike = [row["metrics"] for row in own if (row["split"], row["pose"]) == (split, pose)]
            shared = [name for name in alike[0] if all(name in metrics for metrics in alike)]
            metrics = {
                name: over_seeds([metrics[name]["value"] for metrics in alike]) for name in shared
            }
            entry = {"recipe": recipe.name, "split": split, "pose": pose, "metrics": metrics}
            found.append(entry)
    return found


def differences(recipes: Sequence[Recipe], blocks: Blocks) -> list[dict[str, Any]]:
    """Recipes against each other: the first against each other one, and those that differ in kind.

    Over seeds that both have, the mean counts; the interval is a paired bootstrap over blocks of
    time, so it holds for these runs and says nothing about other seeds.

    Args:
        recipes: from :func:`find_recipes`.
        blocks: of all model rows.
    """
    pairs = [
        (a, b)
        for a, b in combinations(recipes, 2)
        if a is recipes[0] or changed_keys(a.config.to_dict(), b.config.to_dict()) == ["model.kind"]
    ]
    found = []
    for a, b in pairs:
        if b.config.model.kind == "gru" and a.config.model.kind == "no_gru":
            a, b = b, a  # what the ConvGRU adds
        shared = sorted(set(a.seeds) & set(b.seeds))
        ours, theirs = (
            [recipe.rows[recipe.seeds.index(seed)] for seed in shared] if shared else recipe.rows
            for recipe in (a, b)
        )
        places = dict.fromkeys((split, pose) for name, split, pose in blocks if name == ours[0])
        for split, pose in places:
            first = [blocks[name, split, pose] for name in ours if (name, split, pose) in blocks]
            second = [blocks[name, split, pose] for name in theirs if (name, split, pose) in blocks]
            if not first or not second:
                continue
            metrics = {}
            for metric in first[0]:
                sides = [[run[metric] for run in side if metric in run] for side in (first, second)]
                estimate = difference(metric, sides[0], sides[1]) if all(sides) else None
                if estimate is not None:
                    metrics[metric] = estimate.to_dict()
            entry = {"a": a.name, "b": b.name, "split": split, "pose": pose, "seeds": len(shared)}
            found.append(entry | {"metrics": metrics})
    return found


def _common(names: Sequence[str]) -> str:
    """What the names start with, without the number of the seed."""
    if len(names) == 1:
        return re.sub(r"[-_ ]?(seed)?[-_ ]?\d+$", "", names[0]) or names[0]
    start = 0
    while all(len(name) > start and name[start] == names[0][start] for name in names):
        start += 1
    return names[0][:start].rstrip("-_ ").removesuffix("seed").rstrip("-_ ") or names[0]
