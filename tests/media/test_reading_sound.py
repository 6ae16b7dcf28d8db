from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from s2vgan import media
from s2vgan.errors import SourceError
from tests.conftest import MakeVideo
from tests.test_media import encoded, flashing


@pytest.mark.parametrize(
    ("codec", "container", "rate", "layout"),
    [
        ("pcm_s16le", "wav", 8000, "mono"),
        ("pcm_f32le", "wav", 16000, "mono"),
        ("pcm_s16le", "wav", 44100, "stereo"),
        ("pcm_s16le", "wav", 48000, "5.1"),
        ("flac", "flac", 22050, "mono"),
        ("libopus", "ogg", 48000, "stereo"),
        ("libmp3lame", "mp3", 44100, "mono"),
        ("aac", "adts", 48000, "stereo"),
    ],
)
def test_read_audio_common_formats(codec: str, container: str, rate: int, layout: str) -> None:
    samples = media.read_audio(encoded(codec, container, rate, layout))
    assert samples.dtype == np.float32
    assert len(samples) == pytest.approx(16000, abs=0.1 * 16000)
    middle = samples[4000:12000]
    peak = np.abs(np.fft.rfft(middle * np.hanning(len(middle)))).argmax() * 16000 / len(middle)
    assert peak == pytest.approx(440, abs=4)
    if layout != "5.1":  # a mixed-down 5.1 is weighted by its channels' places
        assert np.sqrt((middle**2).mean()) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


def test_read_audio_keeps_the_level() -> None:
    assert np.abs(media.read_audio(encoded("pcm_s16le", "wav", 16000))).max() < 0.51


def test_read_audio_refuses(tmp_path: Path, make_video: MakeVideo) -> None:
    empty, text = tmp_path / "empty.wav", tmp_path / "text.wav"
    empty.write_bytes(b"")
    text.write_text("no sound at all\n" * 100)
    silent = make_video("silent.mp4", flashing([0, 0.1], 0))
    header_only = encoded("pcm_s16le", "wav", 16000)[:44]
    refused: list[tuple[Path | bytes, str]] = [
        (tmp_path / "none.wav", "no such file"),
        (empty, "empty"),
        (text, "not a video or sound file"),
        (silent, "no sound"),
        (header_only, "length zero|not a video"),
    ]
    for source, words in refused:
        with pytest.raises(SourceError, match=words):
            media.read_audio(source)
    with pytest.raises(SourceError, match="longer than"):
        media.read_audio(encoded("pcm_s16le", "wav", 16000), max_seconds=0.5)


@pytest.mark.parametrize(
    ("codec", "container"), [("tta", "matroska"), ("wavpack", "matroska"), ("wavpack", "wv")]
)
def test_codecs_that_are_not_listed_are_not_decoded(
    codec: str, container: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = encoded(codec, container, 16000)

    def never(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("s2vgan.media.sound.decode_packets", never)
    with pytest.raises(SourceError, match="codec .* is not supported|not a video or sound file"):
        media.read_audio(sound)


@pytest.mark.parametrize(
    ("codec", "container"),
    [("aac", "mp4"), ("aac", "adts"), ("pcm_s16le", "wav"), ("flac", "flac")],
)
def test_damaged_sound_is_heard_or_refused(codec: str, container: str) -> None:
    whole = np.frombuffer(encoded(codec, container, 16000, "stereo"), np.uint8)
    for seed in range(60):
        random = np.random.default_rng(seed)
        damaged = whole.copy()
        places = random.integers(0, len(damaged), random.integers(1, 200))
        damaged[places] ^= random.integers(1, 256, len(places), np.uint8)
        with suppress(SourceError):
            assert len(media.read_audio(damaged.tobytes())) > 0
