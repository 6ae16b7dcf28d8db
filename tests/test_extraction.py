import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from s2vgan import groups, known, ledger, source, spans
from s2vgan.errors import DatasetError
from s2vgan.extraction import extract_video
from s2vgan.known import Known, Options
from s2vgan.ledger import LedgerRow
from s2vgan.source import Source
from s2vgan.spec import GroupSpec
from tests.conftest import MakeVideo
from tests.test_media import impulse

SPEC = GroupSpec()
OPTIONS = Options()
Frames = list[tuple[float, np.ndarray]]


def bright(face: np.ndarray) -> np.ndarray:
    return np.clip(face.astype(int) + 70, 0, 255).astype(np.uint8)


def talk(face: np.ndarray, times: list[float], flash: float | None = None) -> Frames:
    """The face at the given times, brighter at ``flash``."""
    lit = bright(face)
    return [
        (time, lit if flash is not None and abs(time - flash) < 1e-6 else face) for time in times
    ]


def rows_of(data: Path, row: LedgerRow) -> tuple[np.ndarray, np.ndarray, list[int], list[int]]:
    """Frames (N, T, S, S, 3), audio (N, samples), segments and indices of a video."""
    spec, table = groups.read_groups(data, row.video_id)
    return (
        groups.decode_frames(table, spec),
        groups.decode_audio(table, spec),
        table["segment"].to_pylist(),
        table["index"].to_pylist(),
    )


@pytest.mark.parametrize(
    # A frame is shown from its time to the next one's; ticks whose middle lies there show it.
    ("name", "times", "flash", "shown"),
    [
        ("30.mp4", [n / 30 for n in range(48)], 1.1, [33]),
        ("25.mp4", [n / 25 for n in range(40)], 1.08, [32, 33]),
        ("24.mkv", [n / 24 for n in range(39)], 1.0, [30]),
        ("29.97.mp4", [n * 1001 / 30000 for n in range(48)], 1.001, [30]),
        ("50.mp4", [n / 50 for n in range(80)], 1.0, [30]),
        ("60.mp4", [n / 60 for n in range(96)], 1.1, [33]),
        ("vfr.mp4", [n / 25 for n in range(40) if n not in (5, 6, 15, 22, 32)], 1.12, [34]),
        ("late.mkv", [0.5 + n / 30 for n in range(48)], 1.3, [39]),
    ],
)
@pytest.mark.parametrize("audio_start", [0.0, 0.2])
def test_a_flash_and_an_impulse_come_out_where_they_were(
    tmp_path: Path,
    make_video: MakeVideo,
    face: np.ndarray,
    name: str,
    times: list[float],
    flash: float,
    shown: list[int],
    audio_start: float,
) -> None:
    """Picture and sound are both right on the presentation clock, whatever the file's own."""
    click = flash + 0.01
    path = make_video(
        name if audio_start == 0 else Path(name).with_suffix(".mkv").name,
        talk(face, times, flash),
        impulse(2.4, click - audio_start, 16000),
        audio_start=audio_start,
    )
    row = extract_video(str(path), tmp_path / "data", OPTIONS)
    assert row.status == "ok", row.reason
    frames, audio, _, indices = rows_of(tmp_path / "data", row)
    light = frames.mean(axis=(2, 3, 4)).reshape(-1)
    ticks = np.concatenate([3 * index + np.arange(3) for index in indices])
    lit = ticks[light > np.median(light) + 25]
    assert lit.tolist() == shown

    energy = audio.astype(float) ** 2
    number = int(energy.sum(axis=1).argmax())
    assert indices[number] == int(click / 0.1)
    clock = indices[number] * 0.1 + np.arange(1600) / 16000
    middle = (energy[number] * clock).sum() / energy[number].sum()
    assert middle == pytest.approx(click, abs=0.5 / 16000)


