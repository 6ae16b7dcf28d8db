from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from cv2.data import haarcascades

from s2vgan import faces, media
from s2vgan.faces import FaceTracker, iou
from s2vgan.spec import FaceChoice


def luma(face: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray((face @ (0.299, 0.587, 0.114)).astype(np.uint8))


def enlarged(picture: np.ndarray, factor: int) -> np.ndarray:
    """The part with the face, larger; of 256 pixels, its face is at (76, 66, 96, 96) for 2."""
    return np.kron(picture[:128, 50:178], np.ones((factor, factor), np.uint8))


def test_iou() -> None:
    box = np.array([10, 10, 20, 20])
    assert iou(box, box) == 1
    assert iou(box, np.array([30, 10, 20, 20])) == 0
    assert iou(box, np.array([20, 10, 20, 20])) == pytest.approx(1 / 3)


def test_tracker_follows_a_moving_face(face: np.ndarray) -> None:
    tracker = FaceTracker()
    assert tracker.update(np.zeros((256, 256), np.uint8)) is None
    for n in range(40):
        box = tracker.update(np.roll(luma(face), (n, 2 * n), axis=(0, 1)))
        assert box is not None
        assert iou(box, np.array([88 + 2 * n, 33 + n, 48, 48])) > 0.7
    assert tracker.update(np.full((256, 256), 90, np.uint8)) is None


def test_no_box_leaves_the_picture(face: np.ndarray) -> None:
    """Half pixels are rounded; the crop of a box that leaves it would be lost."""
    count = 0
    for scale in np.arange(1.1, 2.0, 0.1):
        large = cv2.resize(luma(face), None, fx=scale, fy=scale)
        for edge in (134, 136, 138):  # near the right end of the face
            picture = np.ascontiguousarray(large[:, : int(edge * scale)])
            tracker = FaceTracker()
            for _ in range(6):
                box = tracker.update(picture)
                if box is not None:
                    assert min(box) >= 0 and box[0] + box[2] <= picture.shape[1]
                    count += 1
    assert count > 50


def test_tracker_follows_a_face_that_grows(face: np.ndarray) -> None:
    tracker = FaceTracker()
    sides = []
    for n in range(60):
        zoom = 1.5 + n / 60
        moved = cv2.warpAffine(
            luma(face),
            np.array([[zoom, 0, 200 - 112 * zoom], [0, zoom, 200 - 57 * zoom]]),
            (400, 400),
        )
        box = tracker.update(moved)
        assert box is not None
        np.testing.assert_allclose(box[:2] + box[2:] / 2, 200, atol=0.08 * 48 * zoom)
        sides.append(box[2] / (48 * zoom))
    assert min(sides) > 0.9 and max(sides) < 1.2


def test_a_face_is_followed_without_a_full_search(
    face: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches = []
    search = FaceTracker._search

    def counted(self: FaceTracker, picture: np.ndarray) -> np.ndarray | None:
        searches.append(picture)
        return search(self, picture)

    monkeypatch.setattr(FaceTracker, "_search", counted)
    tracker = FaceTracker()
    for _ in range(3 * faces.CHECK_EVERY):
        tracker.update(luma(face))
    assert len(searches) == 1


def test_what_is_followed_must_pass_the_check(
    face: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = FaceTracker()
    assert tracker.update(luma(face)) is not None
    monkeypatch.setattr(FaceTracker, "_check", lambda *_: None)
    found = [tracker.update(luma(face)) is not None for _ in range(faces.CHECK_EVERY)]
    assert found.index(False) == faces.CHECK_EVERY - 1
    assert tracker.false_starts > 0  # the full search saw it, and the check refused it


class CountingCascade:
    """OpenCV's, and how often it was asked."""

    def __init__(self, cascade: Any) -> None:
        self.cascade, self.calls = cascade, 0

    def detectMultiScale(self, *args: Any, **options: Any) -> Any:  # noqa: N802
        self.calls += 1
        return self.cascade.detectMultiScale(*args, **options)


def test_a_picture_that_stands_still_without_a_face_is_searched_once(face: np.ndarray) -> None:
    tracker: Any = FaceTracker()
    tracker._cascade = cascade = CountingCascade(tracker._cascade)
    random = np.random.default_rng(0)
    slide = np.kron(random.integers(0, 250, (18, 32)), np.ones((20, 20))).astype(np.uint8)
    for n in range(10):
        assert tracker.update(slide + n % 2) is None  # the noise of a codec
    asked = cascade.calls
    assert asked == 1 + tracker.false_starts
    # A face that fades in: each picture is like the one before, and the last one has a face.
    last = slide.copy()
    last[60:316, 200:456] = luma(face)
    for n in range(61):
        box = tracker.update(cv2.addWeighted(last, n / 60, slide, 1 - n / 60, 0))
    assert box is not None and iou(box, np.array([288, 93, 48, 48])) > 0.7
    assert cascade.calls > asked


def test_tracker_takes_the_largest_face_and_stays_with_it(face: np.ndarray) -> None:
    small, large = luma(face), enlarged(luma(face), 2)
    both = np.hstack([small, large])
    tracker = FaceTracker()
    first = tracker.update(both)
    assert first is not None and first[0] > 256 and first[2] > 80
    # A larger face appears later; the one that is followed is still there.
    tracker = FaceTracker()
    assert tracker.update(np.hstack([small, np.zeros_like(large)])) is not None
    for _ in range(2 * faces.CHECK_EVERY):
        box = tracker.update(both)
        assert box is not None and box[0] < 256


def test_tracker_takes_the_most_central_face(face: np.ndarray) -> None:
    small, large = luma(face), enlarged(luma(face), 2)
    wide = np.hstack([np.zeros_like(small), small, large])  # centre of the picture: 384
    chosen: tuple[tuple[FaceChoice, int], ...] = (("central", 256), ("largest", 512))
    for choice, left in chosen:
        tracker = FaceTracker(choice)
        boxes = [tracker.update(wide) for _ in range(10)]
        assert all(box is not None and left < box[0] < left + 256 for box in boxes)


def naive(picture: np.ndarray, cascade: cv2.CascadeClassifier) -> np.ndarray | None:
    found = np.asarray(cascade.detectMultiScale(picture, 1.1, 5))
    return found[found[:, 2].argmax()] if len(found) else None


@pytest.mark.real_clips
@pytest.mark.parametrize(
    ("name", "first", "count"),
    [
        ("grid_s1_5min.mp4", 0, 80),
        ("edge/face_gap_1s.mp4", 15, 45),
        ("edge/noface.mp4", 0, 20),
        ("grid_s1/pbbc7a.mpg", 0, 75),
    ],
)
def test_the_tracker_finds_what_a_naive_search_finds(
    clips: Path, name: str, first: int, count: int
) -> None:
    cascade = cv2.CascadeClassifier(haarcascades + "haarcascade_frontalface_default.xml")
    tracker = FaceTracker()
    agree, overlap = [], []
    for number, picture in enumerate(islice(media.pictures(clips / name), first, first + count)):
        box = tracker.update(picture.luma)
        if number % 3 and name != "edge/face_gap_1s.mp4":
            continue
        true = naive(picture.luma, cascade)
        agree.append((box is None) == (true is None))
        if box is not None and true is not None:
            overlap.append(iou(box, true))
    assert np.mean(agree) >= 0.99
    assert not overlap or np.mean(overlap) >= 0.87


@pytest.mark.real_clips
@pytest.mark.parametrize("choice", ["largest", "central"])
def test_one_of_two_people_is_followed_to_the_end(clips: Path, choice: FaceChoice) -> None:
    tracker = FaceTracker(choice)
    boxes = [
        tracker.update(picture.luma) for picture in media.pictures(clips / "edge/twofaces.mp4")
    ]
    assert None not in [None if box is None else 0 for box in boxes]
    sides = {bool(box[0] + box[2] / 2 > 360) for box in boxes if box is not None}
    assert len(sides) == 1


@pytest.mark.real_clips
def test_each_choice_follows_its_own_of_two_people(clips: Path) -> None:
    """A man who is near, at the left, and a woman farther away, next to the centre."""
    followed: dict[FaceChoice, set[str]] = {"largest": set(), "central": set()}
    trackers = {choice: FaceTracker(choice) for choice in followed}
    for picture in islice(media.pictures(clips / "edge/twofaces.mp4"), 20):
        man, woman = np.hsplit(picture.luma, 2)
        scene = np.zeros((432, 1250), np.uint8)
        scene[:, :540] = cv2.resize(man, (540, 432), interpolation=cv2.INTER_LINEAR)
        scene[100:388, 540:900] = woman
        for choice, tracker in trackers.items():
            box = tracker.update(scene)
            assert box is not None
            followed[choice].add("man" if box[0] + box[2] / 2 < 540 else "woman")
    assert followed == {"largest": {"man"}, "central": {"woman"}}
