import io
import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from s2vgan import media
from s2vgan.errors import SourceError
from s2vgan.media import files, sound
from tests.conftest import MakeVideo

FPS = 30


def grey(value: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    return np.full((*size, 3), value, np.uint8)


def flashing(times: list[float], flash: float) -> list[tuple[float, np.ndarray]]:
    """Dark frames at the times, a bright one at ``flash``."""
    return [(time, grey(235 if abs(time - flash) < 1e-6 else 16)) for time in times]


def impulse(seconds: float, at: float, rate: int) -> np.ndarray:
    """Silence with a short smooth impulse whose middle is at ``at`` seconds."""
    time = np.arange(round(seconds * rate)) / rate
    return (0.9 * np.exp(-0.5 * ((time - at) / 2.5e-4) ** 2)).astype(np.float32)


def centre(samples: np.ndarray, rate: int = 16000) -> float:
    """Time of an impulse: the centre of its energy."""
    energy = samples.astype(float) ** 2
    return float((energy * np.arange(len(energy))).sum() / energy.sum()) / rate


def tone(seconds: float, rate: int = 16000) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)).astype("f4")


def encoded(codec: str, container: str, rate: int, layout: str = "mono") -> bytes:
    """1 s of a 440 Hz tone at half of full scale, on all channels."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=rate, layout=layout)
        channels = av.AudioLayout(layout).nb_channels
        frame = av.AudioFrame.from_ndarray(
            np.repeat(tone(1, rate)[None], channels, 0), format="fltp", layout=layout
        )
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        for part in av.AudioResampler(stream.format.name, layout, rate).resample(frame):
            output.mux(stream.encode(part))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def test_videos_of_a_codec_that_is_not_listed(make_video: MakeVideo) -> None:
    frames = flashing([0, 0.1], 0)
    path = make_video("x.avi", frames, tone(0.2), codec="huffyuv", pix_fmt="yuv422p")
    with pytest.raises(SourceError, match="its codec huffyuv is not supported; convert it"):
        media.probe(path)
    with pytest.raises(SourceError, match="its codec huffyuv is not supported"):
        next(media.pictures(path))
    path = make_video("y.mkv", frames, tone(0.2), audio_codec="wavpack")
    with pytest.raises(SourceError, match="its codec wavpack is not supported"):
        media.probe(path)
    with pytest.raises(SourceError, match="its codec wavpack is not supported"):
        media.read_track(path, 16000)


def test_the_limit_is_for_all_runs_together(make_video: MakeVideo, tmp_path: Path) -> None:
    """A gap in the timestamps does not start the count again."""
    path = tmp_path / "gaps.mka"
    with av.open(str(path), "w", format="matroska") as output:
        stream: Any = output.add_stream("pcm_s16le", rate=16000, layout="mono")
        for number in range(10):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.int16), layout="mono")
            frame.sample_rate, frame.time_base = 16000, Fraction(1, 16000)
            frame.pts = number * 16000  # 0.1 s of sound in each second
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    assert len(media.read_audio(path, max_seconds=1)) == 16000
    with pytest.raises(SourceError, match=r"longer than 0\.9 s"):
        media.read_audio(path, max_seconds=0.9)


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("fragmented", [False, True])
def test_written_sound_and_picture_start_together(
    tmp_path: Path, rate: int, fragmented: bool
) -> None:
    path = tmp_path / "x.mp4"
    frames = [picture for _, picture in flashing([n / FPS for n in range(60)], 1.0)]
    audio = impulse(2, 1.0, rate)
    if fragmented:
        path.write_bytes(b"".join(media.encode_fragmented(frames, FPS, audio, rate)))
    else:
        media.write_video(path, frames, FPS, audio, rate)
    shown = list(media.pictures(path))
    assert [round(picture.time, 3) for picture in shown if picture.luma.mean() > 128] == [1.0]
    assert shown[0].time == 0
    heard = media.read_track(path, 16000).window(0, 31900)
    assert heard is not None
    assert centre(heard) == pytest.approx(1.0, abs=5e-4)


def test_write_video_odd_size(tmp_path: Path) -> None:
    path = tmp_path / "odd.mp4"
    media.write_video(path, [grey(90, (47, 65))] * 3, FPS, None, 16000)
    picture = next(media.pictures(path))
    assert (picture.height, picture.width) == (48, 66)
    assert picture.crop(np.array([0, 0, 66, 48]), 16).mean() == pytest.approx(90, abs=2)


@pytest.mark.parametrize("codecs", [media.h264(), media.QUICK])
def test_write_video_keeps_colours(tmp_path: Path, codecs: media.Codecs) -> None:
    """Stripes of several colours, each an odd number of pixels away from the grid of chroma."""
    colours = np.array([[200, 40, 30], [30, 180, 60], [40, 60, 210], [240, 240, 240], [8, 8, 8]])
    picture = np.repeat(colours.astype(np.uint8), 21, axis=0)[None].repeat(64, axis=0)[:, :104]
    path = tmp_path / "x.mp4"
    media.write_video(path, [picture] * 3, FPS, None, 16000, codecs=codecs)
    shown = next(media.pictures(path)).crop(np.array([0, 0, 104, 64]), 104)
    for number, colour in enumerate(colours):
        middle = shown[52, 21 * number + 10].astype(int)
        assert np.abs(middle - colour).max() <= 5


def test_write_video_whole_or_not_at_all(tmp_path: Path) -> None:
    def torn() -> Iterator[np.ndarray]:
        yield grey(0)
        raise RuntimeError("the model broke")

    path = tmp_path / "x.mp4"
    path.write_bytes(b"before")
    with pytest.raises(RuntimeError):
        media.write_video(path, torn(), FPS, None, 16000)
    with pytest.raises(ValueError):
        media.write_video(path, [], FPS, None, 16000)
    assert [item.name for item in tmp_path.iterdir()] == ["x.mp4"]
    assert path.read_bytes() == b"before"


def test_fragments_come_before_the_frames_end() -> None:
    taken = itertools.count()
    frames = (grey(next(taken) % 200) for _ in range(150))
    next(media.encode_fragmented(frames, FPS, tone(5), 16000))
    assert next(taken) < 120


@pytest.mark.parametrize(
    ("times", "ticks"),
    [
        # 30 frames/s, timestamps rounded to milliseconds as in Matroska
        ([round(n / 30, 3) for n in range(6)], [0, 1, 2, 3, 4, 5]),
        ([n / 60 for n in range(12)], [0, 2, 4, 6, 8, 10]),
        ([n / 25 for n in range(5)], [0, 1, 2, 2, 3, 4]),
        ([n / 24 for n in range(5)], [0, 1, 1, 2, 3, 4]),
        # variable rate: the frame at 0.04 stays until 0.14
        ([0, 0.04, 0.14, 0.18], [0, 1, 1, 1, 2, 3]),
    ],
)
def test_grid_shows_the_frame_in_the_middle_of_each_tick(
    make_video: MakeVideo, times: list[float], ticks: list[int]
) -> None:
    frames = [(time, grey(20 + 16 * number)) for number, time in enumerate(times)]
    path = make_video("x.mp4", [*frames, (times[-1] + 1 / 25, grey(250))])
    found = [
        (tick, round((float(picture.crop(np.array([0, 0, 64, 48]), 16).mean()) - 20) / 16))
        for tick, picture in media.on_grid(path, FPS)
    ]
    assert found[: len(ticks)] == list(enumerate(ticks))


def test_grid_honours_a_start_offset(make_video: MakeVideo) -> None:
    path = make_video("late.mkv", flashing([0.5 + n / 30 for n in range(10)], 0.6))
    found = list(media.on_grid(path, FPS))
    assert found[0][0] == 15
    assert [tick for tick, picture in found if picture.luma.mean() > 128] == [18]


def test_grid_leaves_a_freeze_out(make_video: MakeVideo) -> None:
    path = make_video("freeze.mp4", flashing([0, 1 / 30, 2, 2 + 1 / 30], 0))
    ticks = [tick for tick, _ in media.on_grid(path, FPS)]
    assert 8 in ticks and 30 not in ticks and 60 in ticks


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("layout", ["mono", "stereo"])
def test_track_is_right_within_half_a_sample(make_video: MakeVideo, rate: int, layout: str) -> None:
    frames = flashing([n / 30 for n in range(30)], 0)
    path = make_video("x.mkv", frames, impulse(1, 0.4321, rate), rate, layout=layout)
    samples = media.read_track(path, 16000).window(0, 16000)
    assert samples is not None
    assert centre(samples) == pytest.approx(0.4321, abs=0.5 / 16000)


def test_track_starts_late_and_ends_early(make_video: MakeVideo) -> None:
    frames = flashing([n / 30 for n in range(30)], 0)
    path = make_video("x.mkv", frames, impulse(0.5, 0.1, 16000), audio_start=0.25)
    track = media.read_track(path, 16000)
    assert track.window(3999, 10) is None
    assert track.window(4000, 8000) is not None
    assert track.window(4001, 8000) is None
    samples = track.window(4000, 8000)
    assert samples is not None
    assert centre(samples) + 0.25 == pytest.approx(0.35, abs=0.5 / 16000)


def test_aac_track_ends_where_the_file_says(make_video: MakeVideo) -> None:
    """The last AAC packet is filled up; the filling is not sound."""
    frames = flashing([n / 30 for n in range(30)], 0)
    path = make_video("x.mp4", frames, tone(0.98), audio_codec="aac")
    track = media.read_track(path, 16000)
    assert track.window(0, 15680) is not None
    assert track.window(0, 15700) is None


@pytest.mark.parametrize("matrix", [1, 6])
@pytest.mark.parametrize("color_range", [1, 2])
@pytest.mark.parametrize("box", [(10, 6, 32, 32), (11, 7, 33, 33)])
def test_crop_uses_the_frames_own_colours(
    make_video: MakeVideo, matrix: int, color_range: int, box: tuple[int, int, int, int]
) -> None:
    """Whatever matrix and range a file uses, the colours that were put in come out."""
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:24, :32], picture[:24, 32:] = (200, 60, 40), (40, 180, 60)
    picture[24:, :32], picture[24:, 32:] = (50, 60, 190), (220, 210, 60)
    path = make_video(
        "x.mp4", [(0, picture), (0.04, picture)], matrix=matrix, color_range=color_range
    )
    crop = next(media.pictures(path)).crop(np.array(box), 32)
    for row, column in [(3, 3), (3, 28), (28, 3), (28, 28)]:
        wanted = picture[box[1] + row, box[0] + column].astype(int)
        assert np.abs(crop[row, column].astype(int) - wanted).max() <= 8


@pytest.mark.parametrize("pix_fmt", ["yuv422p", "yuv444p", "yuv420p10le"])
def test_crop_of_other_pixel_formats(make_video: MakeVideo, pix_fmt: str) -> None:
    colour = np.array([180, 90, 60], np.uint8)
    picture = np.broadcast_to(colour, (48, 64, 3)).copy()
    path = make_video("x.mp4", [(0, picture), (0.04, picture)], pix_fmt=pix_fmt)
    crop = next(media.pictures(path)).crop(np.array([5, 5, 31, 31]), 16)
    assert np.abs(crop.astype(int) - colour).max() <= 4


@pytest.mark.parametrize("size", [(64, 96), (720, 1280)])
@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"), [("x.mov", "png", "rgb24"), ("x.mkv", "ffv1", "bgr0")]
)
def test_crop_of_rgb(
    make_video: MakeVideo, name: str, codec: str, pix_fmt: str, size: tuple[int, int]
) -> None:
    """It has no matrix, so that none is guessed from the size of the picture."""
    pixels = np.full((*size, 3), (200, 60, 40), np.uint8)
    path = make_video(name, [(0, pixels), (0.04, pixels)], codec=codec, pix_fmt=pix_fmt)
    found = next(media.pictures(path)).crop(np.array([8, 8, 32, 32]), 16)
    assert np.abs(found.astype(int) - (200, 60, 40)).max() <= 2


def test_crop_takes_the_right_place(make_video: MakeVideo) -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[10:20, 30:40] = 255
    path = make_video("x.mp4", [(0, picture), (0.04, picture)])
    crop = next(media.pictures(path)).crop(np.array([25, 5, 20, 20]), 40)
    assert crop[12:28, 12:28].min() > 200
    assert crop[:8].max() < 60 and crop[:, 32:].max() < 60


def test_probe(make_video: MakeVideo, tmp_path: Path) -> None:
    path = make_video("x.mp4", flashing([n / 25 for n in range(25)], 0), tone(1))
    found = media.probe(path)
    assert (found.width, found.height, found.fps) == (64, 48, pytest.approx(25, abs=1))
    with pytest.raises(SourceError, match="no sound"):
        media.probe(make_video("silent.mp4", flashing([0, 0.1], 0)))
    wav = tmp_path / "x.wav"
    wav.write_bytes(encoded("pcm_s16le", "wav", 16000))
    with pytest.raises(SourceError, match="no picture"):
        media.probe(wav)


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXTINF:10,\nhttp://localhost/secret.ts\n",
        "ffconcat version 1.0\nfile '/etc/hostname'\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=video 5004 RTP/AVP 96\n",
    ],
)
def test_playlists_are_no_videos(tmp_path: Path, text: str) -> None:
    path = tmp_path / "playlist.mp4"
    path.write_text(text)
    with pytest.raises(SourceError, match="not a video"):
        media.probe(path)


def test_reading_gives_signs_of_life(
    make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the hours before a span, read for its sound, would be taken for a hang."""
    frames, signs = flashing([n / 30 for n in range(36)], 0), []
    path = make_video("x.mkv", frames, tone(1.2, 16000), audio_codec="aac")
    monkeypatch.setattr(files, "_PROGRESS", 4)
    monkeypatch.setattr(files, "progress", lambda: signs.append(1))
    media.read_track(path, 16000, 1.1, 1.2)
    assert len(signs) >= 3
    del signs[:]
    next(media.on_grid(path, FPS, 35))
    assert len(signs) >= 3


