import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from s2vgan import detectors
from s2vgan.config import Config, TrainConfig
from s2vgan.errors import ConfigError
from s2vgan.runlog import RunLog
from tests.test_detectors import HEALTHY, losses
from tune import search
from tune.search import METRIC, Hopeless, hopeless, make_scheduler, optuna_search, point_of
from tune.space import KIND, LR_G, Choices, LogRange, Space, trial_name

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture(scope="module")
def landscape() -> Iterator[Any]:
    """bench/_landscape.py as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        yield importlib.import_module("_landscape")
    del sys.modules["_landscape"]


@dataclass
class FakeTrial:
    """All that a scheduler asks of a trial."""

    trial_id: str


def simulate(landscape: Any, seed: int, slots: int) -> tuple[str, int]:
    """Name of the best trial, and steps of all, of ASHA over trials that take turns."""
    points = landscape.shuffled(seed)
    scheduler: Any = make_scheduler("asha", landscape.TRAIN)
    scheduler.set_search_properties(METRIC, "max")
    waiting = list(points)
    running: list[tuple[FakeTrial, Iterator[dict[str, Any]]]] = []
    steps = 0
    last: dict[str, float] = {}
    while waiting or running:
        while waiting and len(running) < slots:
            point = waiting.pop(0)
            trial = FakeTrial(trial_name(point))
            scheduler.on_trial_add(None, trial)
            running.append((trial, landscape.readings(point, seed)))
        for item in list(running):
            trial, readings = item
            result = next(readings, None)
            if result is None:
                scheduler.on_trial_complete(None, trial, {})
                running.remove(item)
                continue
            steps += landscape.TRAIN.evaluate_every
            last[trial.trial_id] = result[METRIC]
            if scheduler.on_trial_result(None, trial, result) == "STOP":
                running.remove(item)
    return max(last, key=lambda name: last[name]), steps


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("slots", [1, 2, 4])
def test_asha_finds_the_winner_of_the_grid_with_half_of_its_steps(
    landscape: Any, seed: int, slots: int
) -> None:
    points = landscape.shuffled(seed)
    grid = {trial_name(p): [*landscape.readings(p, seed)][-1][METRIC] for p in points}
    name, steps = simulate(landscape, seed, slots)
    assert name == max(grid, key=lambda name: grid[name])
    assert steps <= 0.55 * landscape.total(points)


def write_signs(run: Path, *signs: str) -> None:
    log = RunLog(run)
    for number, sign in enumerate(signs):
        log.write(500 + 250 * number, 1.0, {METRIC: 0.2}, [sign] if sign else [])
        log.write(500 + 250 * number, 1.0, {"loss_g": 1.0})


WON, DEAF = "D has won: it tells 100% right.", "G ignores the speech: with other speech."


@pytest.mark.parametrize(
    ("signs", "found"),
    [
        ([WON, WON], WON),
        ([WON, DEAF], DEAF),
        (["", DEAF, DEAF], DEAF),
        ([DEAF], None),
        ([DEAF, ""], None),
        ([DEAF, "", DEAF], None),
        (["The pictures are blurred: a little."] * 2, None),
        ([], None),
    ],
)
def test_a_trial_is_hopeless_at_the_second_sign_in_a_row(
    signs: list[str], found: str | None, tmp_path: Path
) -> None:
    point = {KIND: "gru", LR_G: 1e-3}
    run = tmp_path / trial_name(point)
    write_signs(run, *signs)
    assert hopeless(run) == found
    stopper = Hopeless(tmp_path, ("gru", "no_gru"))
    assert stopper("id", {"config": {"point": point}}) == (found is not None)
    assert not stopper.stop_all()


def test_the_detectors_say_what_the_sweep_looks_for() -> None:
    config = Config()
    provoked = [
        detectors.find(config, 1000, losses(1, 1, 0.1, climb=0.1), HEALTHY),
        detectors.find(config, 1000, losses(), HEALTHY | {"val/variation": 0.0}),
        detectors.find(config, 1000, losses(), HEALTHY | {"val/audio_effect": 0.0}),
        detectors.find(config, 1000, losses(), HEALTHY | {"val/mouth_r": 0.0}),
    ]
    assert [said[0].startswith(detectors.HOPELESS) for said in provoked] == [True] * 4
    assert len({said[0].partition(":")[0] for said in provoked}) == len(detectors.HOPELESS) == 4


def test_optuna_tries_each_suggestion_with_every_kind_also_after_an_interruption(
    tmp_path: Path,
) -> None:
    pytest.importorskip("optuna")
    kinds = ("gru", "no_gru")
    space = Space({LR_G: LogRange(1e-5, 1e-3), "loss.gan": Choices((0.01, 0.02))}, kinds)
    first = optuna_search(space, seed=0)
    points = [point_of(first.suggest(str(n)) or {}, kinds) for n in range(3)]
    assert points[1] == points[0] | {KIND: "no_gru"} and points[2][KIND] == "gru"
    assert 1e-5 <= points[0][LR_G] <= 1e-3 and points[0]["loss.gan"] in (0.01, 0.02)
    for number, score in enumerate((0.5, 0.3)):
        first.on_trial_complete(str(number), {METRIC: score})
    first.save(str(tmp_path / "state.pkl"))
    again = optuna_search(space, seed=0)
    again.restore(str(tmp_path / "state.pkl"))
    assert point_of(again.suggest("3") or {}, kinds) == points[2] | {KIND: "no_gru"}


def test_optuna_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    space = Space({LR_G: LogRange(1e-5, 1e-3)})
    monkeypatch.setattr(search.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"optuna\]'"):
        optuna_search(space, 0)


def test_optuna_needs_a_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search.importlib.util, "find_spec", lambda name: object())
    with pytest.raises(ConfigError, match="no field has a range"):
        optuna_search(Space({LR_G: Choices((1e-4, 2e-4))}), 0)


def test_a_full_budget_is_compared_with_nothing() -> None:
    scheduler: Any = make_scheduler("fifo", TrainConfig(steps=100))
    assert scheduler.on_trial_result(None, FakeTrial("a"), {"step": 50, METRIC: 0.0}) == "CONTINUE"