def test_the_crop_shows_the_face(tmp_path: Path, make_video: MakeVideo, face: np.ndarray) -> None:
    """The crop of a still picture is that place of the picture, in its colours."""
    import cv2

    path = make_video("x.mp4", talk(face, [n / 30 for n in range(30)]), impulse(1.1, 0.5, 16000))
    row = extract_video(str(path), tmp_path, OPTIONS)
    spec, table = groups.read_groups(tmp_path, row.video_id)
    x, y, w, h = table["boxes"][4].as_py()[:4]
    assert abs(x + w / 2 - 112) < 6 and abs(y + h / 2 - 59) < 8 and 48 <= w == h <= 66
    wanted = cv2.resize(face[y : y + h, x : x + w], (64, 64), interpolation=cv2.INTER_LINEAR)
    found = groups.decode_frames(table, spec)[4, 0]
    assert np.abs(found.astype(int) - wanted).mean() < 6


def test_a_gap_without_a_face_starts_a_segment(
    tmp_path: Path, make_video: MakeVideo, face: np.ndarray
) -> None:
    blank = np.full_like(face, 90)
    frames = [(n / 30, blank if 32 <= n < 50 else face) for n in range(90)]
    path = make_video("x.mp4", frames, impulse(3.1, 0.5, 16000))
    row = extract_video(str(path), tmp_path, OPTIONS)
    _, _, segments, indices = rows_of(tmp_path, row)
    assert indices == [*range(10), *range(17, 30)]  # ticks 32 to 49 touch groups 10 to 16
    assert segments == [0] * 10 + [1] * 13
    assert row.dropped == {"no_face": 7}
    assert (row.frames, row.face_frames, row.groups, row.segments) == (90, 72, 23, 2)


def test_groups_without_complete_sound_are_dropped(
    tmp_path: Path, make_video: MakeVideo, face: np.ndarray
) -> None:
    times = [n / 30 for n in range(60)]
    path = make_video("x.mkv", talk(face, times), impulse(1.0, 0.5, 16000), audio_start=0.45)
    row = extract_video(str(path), tmp_path, OPTIONS)
    assert rows_of(tmp_path, row)[3] == list(range(5, 14))
    assert row.dropped == {"no_audio": 11}


