import numpy as np
import pytest

from s2vgan import faces
from s2vgan.faces import FaceTracker, iou


def test_iou() -> None:
    box = np.array([10, 10, 20, 20])
    assert iou(box, box) == 1
    assert iou(box, np.array([30, 10, 20, 20])) == 0
    assert iou(box, np.array([20, 10, 20, 20])) == pytest.approx(1 / 3)


def luma(face: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray((face @ (0.299, 0.587, 0.114)).astype(np.uint8))


def test_tracker_follows_a_moving_face(face: np.ndarray) -> None:
    tracker = FaceTracker()
    assert tracker.update(np.zeros((256, 256), np.uint8)) is None
    for n in range(40):
        box = tracker.update(np.roll(luma(face), (n, 2 * n), axis=(0, 1)))
        assert box is not None
        assert iou(box, np.array([88 + 2 * n, 33 + n, 48, 48])) > 0.7
    assert tracker.update(np.full((256, 256), 90, np.uint8)) is None


def test_tracker_takes_the_largest_face_and_stays_with_it(face: np.ndarray) -> None:
    small = luma(face)
    large = np.kron(small[:128, 50:178], np.ones((2, 2), np.uint8))  # its face: (76, 66, 96, 96)
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
