"""Pictures and sound with known answers: in the right tick, and within half a sample."""

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from s2vgan import media
from tests.conftest import MakeVideo
from tests.test_media import FPS, flashing, grey, impulse

RATE = 16000
HALF = 0.5 / RATE
SLOW = {"preset": "fast", "bf": "3"}  # pictures are stored in another order than shown


def lit(path: Path) -> list[int]:
    return [tick for tick, picture in media.on_grid(path, FPS) if picture.luma.mean() > 128]


def heard(path: Path) -> float:
    """When the impulse is heard, by the peak of the match with its shape; in seconds."""
    ((first, samples),) = media.read_track(path, RATE).runs
    shape = np.exp(-0.5 * (np.arange(-40, 41) / RATE / 2.5e-4) ** 2)
    match = np.convolve(samples.astype(float), shape, "same")
    peak = int(match.argmax())
    left, top, right = np.log(match[peak - 1 : peak + 2])
    return (first + peak + 0.5 * (left - right) / (left - 2 * top + right)) / RATE


def ticks(shown: float, until: float) -> list[int]:
    """Ticks whose middle lies within a frame's time; a frame that starts just there is late."""
    return [tick for tick in range(200) if shown + 0.001 <= (tick + 0.5) / FPS < until + 0.001]


@pytest.mark.parametrize("fps", [24, 25, Fraction(30000, 1001), 30, 50, 60], ids=float)
@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_frame_rates(make_video: MakeVideo, fps: int | Fraction, container: str) -> None:
    times = [float(number / Fraction(fps)) for number in range(round(1.2 * fps))]
    flash = times[round(0.7 * fps)]
    path = make_video(
        f"x.{container}", flashing(times, flash), impulse(1.2, flash + 0.01, 44100), 44100,
        audio_codec="aac", fps=fps, options=SLOW,
    )  # fmt: skip
    assert lit(path) == ticks(flash, flash + float(1 / Fraction(fps)))
    assert heard(path) == pytest.approx(flash + 0.01, abs=HALF)


@pytest.mark.parametrize(
    ("name", "codec", "sound", "rate", "options"),
    [
        ("x.mp4", "libx264", "aac", 44100, SLOW),
        ("x.mp4", "libx264", "libmp3lame", 44100, SLOW),
        ("x.mov", "libx264", "pcm_s16le", 8000, SLOW),
        ("x.mkv", "libx264", "libopus", 48000, SLOW),
        ("x.mkv", "libx264", "libmp3lame", 22050, SLOW),
        ("x.webm", "libvpx", "libopus", 48000, {"cpu-used": "8", "deadline": "realtime"}),
        ("x.webm", "libvpx-vp9", "libopus", 48000, {"cpu-used": "8", "deadline": "realtime"}),
        ("x.avi", "mpeg4", "pcm_s16le", 11025, {}),
        ("x.avi", "mpeg4", "pcm_s16le", 44100, {"bf": "2"}),
        ("x.avi", "libx264", "pcm_s16le", 44100, SLOW),
        ("x.mpg", "mpeg1video", "mp2", 44100, {"bf": "2"}),
        ("x.mpg", "mpeg2video", "mp2", 48000, {"bf": "2"}),
        ("x.ts", "libx264", "aac", 44100, SLOW),
        ("x.ts", "mpeg2video", "mp2", 48000, {"bf": "2"}),
    ],
)
def test_containers(
    make_video: MakeVideo, name: str, codec: str, sound: str, rate: int, options: dict[str, str]
) -> None:
    """The delay of each encoder is made up for; some containers start later than at 0."""
    times = [number / 30 for number in range(36)]
    frames = flashing(times, 0.5)
    path = make_video(
        name, frames, impulse(1.2, 0.51, rate), rate, codec=codec, audio_codec=sound,
        layout="stereo", options=options,
    )  # fmt: skip
    shift = next(media.pictures(path)).time if path.suffix in (".mpg", ".ts") else 0.0
    assert lit(path) == ticks(0.5 + shift, 0.5 + 1 / 30 + shift)
    assert heard(path) == pytest.approx(0.51 + shift, abs=HALF)
    assert len(list(media.on_grid(path, FPS))) == 36


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv"])
def test_variable_rate_and_a_start_offset(make_video: MakeVideo, name: str) -> None:
    """In MP4 the offsets are edits without content."""
    times = [0.5 + n / 25 for n in range(40) if n not in (5, 6, 15, 22, 32)]
    path = make_video(
        name, flashing(times, 1.34), impulse(1.5, 0.75, RATE), audio_start=0.6,
        audio_codec="flac", options=SLOW,
    )  # fmt: skip
    assert lit(path) == ticks(1.34, 1.42)
    assert heard(path) == pytest.approx(1.35, abs=HALF)
    track = media.read_track(path, RATE)
    assert track.window(9599, 2) is None and track.window(9600, 2) is not None


