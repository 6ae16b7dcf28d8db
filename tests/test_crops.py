import numpy as np
import pytest

from s2vgan import crops
from s2vgan.crops import find_cuts, plan_crops, thumbnail

WIDTH, HEIGHT = 640, 480
NO_CUTS = np.zeros(300, bool)


def boxes_of(centres: np.ndarray, side: np.ndarray | float) -> np.ndarray:
    """Square boxes around (n, 2) centres."""
    sides = np.broadcast_to(np.asarray(side, float), len(centres))
    return np.rint(
        np.stack([centres[:, 0] - sides / 2, centres[:, 1] - sides / 2, sides, sides], 1)
    ).astype(np.int64)


def jittered(count: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """True centres of a slowly swaying head, and boxes that jitter around it as Haar's do."""
    random = np.random.default_rng(0)
    time = np.arange(count) / 30
    centres = np.stack([320 + 25 * np.sin(0.8 * time), 240 + 10 * np.cos(0.5 * time)], 1)
    noise = random.normal(0, 4, centres.shape)
    return centres, boxes_of(centres + noise, 120 + random.normal(0, 5, count))


def test_tracked_crops_are_steady_and_of_one_size() -> None:
    centres, boxes = jittered()
    found = np.ones(300, bool)
    boxes[100] += (40, 30, 25, 25)  # an outlier
    plan = plan_crops(boxes, found, NO_CUTS, "tracked", WIDTH, HEIGHT)
    assert (plan.shots == 0).all()
    assert (plan.boxes[:, 2:] == plan.boxes[0, 2]).all()
    middles = plan.boxes[:, :2] + plan.boxes[:, 2:] / 2
    raw = boxes[:, :2] + boxes[:, 2:] / 2
    steps = np.abs(np.diff(middles, axis=0)).mean()
    true_steps = np.abs(np.diff(centres, axis=0)).mean()
    assert steps < 1.5 * true_steps < np.abs(np.diff(raw, axis=0)).mean() / 2
    # It follows the head all the same; the crop lies lower than the box by design.
    offset = middles - centres
    assert np.abs(offset - offset.mean(0)).max() < 6


def test_paper_crops_are_the_raw_boxes() -> None:
    _, boxes = jittered()
    found = np.ones(300, bool)
    found[7] = False
    plan = plan_crops(boxes, found, NO_CUTS, "paper", WIDTH, HEIGHT)
    np.testing.assert_array_equal(plan.boxes[found], boxes[found])
    assert not plan.boxes[7].any() and plan.shots[7] == -1


def test_a_face_at_the_edge_is_cropped_inside_the_picture() -> None:
    centres = np.stack([np.linspace(40, 600, 300), np.full(300, 430.0)], 1)
    boxes = boxes_of(centres, 120)
    plan = plan_crops(boxes, np.ones(300, bool), NO_CUTS, "tracked", WIDTH, HEIGHT)
    assert plan.boxes[:, :2].min() >= 0
    assert (plan.boxes[:, 0] + plan.boxes[:, 2]).max() <= WIDTH
    assert (plan.boxes[:, 1] + plan.boxes[:, 3]).max() <= HEIGHT
    tall = plan_crops(
        boxes_of(np.full((9, 2), 60.0), 120), np.ones(9, bool), NO_CUTS[:9], "tracked", 100, 100
    )
    assert (tall.boxes == (0, 0, 100, 100)).all()


def test_jumps_cuts_and_long_gaps_start_a_shot_and_short_gaps_do_not() -> None:
    centres = np.full((300, 2), 200.0)
    centres[100:] = 420  # a jump
    found = np.ones(300, bool)
    found[50:53] = False
    found[150 : 150 + crops.BRIDGE + 1] = False
    cuts = NO_CUTS.copy()
    cuts[250] = True
    plan = plan_crops(boxes_of(centres, 100), found, cuts, "tracked", WIDTH, HEIGHT)
    starts = [int(np.flatnonzero(plan.shots == shot)[0]) for shot in range(plan.shots.max() + 1)]
    assert starts == [0, 100, 150 + crops.BRIDGE + 1, 250]


def test_no_face_no_crop() -> None:
    plan = plan_crops(
        np.zeros((5, 4), np.int64), np.zeros(5, bool), NO_CUTS[:5], "tracked", WIDTH, HEIGHT
    )
    assert (plan.shots == -1).all() and not plan.boxes.any()


def scene(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.kron(random.integers(0, 255, (9, 16)), np.ones((20, 20))).astype(np.uint8)


@pytest.mark.parametrize("length", [1, 2, 4])
def test_a_cut_is_found_and_a_flash_is_none(length: int) -> None:
    frames = [scene(1)] * 40 + [scene(2)] * 40
    frames[20 : 20 + length] = [np.full_like(scene(1), 255)] * length  # a flash
    assert np.flatnonzero(find_cuts(np.stack([thumbnail(f) for f in frames]))).tolist() == [40]


def test_motion_is_no_cut() -> None:
    frames = [np.roll(scene(1), 3 * n, axis=1) for n in range(60)]
    assert not find_cuts(np.stack([thumbnail(frame) for frame in frames])).any()


@pytest.mark.parametrize("count", [0, 1, 2, 6])
def test_few_frames_have_no_cut(count: int) -> None:
    assert not find_cuts(np.zeros((count, crops.THUMBNAIL**2), np.uint8)).any()
