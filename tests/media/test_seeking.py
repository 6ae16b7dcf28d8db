"""A part of a video or of its sound is, to the last bit, that part of the whole."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from s2vgan import media
from s2vgan.media import seek
from tests.conftest import MakeVideo
from tests.test_media import FPS, encoded, flashing, tone

X264 = "keyint=20:min-keyint=20:scenecut=0:bframes=3"
X265 = "keyint=20:min-keyint=20:bframes=4:log-level=0"
Shown = tuple[int, float, float, bytes]


def noise(count: int = 110) -> list[tuple[float, np.ndarray]]:
    """Frames that differ, and move so that prediction reaches far."""
    random = np.random.default_rng(0)
    scene = np.kron(random.integers(0, 256, (20, 26, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    frames = []
    for number in range(count):
        frame = scene[number // 2 : number // 2 + 64, number : number + 64].copy()
        frame[:8, :8] = random.integers(0, 256, (8, 8, 3))
        frames.append((number / FPS, frame))
    return frames


def shown(path: Path, first: int = 0, stop: int | None = None) -> list[Shown]:
    return [
        (
            tick,
            picture.time,
            picture.end,
            b"".join(picture._plane(number).tobytes() for number in range(3)),
        )
        for tick, picture in media.on_grid(path, FPS, first, stop)
    ]


def start(path: Path, time: float) -> float | None:
    """Where decoding starts for a time, in seconds; None for the start of the file."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        if not seek.knows(stream):
            return None
        key, _ = seek.skip(container.demux(stream), stream, time)
        return None if key is None else float(key * (stream.time_base or 0))


@pytest.mark.parametrize(
    ("name", "codec", "options", "skips"),
    [
        ("x.mp4", "libx264", {"preset": "fast", "x264-params": X264}, True),
        ("x.mkv", "libx264", {"preset": "fast", "x264-params": X264}, True),
        ("x.ts", "libx264", {"preset": "fast", "x264-params": X264}, True),
        ("x.mp4", "libx264", {"preset": "slow", "x264-params": f"{X264}:open-gop=1:ref=5"}, True),
        ("x.mkv", "libx264", {"preset": "slow", "x264-params": f"{X264}:open-gop=1:ref=5"}, True),
        ("x.mp4", "libx264", {"preset": "fast", "x264-params": f"{X264}:intra-refresh=1"}, False),
        ("x.mp4", "libx265", {"preset": "ultrafast", "x265-params": f"{X265}:open-gop=1"}, True),
        ("x.mkv", "libx265", {"preset": "ultrafast", "x265-params": f"{X265}:open-gop=0"}, True),
        ("x.webm", "libvpx", {"g": "20", "auto-alt-ref": "1", "cpu-used": "8"}, True),
        ("x.webm", "libvpx-vp9", {"g": "20", "auto-alt-ref": "1", "cpu-used": "8"}, True),
        ("x.mp4", "libsvtav1", {"g": "20", "preset": "12"}, True),
        ("x.avi", "mpeg4", {"g": "20", "bf": "2"}, False),
        ("x.mpg", "mpeg2video", {"g": "20", "bf": "2"}, False),
    ],
)
def test_any_range_is_a_part_of_the_whole(
    make_video: MakeVideo, name: str, codec: str, options: dict[str, str], skips: bool
) -> None:
    sound = "libopus" if name == "x.webm" else "mp2"
    path = make_video(
        name, noise(), tone(3.6, 48000), 48000, codec=codec, options=options, audio_codec=sound
    )
    whole = shown(path)
    assert len(whole) >= 110 and len({frame for *_, frame in whole}) >= 109
    random = np.random.default_rng(1)
    for first in [0, 1, *random.integers(31, 120, 5)]:
        stop = int(first + random.integers(1, 60))
        wanted = [item for item in whole if first <= item[0] < stop]
        assert shown(path, int(first), stop) == wanted
    later = start(path, whole[80][1])
    assert (later is not None and later > whole[50][1]) == skips
    if path.suffix != ".ts":
        assert media.probe(path).seekable == ("lib" in codec)


def test_a_damaged_keyframe_is_not_trusted(make_video: MakeVideo) -> None:
    options = {"preset": "fast", "x264-params": X264.replace("20", "50")}
    path = make_video("x.mp4", noise(), codec="libx264", options=options)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        keys = [packet for packet in container.demux(stream) if packet.is_keyframe]
        place, size = keys[1].pos, keys[1].size
        assert place is not None
    data = bytearray(path.read_bytes())
    data[place + 4] ^= 0x80  # forbidden_zero_bit: the decoder refuses the unit
    data[place + 5 : place + size] = bytes(size - 5)
    path.write_bytes(data)
    whole = shown(path)
    for first in range(82, 98, 4):
        assert shown(path, first) == [item for item in whole if item[0] >= first]