def _edits(path: Path) -> list[int]:
    """Where the last entry of each edit list of an MP4 lies: its duration and media time."""
    data = path.read_bytes()
    places = [n for n in range(len(data)) if data[n : n + 4] == b"elst"]
    return [place + 12 * int.from_bytes(data[place + 8 : place + 12]) for place in places]


@pytest.mark.parametrize("cut", [0.2, 1 / 3])
def test_an_edit_list_that_cuts_the_start_off(make_video: MakeVideo, cut: float) -> None:
    """Neither cut is at a keyframe, or at the start of a packet of sound."""
    path = make_video(
        "x.mp4", flashing([n / 30 for n in range(36)], 0.5), impulse(1.2, 0.51, 48000), 48000,
        audio_codec="aac", options=SLOW,
    )  # fmt: skip
    data = bytearray(path.read_bytes())
    for place, clock in zip(_edits(path), (90_000, 48_000), strict=True):
        duration, start = struct.unpack_from(">Ii", data, place)
        struct.pack_into(
            ">Ii", data, place, duration - round(1000 * cut), start + round(clock * cut)
        )
    path.write_bytes(data)
    assert lit(path) == ticks(0.5 - cut, 0.5 - cut + 1 / 30)
    assert heard(path) == pytest.approx(0.51 - cut, abs=HALF)


@pytest.mark.parametrize("seconds", [0.6, 2.0])
def test_sound_shorter_and_longer_than_the_picture(make_video: MakeVideo, seconds: float) -> None:
    path = make_video(
        "x.mp4", flashing([n / 30 for n in range(36)], 0.4), impulse(seconds, 0.5, 32000), 32000,
        audio_codec="aac", options=SLOW,
    )  # fmt: skip
    assert lit(path) == [12] and heard(path) == pytest.approx(0.5, abs=HALF)
    assert [tick for tick, _ in media.on_grid(path, FPS)] == list(range(36))
    track, end = media.read_track(path, RATE), round(seconds * RATE)
    assert track.window(end - 10, 10) is not None and track.window(end - 10, 30) is None


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1"])
def test_sample_rates_and_channels(make_video: MakeVideo, rate: int, layout: str) -> None:
    frames = flashing([n / 30 for n in range(3)], 0)
    path = make_video("x.mkv", frames, impulse(1, 0.4321, rate), rate, layout=layout)
    assert heard(path) == pytest.approx(0.4321, abs=HALF)


@pytest.mark.parametrize(
    ("turn", "matrix"),
    [(1, (0, -1, 1, 0)), (2, (-1, 0, 0, -1)), (3, (0, 1, -1, 0))],  # counter-clockwise
)
def test_rotation(make_video: MakeVideo, turn: int, matrix: tuple[int, int, int, int]) -> None:
    picture = grey(30)
    picture[4:12, 40:60] = (200, 60, 40)
    path = make_video("x.mp4", [(0, picture), (0.04, picture)])
    data = bytearray(path.read_bytes())
    a, b, c, d = (65536 * value for value in matrix)
    place = data.index(b"tkhd") + 4 + 4 + 20 + 16
    struct.pack_into(">9i", data, place, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    found = next(media.pictures(path))
    wanted = np.rot90(picture, turn)
    assert (found.height, found.width) == found.luma.shape == wanted.shape[:2]
    whole = np.array([0, 0, 48, 48])
    for shown in (found.crop(whole, 48), found.patch(whole, 100).crop(whole, 48)):
        assert np.abs(shown.astype(int) - wanted[:48, :48]).mean() < 4
    rows, columns = np.nonzero(found.luma > 60)
    wanted_rows, wanted_columns = np.nonzero(wanted[..., 0] > 100)
    assert abs(rows.mean() - wanted_rows.mean()) < 1
    assert abs(columns.mean() - wanted_columns.mean()) < 1


def test_a_clock_that_runs_backwards_is_left_out(make_video: MakeVideo) -> None:
    """Else what a time shows or sounds like would depend on where reading starts."""
    frames = flashing([n / 30 for n in range(36)], 0.5)
    path = make_video("x.ts", frames, impulse(1.2, 0.51, 48000), 48000, audio_codec="aac")
    whole = media.read_track(path, RATE).runs
    once, twice = lit(path), path.with_name("twice.ts")
    twice.write_bytes(2 * path.read_bytes())
    assert lit(twice) == once
    ((first, samples),) = media.read_track(twice, RATE).runs
    assert first == whole[0][0] and np.array_equal(samples[:19000], whole[0][1][:19000])
    assert len(samples) < 20000
    assert len(media.read_audio(twice)) > 38000  # there, only the order counts
