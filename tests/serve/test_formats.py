"""What comes back, whatever the format: pictures and sound at their times, and marked."""

import io
import zipfile
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from fastapi.testclient import TestClient

from s2vgan.media import StreamWriter, read_tags
from s2vgan.provenance import detect, read_credentials, watermark_key
from serve.api import build
from serve.voices import Voice
from tests.serve.sounds import RATE, opened, refusal, service_of, sound, tone

FPS = 30


def flashes(film: bytes) -> tuple[np.ndarray, int]:
    """Times at which the picture turns bright, and how many pictures there are."""
    times, levels = [], []
    with opened(film) as decoded:
        for frame in decoded.decode(video=0):
            times.append(frame.time)
            levels.append(frame.to_ndarray(format="rgb24").mean())
    bright = np.array(levels) > 128
    return np.array(times)[np.flatnonzero(bright & ~np.r_[False, bright[:-1]])], len(times)


def clicks(film: bytes) -> tuple[np.ndarray, float]:
    """Times at which the sound sets in, and its length in seconds."""
    with opened(film) as decoded:
        frames = list(decoded.decode(audio=0))
    rate, start = frames[0].sample_rate, frames[0].time
    heard = np.concatenate([np.atleast_2d(frame.to_ndarray())[0] for frame in frames])
    loud = np.flatnonzero(np.abs(heard) > 0.3)
    return start + loud[np.r_[True, np.diff(loud) > rate / 2]] / rate, len(heard) / rate


@pytest.mark.parametrize("kind", ["mp4", "webm"])
def test_films_say_that_they_are_made(kind: str, client: TestClient, tmp_path: Path) -> None:
    path = tmp_path / f"film.{kind}"
    path.write_bytes(client.post(f"/v1/speak?format={kind}", content=sound(3)).content)
    assert "Synthetic" in " ".join(read_tags(path).values())
    assert detect(path, watermark_key()).found


@pytest.mark.parametrize("kind", ["mp4", "webm", "gif"])
def test_sound_and_picture_are_aligned_for_a_minute(kind: str) -> None:
    speech = np.zeros(60 * RATE, np.float32)
    frames = np.full((60 * FPS, 16, 16, 3), 20, np.uint8)
    moments = np.arange(1, 60, 7)
    for moment in moments:
        speech[moment * RATE :][:800] = 0.8 * np.sin(np.arange(800) * 0.4)
        frames[moment * FPS :][:3] = 240
    writer = StreamWriter(kind, FPS, speech, RATE)
    pieces = [writer.write(frames[start:][:FPS]) for start in range(0, len(frames), FPS)]
    film = b"".join([*pieces, writer.finish()])
    assert sum(bool(piece) for piece in pieces) > 50, "sent as it is made"
    seen, count = flashes(film)
    assert count == 60 * FPS and np.abs(seen - moments).max() < 0.5 / FPS
    if kind != "gif":
        heard, seconds = clicks(film)
        assert np.abs(heard - moments).max() < 0.5 / FPS
        assert 60 <= seconds < 60.1


def test_a_minute_of_speech_over_http_is_a_minute(voice: Voice) -> None:
    with TestClient(build(service_of(voice))) as client:
        film = client.post("/v1/speak?size=32", content=sound(60, "flac", "flac")).content
    with opened(film) as decoded:
        times = [frame.time for frame in decoded.decode(video=0)]
    assert len(times) == 1800 and times[0] == 0
    assert np.allclose(times, np.arange(1800) / FPS, atol=0.001)
    heard, seconds = clicks(film)
    assert heard[0] < 0.03 and 60 <= seconds < 60.1


def test_a_film_plays_before_it_is_finished(client: TestClient) -> None:
    film = client.post("/v1/speak", content=sound(4)).content
    cut = film[: film.index(b"mfra") - 4 if b"mfra" in film else len(film)]
    boxes = [cut[place + 4 : place + 8] for place in places(cut)]
    assert boxes[0] == b"ftyp" and boxes[1] == b"moov"
    assert boxes.count(b"moof") >= 4
    second = places(cut)[4]  # ftyp, moov, and the first fragment
    with av.open(io.BytesIO(cut[:second]), "r") as begun:
        assert len(list(begun.decode(video=0))) >= 20


