"""Patches: crops that are cut later are those that the picture gives."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from s2vgan.media import Picture, pictures
from tests.conftest import MakeVideo

SIZE = (240, 320)


def scene() -> np.ndarray:
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (12, 16, 3), np.uint8)
    return cv2.resize(small, SIZE[::-1], interpolation=cv2.INTER_CUBIC)


def picture_of(make_video: MakeVideo, pixels: np.ndarray, pix_fmt: str = "yuv420p") -> Picture:
    path: Path = make_video("x.mp4", [(0, pixels), (0.04, pixels)], pix_fmt=pix_fmt)
    return next(pictures(path))


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p"])
def test_a_patch_crops_like_the_picture(make_video: MakeVideo, pix_fmt: str) -> None:
    picture = picture_of(make_video, scene(), pix_fmt)
    random = np.random.default_rng(0)
    for x, y, side in [(101, 67, 80), (0, 0, 81), (239, 159, 80), (3, 160, 78), (200, 1, 99)]:
        patch = picture.patch(np.array([x, y, side, side]), 100)
        assert patch.covers(np.array([x, y, side, side])) and not patch.shrunk
        assert all(plane.base is None for plane in patch.planes)  # the frame can be freed
        for _ in range(10):
            dx, dy = random.integers(-30, 31, 2)
            box = np.array([x + dx, y + dy, side, side])
            if patch.covers(box):
                assert np.array_equal(patch.crop(box, 64), picture.crop(box, 64))


def test_what_a_patch_covers(make_video: MakeVideo) -> None:
    patch = picture_of(make_video, scene()).patch(np.array([110, 70, 100, 100]), 100)
    assert (patch.left, patch.top, patch.width, patch.height) == (80, 40, 160, 160)
    assert patch.nbytes == 160 * 160 * 3 // 2
    assert patch.covers(np.array([80, 40, 160, 160]))
    for box in [(79, 40, 160, 160), (80, 39, 10, 10), (200, 100, 41, 10), (200, 100, 10, 101)]:
        assert not patch.covers(np.array(box))


@pytest.mark.parametrize("limit", [119, 100, 64, 60, 59, 50])
@pytest.mark.parametrize("place", [(101, 67), (0, 0), (200, 120), (3, 120)])
def test_a_shrunk_patch_is_small_and_looks_the_same(
    make_video: MakeVideo, limit: int, place: tuple[int, int]
) -> None:
    """In its place and its colours: the difference is below 1 %."""
    picture = picture_of(make_video, scene())
    box = np.array([*place, 120, 120])
    patch = picture.patch(box, limit)
    assert patch.shrunk and patch.covers(box)
    assert patch.nbytes <= 1.5 * (1.6 * limit + 6) ** 2
    size = limit // 2
    for dx, dy in [(0, 0), (11, 7), (-9, 3)]:
        moved = box + np.array([dx, dy, 0, 0])
        if patch.covers(moved):
            difference = patch.crop(moved, size).astype(int) - picture.crop(moved, size)
            assert np.abs(difference).mean() < 2.5


def test_a_shrunk_patch_does_not_shift(make_video: MakeVideo) -> None:
    """A spot stays within a tenth of a pixel of where the picture's own crop shows it."""
    pixels = np.full((*SIZE, 3), 30, np.uint8)
    cv2.circle(pixels, (170, 123), 17, (220, 220, 220), -1, cv2.LINE_AA)
    picture = picture_of(make_video, pixels)

    def centre(crop: np.ndarray) -> np.ndarray:
        weight = crop.astype(float).sum(axis=2) - 90
        rows, columns = np.mgrid[: len(crop), : len(crop)]
        return np.array([(weight * rows).sum(), (weight * columns).sum()]) / weight.sum()

    for limit in (128, 127, 100, 65, 64, 45):
        for dx in range(3):
            box = np.array([101 + dx, 59, 129, 129])
            found = picture.patch(np.array([103, 60, 129, 129]), limit).crop(box, 64)
            assert np.abs(centre(found) - centre(picture.crop(box, 64))).max() < 0.1


def test_sharpness_changes_without_a_step(make_video: MakeVideo) -> None:
    """A face whose size wavers around a limit must not flicker."""
    picture = picture_of(make_video, scene())
    box = np.array([101, 67, 120, 120])
    for limit in (60, 119):  # around half and the whole of the side
        near = [picture.patch(box, limit + more).crop(box, 40).astype(int) for more in (0, 1)]
        assert np.abs(near[0] - near[1]).mean() < 1.5
