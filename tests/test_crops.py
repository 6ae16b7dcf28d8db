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


def outside(raw: np.ndarray, crops: np.ndarray) -> np.ndarray:
    """How far each crop reaches out of the square of 1.6 sides around its frame's box."""
    reach = 1.6 / 2 * raw[:, 2:]
    middle = raw[:, :2] + raw[:, 2:] / 2
    low = np.maximum(middle - reach, 0) - crops[:, :2]
    high = crops[:, :2] + crops[:, 2:] - np.minimum(middle + reach, (WIDTH, HEIGHT))
    return np.maximum(low, high).max(1)


def test_a_moving_head_stays_in_the_middle_of_its_crop() -> None:
    """It crosses the picture, nods once a second, and its boxes jitter."""
    random = np.random.default_rng(1)
    time = np.arange(300) / 30
    centres = np.stack([120 + 40 * time, 220 + 12 * np.sin(2 * np.pi * time)], 1)
    boxes = boxes_of(centres + random.normal(0, 2, centres.shape), 120)
    plan = plan_crops(boxes, np.ones(300, bool), NO_CUTS, "tracked", WIDTH, HEIGHT)
    assert (plan.shots == 0).all() and plan.jumps == 0
    middles = plan.boxes[:, :2] + plan.boxes[:, 2:] / 2 - (0, crops.CROP_DOWN * 120)
    assert np.abs(middles - centres).max() < 0.05 * 120
    assert (outside(boxes, plan.boxes) <= 0).all()


def test_a_head_that_comes_near_is_cropped_in_several_sizes() -> None:
    random = np.random.default_rng(1)
    sides = np.linspace(90, 220, 300) + random.normal(0, 4, 300)
    boxes = boxes_of(np.tile([320.0, 240.0], (300, 1)), sides)
    plan = plan_crops(boxes, np.ones(300, bool), NO_CUTS, "tracked", WIDTH, HEIGHT)
    assert plan.shots[0] == 0 and (np.diff(plan.shots) >= 0).all()
    assert 3 <= plan.shots[-1] + 1 <= 5 and plan.jumps == 0
    assert np.abs(np.log(plan.boxes[:, 2] / sides)).max() < np.log(crops.ZOOM)
    assert (outside(boxes, plan.boxes) <= 0).all()
    paper = plan_crops(boxes, np.ones(300, bool), NO_CUTS, "paper", WIDTH, HEIGHT)
    assert (paper.shots == 0).all()


def test_two_people_never_share_a_shot() -> None:
    here, there = np.array([100, 200, 90, 90]), np.array([400, 200, 90, 90])
    boxes = np.tile(here, (120, 1))
    boxes[40:80] = there  # the one is lost, the other followed
    boxes[100:102] = there  # too short to be anything but a mistake
    found = np.ones(120, bool)
    plan = plan_crops(boxes, found, NO_CUTS[:120], "tracked", WIDTH, HEIGHT)
    assert plan.jumps == 4
    assert [sorted(set(plan.shots[part].tolist())) for part in (
        slice(0, 40), slice(40, 80), slice(80, 120)
    )] == [[0], [1], [2]]  # fmt: skip
    # Each crop is where its shot's face is, so a box elsewhere leaves its crop uncovered.
    assert (np.abs(plan.boxes[80:, 0] - 100) < 5).all()
    assert (outside(boxes, plan.boxes) > 0).nonzero()[0].tolist() == [100, 101]
    paper = plan_crops(boxes, found, NO_CUTS[:120], "paper", WIDTH, HEIGHT)
    np.testing.assert_array_equal(paper.boxes, boxes)
    assert paper.shots[[99, 100, 101, 102]].tolist() == [2, 3, 3, 4]
    # At the same place, one after the other: only the cut tells them apart.
    cuts = NO_CUTS[:120].copy()
    cuts[60] = True
    plan = plan_crops(np.tile(here, (120, 1)), found, cuts, "tracked", WIDTH, HEIGHT)
    assert (plan.shots[:60] == 0).all() and (plan.shots[60:] == 1).all() and plan.jumps == 0


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