def packets(*stamps: tuple[int | None, bool]) -> Iterator[Any]:
    for pts, is_keyframe in stamps:
        yield SimpleNamespace(pts=pts, is_keyframe=is_keyframe, size=10, __bytes__=None)


@pytest.mark.parametrize(
    ("stamps", "key"),
    [
        ([(0, True), (1, False), (2, True), (3, False), (4, True), (9, False)], 4),
        ([(0, True), (2, False), (1, False), (3, True), (9, False)], 3),  # reordered
        ([(0, True), (5, True), (3, False), (4, False), (6, False), (9, False)], 5),  # open
        ([(0, True), (1, False), (1, False), (2, True), (9, False)], 0),  # one time twice
        ([(0, True), (None, False), (2, True), (9, False)], 0),  # no time
        ([(0, True), (3, False), (2, True), (9, False)], 0),  # a keyframe before others
        ([(0, True), (1, False), (4, True), (0, False), (6, True), (9, False)], 4),  # backwards
    ],
)
def test_only_a_clean_past_is_skipped(
    monkeypatch: pytest.MonkeyPatch, stamps: list[tuple[int | None, bool]], key: int
) -> None:
    monkeypatch.setattr(seek, "starts_clean", lambda stream, packet: True)
    stream, source = SimpleNamespace(time_base=1), packets(*stamps)
    found, pending = seek.skip(source, stream, 8)
    assert found == key
    rest = [(packet.pts, packet.is_keyframe) for packet in [*pending, *source]]
    assert rest == stamps[stamps.index((key, True)) :]


@pytest.mark.parametrize(
    ("name", "codec", "rate", "layout"),
    [
        ("x.mp4", "aac", 44100, "stereo"),
        ("x.mkv", "libopus", 48000, "stereo"),
        ("x.mp4", "libmp3lame", 22050, "mono"),
        ("x.avi", "pcm_s16le", 11025, "5.1"),
        ("x.mkv", "flac", 16000, "mono"),
        ("x.mkv", "ac3", 32000, "stereo"),
    ],
)
def test_a_window_of_sound_is_a_part_of_the_whole(
    make_video: MakeVideo, name: str, codec: str, rate: int, layout: str
) -> None:
    audio = np.random.default_rng(0).normal(0, 0.2, 3 * rate).astype(np.float32)
    frames = flashing([n / 30 for n in range(30)], 0)
    video = "mpeg4" if name == "x.avi" else "libx264"
    path = make_video(
        name, frames, audio, rate, codec=video, audio_codec=codec, layout=layout
    )  # fmt: skip
    for wanted in (16000, 22050):
        ((first, whole),) = media.read_track(path, wanted).runs
        assert first == 0 and len(whole) >= 2.98 * wanted
        for low, high in [(0, 1), (0.0001, 0.02), (0.9, 1.9), (1.23456, 2.34567), (2.5, 99)]:
            ((first, part),) = media.read_track(path, wanted, low, high).runs
            assert first == int(np.ceil(low * wanted))
            assert np.array_equal(part, whole[first : int(np.ceil(high * wanted))])
    assert media.read_track(path, 16000, 50, 60).runs == ()


def test_windows_of_sound_with_gaps(make_video: MakeVideo, tmp_path: Path) -> None:
    path = tmp_path / "gaps.mka"
    with av.open(str(path), "w", format="matroska") as output:
        stream: Any = output.add_stream("pcm_s16le", rate=44100, layout="mono")
        random = np.random.default_rng(0)
        for number in range(12):
            pcm = random.integers(-9000, 9000, (1, 17640), np.int16)  # 0.4 s in each 0.5 s
            frame = av.AudioFrame.from_ndarray(pcm, layout="mono")
            frame.sample_rate, frame.pts = 44100, number * 22050
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    whole = media.read_track(path, 16000)
    assert len(whole.runs) == 12
    for low, high in [(0.2, 0.7), (1.95, 4.3), (3.45, 3.47)]:
        part = media.read_track(path, 16000, low, high)
        for first in range(int(low * 16000), int(high * 16000) - 100, 37):
            found, wanted = (track.window(first, 100) for track in (part, whole))
            if found is None or wanted is None:
                assert found is wanted
            else:
                assert np.array_equal(found, wanted)
        assert sum(len(samples) for _, samples in part.runs) <= (high - low) * 16000


def test_memory_is_bounded_by_the_window(tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    media.write_wav(path, np.tile(tone(1, 44100), 300), 44100)

    def peak(low: float, high: float) -> int:
        tracemalloc.start()
        assert sum(len(samples) for _, samples in media.read_track(path, 16000, low, high).runs)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(0, 1) < 500_000 and peak(280, 281) < 500_000 < 9_000_000 < peak(0, 300)


def test_raw_sound_has_a_track(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(encoded("pcm_s16le", "wav", 16000))
    assert len(media.read_track(path, 16000, 0.25, 0.5).runs[0][1]) == 4000
