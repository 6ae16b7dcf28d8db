"""The label and the watermark, put on and found again."""

import dataclasses
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from s2vgan.errors import ConfigError, SourceError
from s2vgan.media import h264, write_video
from s2vgan.provenance import Marker, detect, watermark_key
from s2vgan.provenance.detector import TRIALS, correlate, judge, slot_sums
from s2vgan.provenance.label import INK, label_for
from s2vgan.provenance.pattern import GRID, PUBLIC_KEY, SLOTS, signs
from s2vgan.regions import MOUTH

KEY = "the key of this test"


@pytest.fixture(scope="module")
def frames(face: np.ndarray) -> list[np.ndarray]:
    """Three seconds of a photograph whose mouth gets darker and lighter, 256 pixels."""
    still = cv2.resize(face, (256, 256), interpolation=cv2.INTER_AREA)
    made = []
    for number in range(90):
        frame = still.copy()
        mouth = frame[MOUTH.slices(256)]
        mouth[:] = (mouth * (0.8 + 0.2 * np.sin(number / 3))).astype(np.uint8)
        made.append(frame)
    return made


@pytest.fixture(scope="module")
def marked(frames: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("marked") / "marked.mp4"
    write_video(path, Marker(KEY).mark(frames), 30, None, 16000)
    return path


def recoded(source: Path, target: Path, size: int, start: int = 0, crop: int = 0) -> Path:
    """Cut, crop, scale and encode again at CRF 28."""
    with av.open(str(source)) as file:
        shown = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)][start:]
    inner = [frame[crop : len(frame) - crop, crop : len(frame) - crop] for frame in shown]
    scaled = [cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA) for frame in inner]
    write_video(target, scaled, 30, None, 16000, codecs=h264(28, "medium"))
    return target


@pytest.mark.parametrize(
    ("size", "start", "crop"), [(256, 0, 0), (128, 0, 0), (178, 0, 0), (330, 37, 0), (256, 0, 5)]
)
def test_the_watermark_survives(
    marked: Path, tmp_path: Path, size: int, start: int, crop: int
) -> None:
    """CRF 28 at several sizes, with a beginning cut off, and with a border cut off."""
    again = recoded(marked, tmp_path / "again.mp4", size, start, crop)
    right, wrong = detect(again, KEY), detect(again, "another key altogether")
    assert right.found and right.statistic > 10
    assert not wrong.found and wrong.statistic < 5.5 and wrong.false_alarm > 1e-5


def test_unmarked_frames_hold_no_watermark(frames: list[np.ndarray], tmp_path: Path) -> None:
    write_video(tmp_path / "plain.mp4", frames, 30, None, 16000)
    assert not detect(tmp_path / "plain.mp4", KEY).found


def test_the_statistic_is_what_its_definition_says() -> None:
    """Cells that are the pattern itself correlate fully; those of wrong keys as coins do."""
    times = np.arange(120) / 30
    pattern = signs(KEY).reshape(SLOTS, -1)
    cells = (100 + pattern[(times / 0.5).astype(int)]).astype(np.float32)
    wrong = np.stack([signs(f"wrong {number}") for number in range(300)])
    sums = slot_sums(times, cells)
    np.testing.assert_allclose(np.linalg.norm(sums, axis=1), 1)
    best = correlate(sums, signs(KEY)[None])[0]
    full = np.sqrt(SLOTS * GRID * GRID)  # of a pattern with itself, where no mean were taken off
    assert 0.9 * full < best <= full
    chance = correlate(sums, wrong)
    assert chance.max() < 5.5
    one = sums[0] @ wrong.reshape(300, -1).T  # at one moment: mean 0, variance 1
    assert abs(one.mean()) < 0.2 and 0.85 < one.std() < 1.15


def test_the_bound_is_hoeffdings() -> None:
    assert judge(6.0, 3.0).false_alarm == pytest.approx(TRIALS * np.exp(-18))
    assert 0 < judge(60.0, 3.0).false_alarm < 1e-299
    assert judge(-3.0, 3.0).false_alarm == 1.0
    assert judge(6.0, 3.0).found and not judge(5.8, 3.0).found


def test_a_marked_frame_looks_the_same(frames: list[np.ndarray]) -> None:
    marker = Marker(KEY, label=False)
    error = [np.square(marker.mark_frame(f).astype(float) - f).mean() for f in frames[::9]]
    assert 10 * np.log10(255**2 / max(error)) > 40
    before = frames[0].copy()
    labelled = Marker(KEY).mark_frame(frames[0])
    np.testing.assert_array_equal(frames[0], before)  # what is given is not changed
    rows, columns = (part.stop for part in dataclasses.astuple(label_for(256, 256))[:2])
    np.testing.assert_array_equal(
        labelled[rows:], Marker(KEY, label=False).mark_frame(frames[0])[rows:]
    )
    assert columns <= 256


def test_a_stream_is_marked_as_a_whole_is(frames: list[np.ndarray]) -> None:
    live = Marker(KEY)
    one_by_one = [live.mark_frame(frame) for frame in frames[:40]]
    np.testing.assert_array_equal(one_by_one, list(Marker(KEY).mark(frames[:40])))
    assert np.any(one_by_one[0] != one_by_one[20])  # patterns take turns


@pytest.mark.parametrize("size", [16, 32, 64, 128, 256, 1024])
def test_the_label_is_clear_of_the_mouth_and_in_contrast(size: int) -> None:
    label = label_for(size, size)
    assert label.rows.stop < MOUTH.slices(size)[0].start
    white = np.full((size, size, 3), 255, np.uint8)
    label.draw(white)
    part = white[label.rows, label.columns]
    letters = part[label.ink[..., 0]]
    assert len(letters) and (letters == INK).all()
    assert (part[~label.ink[..., 0]] < 70).all()
    if size >= 64:  # the whole word, in letters of five rows or more
        assert label.columns.stop > size // 4 and label.rows.stop >= 9


def test_the_key_is_the_environments_or_the_public_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("S2VGAN_WATERMARK_KEY", raising=False)
    assert watermark_key() == PUBLIC_KEY
    monkeypatch.setenv("S2VGAN_WATERMARK_KEY", "a secret of the operator")
    assert watermark_key() == "a secret of the operator"
    monkeypatch.setenv("S2VGAN_WATERMARK_KEY", "short")
    with pytest.raises(ConfigError, match="16"):
        Marker()


def test_what_cannot_be_judged_is_refused(frames: list[np.ndarray], tmp_path: Path) -> None:
    write_video(tmp_path / "short.mp4", frames[:20], 30, None, 16000)
    with pytest.raises(SourceError, match="too short"):
        detect(tmp_path / "short.mp4", KEY)
    with pytest.raises(SourceError, match="no such file"):
        detect(tmp_path / "nowhere.mp4", KEY)
