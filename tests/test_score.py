"""The score ranks what is known to be better first, on the rendered head and on metrics.json."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s2vgan.dataset import GroupDataset
from s2vgan.metrics import Stretch, score, values
from s2vgan.metrics.score import score_of_run


@pytest.fixture(scope="module")
def contenders(demo_data: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What each makes of the speech and of other speech; the first one is the real video."""
    dataset = GroupDataset.load(demo_data)
    frames = np.concatenate(dataset.frames[dataset.split(0.3)[1]])
    random = np.random.default_rng(0)
    mean = frames.mean(axis=0)
    weak = np.roll(0.6 * frames + 0.4 * mean, 1, axis=0).astype(np.uint8)  # little, and late
    still = np.repeat(frames[:1], len(frames), axis=0)
    noise = random.integers(0, 256, frames.shape, dtype=np.uint8)
    deaf = np.roll(frames, 31, axis=0)  # moves as a face does, whatever is said
    return {
        "real": (frames, np.roll(frames, 31, axis=0)),
        "weak": (weak, np.roll(weak, 31, axis=0)),
        "mean face": (np.repeat(mean[None].astype(np.uint8), len(frames), axis=0),) * 2,
        "frozen frame": (still, still),
        "noise": (noise, noise),
        "shuffled audio": (np.roll(weak, 31, axis=0), weak),
        "deaf": (deaf, deaf),
    }


def test_a_working_model_ranks_above_all_that_is_none(
    contenders: dict[str, tuple[np.ndarray, np.ndarray]],
) -> None:
    real = contenders["real"][0]
    scores = {}
    for name, (made, other) in contenders.items():
        found = values([Stretch(made, real)])
        found["mouth_r_shuffled"] = values([Stretch(other, real)])["mouth_r"]
        scores[name] = score(found)
    ranked = sorted(scores, key=lambda name: -scores[name])
    assert ranked[:2] == ["real", "weak"], scores
    assert scores["weak"] > 1.5 * scores[ranked[2]], scores
    assert all(scores[name] <= 0.32 for name in ranked[2:]), scores


def test_known_scores() -> None:
    perfect = dict(ssim=1.0, sharpness=1.0, mouth_amplitude=1.0, mouth_r=1.0)
    assert score(perfect) == pytest.approx(1)
    assert score(perfect | {"sharpness": 2.0}) == pytest.approx(0.5**0.25)
    assert score(perfect | {"sharpness": 0.5}) == pytest.approx(0.5**0.25)
    assert score(perfect | {"mouth_amplitude": 4.0}) == pytest.approx(0.25**0.25)
    assert score(perfect | {"mouth_r_shuffled": -0.4}) == pytest.approx(0.6**0.25)
    assert score(perfect | {"mouth_r_shuffled": 1.0}) == pytest.approx(0.01**0.25), "deaf"
    assert score({}) == pytest.approx(0.01)


def row(name: str, run: str, r: float, **fields: Any) -> dict[str, Any]:
    numbers = {"ssim": 0.81, "sharpness": 1.0, "mouth_amplitude": 1.0, "mouth_r": r}
    cells = {key: {"value": value, "ci_low": None} for key, value in numbers.items()}
    common = {"kind": "model", "split": "heldout", "pose": "reference"}
    return {"name": name, "run": run, "metrics": cells} | common | fields


def test_the_score_of_a_run_is_read_from_its_own_rows() -> None:
    rows = [
        row("a", "runs/a", 0.99, split="train"),
        row("a", "runs/a", 0.98, pose="true"),
        row("a", "runs/a", 0.9),
        row("shuffled_audio", "runs/a", -0.1, kind="control"),
        row("b", "runs/b", 0.2),
        row("shuffled_audio", "runs/b", 0.15, kind="control"),
    ]
    value, found = score_of_run(rows, "runs/a")
    assert value == pytest.approx((0.81 * 0.8) ** 0.25)
    assert (found["mouth_r"], found["mouth_r_shuffled"]) == (0.9, -0.1)
    assert score_of_run(rows, "runs/b")[0] == pytest.approx((0.81 * 0.05) ** 0.25)
    with pytest.raises(ValueError, match="runs/c"):
        score_of_run(rows, "runs/c")
