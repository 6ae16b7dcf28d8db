"""A training that is none: a score that grows with steps as those of real trials do.

Each point has its own plateau, highest at rates near 2e-4 and with a GRU, and its own speed: small
rates are slow, so that early scores mislead a little, as they do in earnest.
"""

import math
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from s2vgan.config import TrainConfig
from tune.space import KIND, LR_D, LR_G, Choices, Point, Space, trial_name

BEST: Final = 2e-4
NOISE: Final = 0.005  # of a reading; 0.01 makes ASHA take the runner-up in one seed of five
TRAIN: Final = TrainConfig(steps=6750, evaluate_every=250, minutes=0)
RATES: Final = (2.5e-5, 1e-4, 2e-4, 8e-4)
SPACE: Final = Space({LR_G: Choices(RATES), LR_D: Choices(RATES[1:3])})


def shuffled(seed: int) -> list[Point]:
    """The grid of 16 points in an order of its own: which trial starts when must not matter."""
    points = SPACE.grid()
    return [points[number] for number in np.random.default_rng(seed).permutation(len(points))]


def plateau(point: Point) -> float:
    """Where a point's score ends."""
    off = abs(math.log10(point[LR_G] / BEST)) + 0.5 * abs(math.log10(point[LR_D] / BEST))
    return 0.7 - 0.25 * off - (0.05 if point[KIND] == "no_gru" else 0.0)


def readings(point: Point, seed: int, train: TrainConfig = TRAIN) -> Iterator[dict[str, Any]]:
    """What a trial reports at each evaluation."""
    name = [ord(letter) for letter in trial_name(point)]
    random = np.random.default_rng([seed, *name])
    speed = 1500 * (BEST / point[LR_G]) ** 0.3
    for step in range(train.evaluate_every, train.steps + 1, train.evaluate_every):
        grown = plateau(point) * (1 - math.exp(-step / speed))
        yield {"step": step, "val/score": grown + NOISE * random.normal()}


def total(points: list[Point], train: TrainConfig = TRAIN) -> int:
    """Steps of the full grid."""
    return len(points) * train.steps
