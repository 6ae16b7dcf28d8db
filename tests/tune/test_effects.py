from typing import Any

import pytest

from tune.effects import common_step, kind_effect, levels
from tune.search import METRIC
from tune.space import KIND, LR_G
from tune.trials import Trial


def trial(kind: str, rate: float, scores: list[float]) -> tuple[Trial, list[dict[str, Any]]]:
    """One that was evaluated after 10, 20, ... steps, and its log."""
    log: list[dict[str, Any]] = [{"step": 5, "loss_g": 1.0}]
    log += [{"step": 10 * (number + 1), METRIC: value} for number, value in enumerate(scores)]
    name = f"{kind}_{rate:g}"
    return Trial(
        name, {KIND: kind, LR_G: rate}, "early", len(scores) * 10, {METRIC: scores[-1]}
    ), log


def sweep(*made: tuple[Trial, list[dict[str, Any]]]) -> tuple[list[Trial], dict[str, Any]]:
    return [one for one, _ in made], {one.name: log for one, log in made}


def test_pairs_are_compared_at_the_highest_step_that_both_reached() -> None:
    trials, logs = sweep(
        trial("gru", 1e-4, [0.1, 0.3, 0.9]),
        trial("no_gru", 1e-4, [0.1, 0.2]),
        trial("gru", 2e-4, [0.5]),
        trial("no_gru", 2e-4, [0.2, 0.6]),
        trial("gru", 9e-4, [0.4]),  # has no partner
    )
    effect = kind_effect(trials, logs)
    assert effect is not None and [pair.step for pair in effect.pairs] == [20, 10]
    assert [pair.difference for pair in effect.pairs] == pytest.approx([0.1, 0.3])
    assert effect.mean == pytest.approx(0.2)
    # Two pairs: mean -+ 12.706 * sd / sqrt(2), and the deviation of .1 and .3 is .1 * sqrt(2).
    assert effect.low == pytest.approx(0.2 - 1.2706)
    assert effect.high == pytest.approx(0.2 + 1.2706)


def test_a_single_pair_has_no_interval_and_none_no_effect() -> None:
    trials, logs = sweep(trial("gru", 1e-4, [0.3]), trial("no_gru", 1e-4, [0.2]))
    effect = kind_effect(trials, logs)
    assert effect is not None and (effect.low, effect.high) == (None, None)
    assert kind_effect(trials[:1], logs) is None


def test_a_field_is_read_where_every_trial_came() -> None:
    trials, logs = sweep(
        trial("gru", 2e-4, [0.1, 0.3, 0.9]),
        trial("gru", 1e-4, [0.1, 0.2]),
        trial("no_gru", 1e-4, [0.3, 0.4, 0.5]),
    )
    step = common_step(logs)
    assert step == 20
    found = levels(LR_G, trials, logs, step)
    assert [(level.value, level.scores) for level in found] == [(1e-4, [0.2, 0.4]), (2e-4, [0.3])]
    assert found[0].mean == pytest.approx(0.3)
    assert common_step({}) is None
