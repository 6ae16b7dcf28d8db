import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import RayActorError

from s2vgan.runlog import RunLog
from tune.console import Lines
from tune.search import METRIC
from tune.space import KIND, LR_G

NAME = "gru_g0.0001"
DEAF = "G ignores the speech: with other speech its mouths change 0.01 times as much."


@dataclass
class FakeTrial:
    """All that the lines ask of a trial of Ray Tune's."""

    pickled_error_file: str | None = None
    max_failures: int = 3
    config: dict[str, Any] = field(default_factory=lambda: {"point": {KIND: "gru", LR_G: 1e-4}})
    finished: bool = False
    last_result: dict[str, Any] = field(default_factory=lambda: {"step": 750, METRIC: 0.125})

    def is_finished(self) -> bool:
        return self.finished


@pytest.fixture
def lines(tmp_path: Path) -> Lines:
    return Lines(4, ("gru",), "1 CPU and 1 GPU", tmp_path)


def test_a_trial_says_what_it_takes_and_where_it_ended(
    lines: Lines, capsys: pytest.CaptureFixture[str]
) -> None:
    trial, other = FakeTrial(), FakeTrial()
    ended_before = FakeTrial(finished=True)  # a sweep that goes on knows it, and does not start it
    lines.on_trial_start(0, [ended_before, trial, other], trial)
    lines.on_trial_complete(0, [ended_before, trial, other], trial)
    trial.finished = True
    lines.on_trial_error(0, [ended_before, trial, other], other)
    assert capsys.readouterr().out.splitlines() == [
        f"{NAME} starts: 1 CPU and 1 GPU",
        f"[2/4] {NAME} ended at step 750, {METRIC} 0.125",
        f"[3/4] {NAME} failed",
    ]


def test_a_trial_without_hope_says_why_it_ended(
    lines: Lines, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = RunLog(tmp_path / NAME)
    for step in (500, 750):
        log.write(step, 1.0, {METRIC: 0.125}, [DEAF])
    lines.on_trial_complete(0, [], FakeTrial())
    assert capsys.readouterr().out.endswith(f"{METRIC} 0.125. {DEAF}\n")


@pytest.mark.parametrize(
    ("error", "what", "restarts"),
    [(RayActorError(), "lost its process", 3), (ValueError("no disk"), "failed", 0)],
)
def test_what_raises_an_error_is_started_again_once_and_what_dies_more_often(
    error: Exception,
    what: str,
    restarts: int,
    lines: Lines,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "error.pkl"
    file.write_bytes(pickle.dumps(error))
    trial = FakeTrial(str(file))
    lines.on_trial_recover(0, [], trial)
    assert trial.max_failures == restarts
    assert capsys.readouterr().out == f"{NAME} {what} and goes on from its last checkpoint\n"
