from pathlib import Path

import matplotlib.image
import pytest

from s2vgan.runlog import RunLog
from tune import report
from tune.promotion import Promotion
from tune.search import METRIC
from tune.space import KIND, LR_G, trial_name
from tune.trials import Trial

SETTINGS = {
    "data": "DATA", "search": "grid", "scheduler": "asha", "workers": 1,
    "config": {"train": {"minutes": 0, "steps": 20}},
    "space": {LR_G: "0.0001,0.0004", KIND: "gru,no_gru"},
}  # fmt: skip


@pytest.fixture
def trials(tmp_path: Path) -> list[Trial]:
    found = []
    for number, (rate, kind) in enumerate(
        (rate, kind) for rate in (1e-4, 4e-4) for kind in ("gru", "no_gru")
    ):
        point = {KIND: kind, LR_G: rate}
        log = RunLog(tmp_path / "trials" / trial_name(point))
        for step in (10, 20):
            log.write(step, 1.0, {"loss_g": 1.0 / step, "loss_d": 1.0})
            log.write(step, 1.0, {METRIC: 0.9 - 0.1 * number})
        readings = {METRIC: 0.9 - 0.1 * number, "val/mouth_r": 0.25}
        found.append(Trial(trial_name(point), point, "done", 20, readings))
    samples = tmp_path / "trials" / found[0].name / "samples"
    samples.mkdir()
    (samples / "step_0000020.png").write_bytes(b"picture")
    broken = Trial("broken", {KIND: "gru", LR_G: 9e-4}, "failed", reason="the <disk> is full.")
    return [*found, broken]


def test_the_table_shows_every_trial(trials: list[Trial]) -> None:
    head, first, *_, last, reason = report.table(trials).splitlines()
    assert "mouth_r_shuffled" in head and "0.900" in first and "0.250" in first
    assert last.split()[:3] == ["broken", "failed", "0"] and "-" in last
    assert reason == "broken failed: the <disk> is full."


def test_the_terminal_tells_what_the_gru_and_each_rate_change(
    trials: list[Trial], tmp_path: Path
) -> None:
    assert report.effects(tmp_path, SETTINGS, trials).splitlines() == [
        "With GRU against without, all else equal: +0.100 (95 % interval +0.100 to +0.100, "
        "2 pairs).",
        "Mean score at step 20 by train.lr_g: 0.0001 0.850, 0.0004 0.650.",
    ]
    one_pair = report.effects(tmp_path, SETTINGS, trials[:2])
    assert one_pair.startswith("With GRU against without, all else equal: +0.100 (one pair, no int")
    assert report.effects(tmp_path, SETTINGS, trials[-1:]) == ""


def test_the_report_opens_offline_and_shows_all(trials: list[Trial], tmp_path: Path) -> None:
    promotion = Promotion(
        trials[0].name, "as-is", "model", "sqlite:///m", "2", 0.5, "models:/s2vgan/1", 0.6, False,
        "It is models:/s2vgan/2; models:/s2vgan/1 stays champion.",
    )  # fmt: skip
    page, *images = report.write(tmp_path, SETTINGS, trials, promotion)
    text = page.read_text()
    assert "http" not in text and 'src="data:' in text
    assert all(trial.name in text for trial in trials) and "the &lt;disk&gt; is full." in text
    assert "stays champion" in text
    # Both pairs differ by .1: no spread, so an interval of nothing.
    assert "<b>+0.100</b>" in text and "+0.100 to +0.100, 2 pairs" in text
    assert "0.850" in text and "0.650" in text, "means at the two rates"
    assert [image.name for image in images] == ["parallel_coordinates.png", "curves.png"]
    assert all(matplotlib.image.imread(image).std() > 0.01 for image in images)
    assert not list(tmp_path.glob(".*"))


def test_a_sweep_whose_trials_all_failed_has_a_report_too(
    trials: list[Trial], tmp_path: Path
) -> None:
    [page] = report.write(tmp_path, SETTINGS, trials[-1:], None)
    assert "broken" in page.read_text() and "<img" not in page.read_text()