@pytest.mark.parametrize("crop", ["tracked", "paper"])
def test_extraction_is_repeatable(talking_head: object, tmp_path: Path, crop: str) -> None:
    spec = GroupSpec(crop=crop)  # type: ignore[arg-type]
    infos = []
    for name in ("one", "two"):
        row = extract_video(str(talking_head.video), tmp_path / name, Options(spec))  # type: ignore[attr-defined]
        assert row.status == "ok"
        infos.append(ledger.write_dataset(tmp_path / name, spec))
    assert infos[0] == infos[1]
    files = [tmp_path / name / "groups" / f"{row.video_id}.parquet" for name in ("one", "two")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_talking_head_comes_out_whole(demo_data: Path) -> None:
    """20 s of one face without a cut: one segment, next to nothing dropped."""
    info = ledger.read_dataset(demo_data)
    assert sum(info.groups.values()) >= 190
    row = next(iter(ledger.read_rows(demo_data).values()))
    assert row.segments == 1 and row.face_frames >= 0.99 * row.frames
    assert row.seconds == pytest.approx(20, abs=0.5) and row.fps == 30


def test_what_is_done_is_not_done_again(
    tmp_path: Path, make_video: MakeVideo, face: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = [n / 30 for n in range(30)]
    path = make_video("x.mp4", talk(face, times), impulse(1.1, 0.5, 16000))
    silent = make_video("silent.mp4", talk(face, times))
    data = tmp_path / "data"
    first = [extract_video(str(some), data, OPTIONS) for some in (path, silent)]
    assert [row.status for row in first] == ["ok", "rejected"]

    def never(*_: object) -> None:
        raise AssertionError("extracted again")

    monkeypatch.setattr(spans, "inspect", never)
    assert [extract_video(str(some), data, OPTIONS) for some in (path, silent)] == first

    # A lost or torn file, another face, extractor or content is work again.
    monkeypatch.undo()
    file = data / "groups" / f"{first[0].video_id}.parquet"
    for damage in (file.unlink, lambda: file.write_bytes(file.read_bytes()[:-9])):
        damage()
        assert extract_video(str(path), data, OPTIONS).status == "ok"
        assert groups.size_of(data, first[0].video_id) == first[0].groups_size
    assert extract_video(str(path), data, Options(face="central")).face == "central"
    monkeypatch.setattr(known, "EXTRACTOR", "next")
    assert extract_video(str(path), data, OPTIONS).extractor == "next"
    make_video("x.mp4", talk(face, times[:20]), impulse(1.1, 0.5, 16000))
    assert extract_video(str(path), data, OPTIONS).video_id != first[0].video_id


def test_a_missing_video_is_tried_again(
    tmp_path: Path, make_video: MakeVideo, face: np.ndarray
) -> None:
    path, data = tmp_path / "x.mp4", tmp_path / "data"
    row = extract_video(str(path), data, OPTIONS)
    assert row.status == "failed" and "no such file" in row.reason
    assert list(ledger.read_rows(data)) == [row.video_id] and row.video_id.startswith("src-")
    make_video("x.mp4", talk(face, [n / 30 for n in range(30)]), impulse(1.1, 0.5, 16000))
    row = extract_video(str(path), data, OPTIONS)
    assert row.status == "ok"
    assert list(ledger.read_rows(data)) == [row.video_id]


def test_a_broken_video_leaves_a_reason_and_no_file(
    tmp_path: Path, make_video: MakeVideo, face: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video("x.mp4", talk(face, [n / 30 for n in range(30)]), impulse(1.1, 0.5, 16000))

    def torn(*_: object) -> None:
        raise MemoryError("too much")

    monkeypatch.setattr(spans.media.Picture, "patch", torn)
    row = extract_video(str(path), tmp_path / "data", OPTIONS)
    assert row.status == "failed" and row.reason == "MemoryError: too much"
    assert not list((tmp_path / "data").glob("groups/*"))
    monkeypatch.undo()
    assert extract_video(str(path), tmp_path / "data", OPTIONS).status == "ok"


def test_a_video_found_unfit_in_the_middle_is_rejected(
    tmp_path: Path, make_video: MakeVideo, face: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video("x.mp4", talk(face, [n / 30 for n in range(30)]), impulse(1.1, 0.5, 16000))
    data = tmp_path / "data"
    before = extract_video(str(path), data, OPTIONS)
    assert before.status == "ok" and groups.size_of(data, before.video_id)

    monkeypatch.setattr(known, "EXTRACTOR", "next")
    monkeypatch.setattr(spans.media, "MAX_SECONDS", 0.5)
    row = extract_video(str(path), data, OPTIONS)
    assert (row.video_id, row.status) == (before.video_id, "rejected")
    assert row.reason == "longer than 0.5 s: cut it first."
    assert not groups.size_of(data, row.video_id)


def test_a_file_that_may_not_be_read_is_tried_again(
    tmp_path: Path, make_video: MakeVideo, face: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video("x.mp4", talk(face, [0, 0.04]))

    def locked(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(source.hashlib, "file_digest", locked)
    row = extract_video(str(path), tmp_path / "data", OPTIONS)
    assert (row.status, row.reason) == ("failed", "cannot be read (Permission denied).")


def test_another_spec_is_refused_and_named(demo_data: Path, talking_head: object) -> None:
    with pytest.raises(DatasetError, match=r"size 64 \(asked for: 96\)"):
        extract_video(str(talking_head.video), demo_data, Options(GroupSpec(size=96)))  # type: ignore[attr-defined]


def test_another_spec_is_refused_before_there_is_a_dataset(
    tmp_path: Path, make_video: MakeVideo, face: np.ndarray
) -> None:
    """What a killed job left is seen at the start, not when all the work is done."""
    path = make_video("x.mp4", talk(face, [n / 30 for n in range(30)]), impulse(1.1, 0.5, 16000))
    assert extract_video(str(path), tmp_path / "data", OPTIONS).status == "ok"
    with pytest.raises(DatasetError, match=r"size 64 \(asked for: 96\)"):
        known.check_spec(tmp_path / "data", GroupSpec(size=96))


def test_a_url_is_a_source(tmp_path: Path, make_video: MakeVideo, face: np.ndarray) -> None:
    path = make_video("x.mp4", talk(face, [n / 30 for n in range(30)]), impulse(1.1, 0.5, 16000))
    row = extract_video(f"file://{path}", tmp_path / "data", OPTIONS)
    assert row.status == "ok"
    again = extract_video(str(path), tmp_path / "other", OPTIONS)
    assert again.video_id == row.video_id
    gone = extract_video(f"file://{tmp_path}/none.mp4", tmp_path / "data", OPTIONS)
    assert gone.status == "failed" and "cannot be fetched" in gone.reason


# What a person who looks at and listens to the clip would say. Sound ends at 2.978 s in most, so
# that the thirtieth group (2.9 to 3.0 s) is not covered.
EDGE: dict[str, tuple[str, range, str]] = {
    "audio_only.wav": ("rejected", range(1), "no picture"),
    "audio_shorter.mp4": ("ok", range(10, 11), ""),  # 1.0 s of sound
    "empty.mp4": ("rejected", range(1), "empty"),
    "face_gap_1s.mp4": ("ok", range(17, 20), ""),  # 1 s of 2.978 s without a face
    "fps24_48k_stereo.mp4": ("ok", range(29, 30), ""),
    "fps2997.mp4": ("ok", range(29, 30), ""),
    "fps30_mono16k.mp4": ("ok", range(29, 30), ""),
    "fps60.mp4": ("ok", range(29, 30), ""),
    "mpeg4_mp3.avi": ("ok", range(29, 31), ""),  # MP3 frames in AVI reach to 3.004 s
    "noaudio.mp4": ("rejected", range(1), "no sound"),
    "noface.mp4": ("empty", range(1), "face"),
    "opus.mkv": ("ok", range(29, 30), ""),
    "rotate_meta.mp4": ("ok", range(29, 30), ""),
    "short_80ms.mp4": ("empty", range(1), "shorter than a group"),
    "silent_audio.mp4": ("ok", range(30, 31), ""),  # 3.008 s; silence is sound
    "truncated.mp4": ("rejected", range(1), "cut off"),
    "twofaces.mp4": ("ok", range(29, 30), ""),
    "vfr.mp4": ("ok", range(29, 30), ""),
    "vp8_opus.webm": ("ok", range(29, 30), ""),
}


@pytest.mark.real_clips
@pytest.mark.parametrize("crop", ["tracked", "paper"])
def test_edge_clips(clips: Path, tmp_path: Path, crop: str) -> None:
    spec = GroupSpec(crop=crop)  # type: ignore[arg-type]
    assert {path.name for path in (clips / "edge").iterdir()} == set(EDGE)
    crops = {}
    for name, (status, count, words) in EDGE.items():
        row = extract_video(str(clips / "edge" / name), tmp_path, Options(spec))
        assert (row.status, row.groups in count) == (status, True), (name, row)
        assert words in row.reason, (name, row.reason)
        assert bool(groups.size_of(tmp_path, row.video_id)) == (status == "ok")
        if status == "ok":
            slots = row.groups + sum(row.dropped.values())
            assert 30 <= slots <= 31, name
            crops[name] = rows_of(tmp_path, row)[0][:, 0].astype(float)
    # All show the same woman saying the same sentence, whatever the container, so the
    # same groups look alike. Only the second face of twofaces may be another.
    for name, frames in crops.items():
        if name != "twofaces.mp4":
            shared = frames[:9] - crops["fps30_mono16k.mp4"][: len(frames[:9])]
            assert np.abs(shared).mean() < (12 if crop == "tracked" else 25), name


@pytest.mark.real_clips
def test_two_faces_never_alternate(clips: Path, tmp_path: Path) -> None:
    row = extract_video(str(clips / "edge" / "twofaces.mp4"), tmp_path, OPTIONS)
    _, table = groups.read_groups(tmp_path, row.video_id)
    boxes = np.array(table["boxes"].to_pylist()).reshape(-1, 4)
    assert row.segments == 1 and np.ptp(boxes[:, 0]) < 30 and np.ptp(boxes[:, 2]) == 0


def test_the_ledger_is_json_that_people_can_read(demo_data: Path) -> None:
    (path,) = (demo_data / "ledger").iterdir()
    record = json.loads(path.read_text())
    assert record["status"] == "ok" and record["source"].endswith("head.mp4")
    assert {"seconds", "fps", "frames", "face_frames", "groups", "dropped"} <= set(record)


def test_a_name_that_is_no_text(tmp_path: Path, make_video: MakeVideo, face: np.ndarray) -> None:
    path = make_video("x.mp4", talk(face, [n / 30 for n in range(30)]), impulse(1.1, 0.5, 16000))
    video, data = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4"), tmp_path / "data"
    try:
        path.rename(video)
    except OSError:
        pytest.skip("this file system has no such names")
    row = extract_video(video, data, OPTIONS)
    assert row.status == "ok" and Known(data, OPTIONS).find(Source(video), video) == row


def test_a_part_of_a_video(tmp_path: Path, make_video: MakeVideo, face: np.ndarray) -> None:
    """Whole groups inside the part, at the places that they have in the whole video."""
    frames = talk(face, [n / 30 for n in range(150)], flash=2.5)
    path = make_video("x.mp4", frames, impulse(5.1, 2.51, 16000))
    part = Source(str(path), 1.95, 3.98)
    row = extract_video(part, tmp_path, OPTIONS)
    whole = extract_video(str(path), tmp_path, OPTIONS)
    found, audio, _, indices = rows_of(tmp_path, row)
    assert indices == list(range(20, 39)) and row.status == "ok"
    assert row.video_id == f"{whole.video_id}-1950-3980" and (row.start, row.end) == (1.95, 3.98)
    assert int(found.mean(axis=(1, 2, 3, 4)).argmax()) == 5
    np.testing.assert_array_equal(audio, rows_of(tmp_path, whole)[1][20:39])
    assert row.timeline == ((20, 39, "kept"),) and row.seconds == pytest.approx(1.9)
    nothing = extract_video(Source(str(path), 1.01, 1.08), tmp_path, OPTIONS)
    assert (nothing.status, nothing.groups) == ("empty", 0)


def test_what_is_known_needs_no_reading(
    tmp_path: Path, make_video: MakeVideo, face: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = [n / 30 for n in range(30)]
    path = make_video("x.mp4", talk(face, times), impulse(1.1, 0.5, 16000))
    data = tmp_path / "data"
    row = extract_video(str(path), data, OPTIONS)
    video = Source(str(path))

    def find(some: Source = video, options: Options = OPTIONS) -> LedgerRow | None:
        return Known(data, options).find(some, some.location)

    assert find(options=Options(face="central")) is None
    assert find(Source(str(path), 0.2, 0.9)) is None
    with monkeypatch.context() as patch:
        patch.setattr(source, "sha256", lambda path: pytest.fail("read"))
        patch.setattr(groups, "size_of", lambda *_: pytest.fail("a request for each video"))
        assert find() == row

    # A copy is known by its content, a touched file as well; changed content is not.
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(path.read_bytes())
    assert find(Source(str(copy))) == row
    os.utime(path, (1, 1))
    touched = dataclasses.replace(row, modified=10**9)
    assert find() == touched
    moved = Source(str(path.rename(tmp_path / "moved.mp4")))
    os.utime(moved.location, (2, 2))
    assert find(moved) == dataclasses.replace(row, modified=2 * 10**9, source=moved.location)
    with monkeypatch.context() as patch:  # only once each
        patch.setattr(source, "sha256", lambda path: pytest.fail("read"))
        assert find(moved) is not None
    Path(moved.location).rename(path)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert find() is None
    (data / "groups" / f"{row.video_id}.parquet").unlink()
    assert find(Source(str(copy))) is None


def test_the_central_face_or_the_largest(
    tmp_path: Path, make_video: MakeVideo, face: np.ndarray
) -> None:
    """A large face at the side and a small one in the middle."""
    import cv2

    picture = np.full((360, 720, 3), 90, np.uint8)
    picture[:360, :360] = cv2.resize(face, (360, 360))
    picture[100:270, 360:530] = face[:170, :170]
    frames = [(n / 30, picture) for n in range(15)]
    path = make_video("x.mp4", frames, impulse(1, 0.2, 16000))
    sides, places = {}, {}
    for choice in ("largest", "central"):
        row = extract_video(str(path), tmp_path / choice, Options(face=choice))
        _, table = groups.read_groups(tmp_path / choice, row.video_id)
        x, _, sides[choice], _ = table["boxes"][0].as_py()[:4]
        places[choice] = x + sides[choice] / 2
    assert sides["largest"] > 1.2 * sides["central"]
    assert places["largest"] == pytest.approx(158, abs=15)
    assert places["central"] == pytest.approx(472, abs=15)
