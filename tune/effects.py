"""What a sweep says about its fields: differences between trials that are equal in all else."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tune.search import METRIC
from tune.space import KIND
from tune.trials import Trial

Log = Sequence[Mapping[str, Any]]

# 97.5 % points of Student's t with 1, 2, ... degrees of freedom (Student 1908); 1.96 beyond.
_STUDENT = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """Two trials that differ in the kind of model alone.

    Attributes:
        gru: the one.
        other: the other.
        step: the highest evaluation that both reached.
        difference: score of the one less that of the other, there.
    """

    gru: Trial
    other: Trial
    step: int
    difference: float


@dataclass(frozen=True)
class Effect:
    """The mean of paired differences, and its 95 % interval (Student's t over pairs).

    Attributes:
        pairs: what it is the mean of.
        mean: of their differences, in score.
        low: end of the interval; None for a single pair.
        high: other end.
    """

    pairs: list[Pair]
    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Level:
    """One value of a field.

    Attributes:
        value: of the field.
        scores: of its trials, at the field's step.
    """

    value: Any
    scores: list[float]

    @property
    def mean(self) -> float:
        """Of the scores."""
        return float(np.mean(self.scores))


def readings(log: Log) -> dict[int, float]:
    """The score at each evaluation of a trial's log."""
    return {line["step"]: line[METRIC] for line in log if METRIC in line}


def kind_effect(
    trials: Sequence[Trial], logs: Mapping[str, Log], kind: str = "gru", other: str = "no_gru"
) -> Effect | None:
    """What the GRU is worth with everything else equal.

    Each pair is compared at the highest evaluation that both reached: the scheduler may have
    stopped one of them before the other, and a score grows with training.

    Args:
        trials: of a sweep.
        logs: of their runs, by name.
        kind: the one.
        other: that it is compared with.

    Returns:
        The effect, or None if no pair has an evaluation in common.
    """
    pairs = []
    for one in (trial for trial in trials if trial.point[KIND] == kind):
        for match in trials:
            if match.point != one.point | {KIND: other}:
                continue
            left, right = readings(logs[one.name]), readings(logs[match.name])
            if common := left.keys() & right.keys():
                step = max(common)
                pairs.append(Pair(one, match, step, left[step] - right[step]))
    if not pairs:
        return None
    differences = np.array([pair.difference for pair in pairs])
    mean, freedom = float(differences.mean()), len(pairs) - 1
    if not freedom:
        return Effect(pairs, mean, None, None)
    student = _STUDENT[freedom - 1] if freedom <= len(_STUDENT) else 1.96
    half = student * float(differences.std(ddof=1)) / math.sqrt(len(pairs))
    return Effect(pairs, mean, mean - half, mean + half)


def common_step(logs: Mapping[str, Log]) -> int | None:
    """The highest evaluation that every trial with a reading reached; None if there is none."""
    reached = [set(found) for log in logs.values() if (found := readings(log))]
    common = set.intersection(*reached) if reached else set()
    return max(common) if common else None


def levels(field: str, trials: Sequence[Trial], logs: Mapping[str, Log], step: int) -> list[Level]:
    """The scores at one step by the value of a field, in the order of the values."""
    found: dict[Any, list[float]] = {}
    for trial in trials:
        if step in (scores := readings(logs[trial.name])):
            found.setdefault(trial.point[field], []).append(scores[step])
    numbers = all(isinstance(value, int | float) for value in found)
    order = sorted(found) if numbers else sorted(found, key=str)
    return [Level(value, found[value]) for value in order]