@pytest.mark.parametrize("place", ["demux", "resample"])
def test_a_memory_limit_is_no_damage(
    make_video: MakeVideo, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    path = make_video("x.mkv", flashing([n / 30 for n in range(3)], 0), tone(1, 48000), 48000)

    def full(*_: object, **__: object) -> Iterator[None]:
        raise av.error.MemoryError(12, "Cannot allocate memory")

    container = SimpleNamespace(demux=lambda stream: (full() for _ in range(1)))
    monkeypatch.setattr(sound.av, "AudioResampler", lambda **_: SimpleNamespace(resample=full))
    with pytest.raises(MemoryError):
        if place == "demux":
            list(files.read_packets(container, None))
        else:
            media.read_track(path, 16000)


@pytest.mark.real_clips
def test_rotation_is_honoured(clips: Path) -> None:
    """The clip is stored upright at 288x360 and says: turn me."""
    picture = next(media.pictures(clips / "edge" / "rotate_meta.mp4"))
    assert (picture.width, picture.height) == picture.luma.shape[::-1] == (360, 288)
    upright = next(media.pictures(clips / "edge" / "fps30_mono16k.mp4"))
    assert np.corrcoef(picture.luma.ravel(), upright.luma.ravel())[0, 1] > 0.98
    box = np.array([101, 75, 155, 155])
    difference = picture.crop(box, 64).astype(int) - upright.crop(box, 64)
    assert np.abs(difference).mean() < 6