def places(film: bytes) -> list[int]:
    """Where the boxes of an MP4 begin."""
    found, at = [], 0
    while at < len(film):
        found.append(at)
        at += int.from_bytes(film[at : at + 4], "big")
    return found


def test_a_webm_is_a_film_of_it(client: TestClient) -> None:
    answer = client.post("/v1/speak?format=webm", content=sound(1, "webm", "libopus", 48000))
    assert answer.headers["content-type"] == "video/webm"
    with opened(answer.content) as film:
        assert film.streams.video[0].codec_context.name == "vp8"
        assert film.streams.audio[0].codec_context.name == "opus"
        assert len(list(film.decode(video=0))) == 30


def test_a_gif_moves_at_its_pace(client: TestClient) -> None:
    answer = client.post("/v1/speak?format=gif&size=64", content=sound(1))
    assert answer.headers["content-type"] == "image/gif"
    with opened(answer.content) as film:
        times = [frame.time for frame in film.decode(video=0)]
    assert len(times) == 30 and times[-1] == pytest.approx(29 / FPS, abs=0.006)
    assert {round(b - a, 2) for a, b in pairwise(times)} <= {0.03, 0.04}


def pngs(answer: bytes) -> np.ndarray:
    shown = []
    with zipfile.ZipFile(io.BytesIO(answer)) as archive:
        assert archive.testzip() is None
        for name in archive.namelist():
            with av.open(io.BytesIO(archive.read(name)), "r", "png_pipe") as picture:
                shown.append(next(picture.decode(video=0)).to_ndarray(format="rgb24"))
    return np.stack(shown)


def test_frames_are_a_zip_of_what_is_said(client: TestClient, voice: Voice) -> None:
    answer = client.post("/v1/speak?format=frames&seed=2&size=64", content=sound(1))
    assert answer.headers["content-type"] == "application/zip"
    spoken = voice.synthesizer.speak(tone(1), seed=2).astype(int)
    shown = pngs(answer.content)
    assert shown.shape == (30, 64, 64, 3)
    below = shown[:, 32:, :, :].reshape(30, 16, 2, 32, 2, 3).mean((2, 4))
    assert np.abs(below - spoken[:, 16:]).mean() < 8, "scaled and marked, but the same face"


def test_a_complete_mp4_is_signed_and_not_in_fragments(client: TestClient, tmp_path: Path) -> None:
    answer = client.post("/v1/speak?stream=0", content=sound(1))
    assert answer.status_code == 200, answer.text
    film = answer.content
    boxes = [film[place + 4 : place + 8] for place in places(film)]
    assert boxes.index(b"moov") < boxes.index(b"mdat") and b"moof" not in boxes
    assert flashes(film)[1] == 30
    (tmp_path / "film.mp4").write_bytes(film)
    credentials = read_credentials(tmp_path / "film.mp4")
    assert credentials is not None and credentials.model["name"] == "small"
    refused = client.post("/v1/speak?stream=0&format=gif", content=sound(1))
    assert refused.status_code == 422 and "only an MP4" in refusal(refused)


def test_sizes_are_multiples_of_the_models(client: TestClient) -> None:
    for size in (32, 96, 512):
        answer = client.post(f"/v1/speak?size={size}", content=sound(0.3))
        with opened(answer.content) as film:
            assert (film.streams.video[0].width, film.streams.video[0].height) == (size, size)
    for asked, words in (("100", "multiple"), ("0", "size"), ("544", "multiple"), ("x", "size")):
        answer = client.post(f"/v1/speak?size={asked}", content=sound(0.3))
        assert answer.status_code == 422 and words in refusal(answer)


def test_the_label_is_off_only_where_the_operator_allows_it(voice: Voice) -> None:
    ask = "/v1/speak?format=frames&size=128"
    shown = {}
    for allowed in (False, True):
        with TestClient(build(service_of(voice, unlabelled=allowed))) as client:
            shown[allowed] = pngs(client.post(ask, content=sound(0.3)).content)
            off = client.post(f"{ask}&label=false", content=sound(0.3))
        if allowed:
            bare = pngs(off.content)
        else:
            assert off.status_code == 403 and "leave it on" in refusal(off)
    assert np.array_equal(shown[False], shown[True]), "on, if nobody says otherwise"
    differ = np.abs(shown[True].astype(int) - bare).max((0, 2, 3)) > 30
    assert differ[:32].any() and not differ[32:].any(), "the label is at the top"
