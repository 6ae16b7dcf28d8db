import re
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from s2vgan import artifact
from s2vgan.errors import RunError
from s2vgan.media import read_audio
from s2vgan.provenance import Marker
from s2vgan.synthesis import enlarge
from serve.api import build
from serve.pictures import SCALE
from serve.voices import Voice
from tests.serve.sounds import RATE, opened, refusal, service_of, sound


@pytest.mark.parametrize(
    ("kind", "codec"),
    [("wav", "pcm_s16le"), ("flac", "flac"), ("ogg", "libopus"), ("mp3", "libmp3lame")],
)
def test_speech_comes_back_as_a_movie_of_it(kind: str, codec: str, client: TestClient) -> None:
    answer = client.post("/v1/speak", content=sound(1.25, kind, codec, 48000))
    assert answer.status_code == 200 and answer.headers["content-type"] == "video/mp4"
    with opened(answer.content) as movie:
        video, audio = movie.streams.video[0], movie.streams.audio[0]
        assert video.codec_context.name == "h264" and audio.codec_context.name == "aac"
        assert (video.width, video.height, video.average_rate) == (4 * 32, 4 * 32, 30)
    with opened(answer.content) as movie:
        frames = [frame.time for frame in movie.decode(video=0)]
    assert frames[0] == 0
    assert len(frames) % 3 == 0 and 1.25 <= len(frames) / 30 < 1.5  # whole groups
    with opened(answer.content) as movie:
        heard = [frame.to_ndarray()[0] for frame in movie.decode(audio=0)]
    assert 1.2 < sum(map(len, heard)) / RATE < 1.5 and np.abs(np.concatenate(heard)).max() > 0.1


def test_the_movie_is_what_the_model_says(client: TestClient, voice: Voice) -> None:
    body = sound(2.5)
    shown, made = {}, {}
    for seed in (0, 3):
        answer = client.post(f"/v1/speak?seed={seed}", content=body)
        with opened(answer.content) as movie:
            frames = [frame.to_ndarray(format="rgb24") for frame in movie.decode(video=0)]
        shown[seed] = np.stack(frames).astype(float)
        spoken = voice.synthesizer.speak(read_audio(body), seed=seed)
        made[seed] = np.stack(list(Marker().mark(enlarge(spoken, SCALE)))).astype(float)
        assert shown[seed].shape == made[seed].shape
    for seed, other in ((0, 3), (3, 0)):
        own = np.abs(shown[seed] - made[seed]).mean()
        assert own < np.abs(shown[seed] - made[other]).mean(), "of another seed"
        assert own < np.abs(shown[seed] - made[seed][::-1]).mean(), "backwards"


def test_bad_sound_is_refused_with_a_sentence(client: TestClient) -> None:
    cases = {
        b"": "empty",
        b"this is a text, not a sound": "not a video or sound file",
        b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x80>\0\0\0}\0\0\2\0\x10\0data\0\0\0\0": "zero",
    }
    for body, words in cases.items():
        answer = client.post("/v1/speak", content=body)
        assert answer.status_code == 422
        assert words in refusal(answer)


def test_what_is_too_large_or_too_long_is_refused(client: TestClient) -> None:
    answer = client.post("/v1/speak", content=b"0" * 200_001)
    assert answer.status_code == 413 and "larger than" in refusal(answer)
    undeclared = client.post("/v1/speak", content=iter([b"0" * 150_000, b"0" * 150_000]))
    assert undeclared.status_code == 413
    long = client.post("/v1/speak", content=sound(6, "flac", "flac"))
    assert long.status_code == 422 and "longer than 5 s" in refusal(long)


def test_a_file_is_taken_whatever_it_is_called(client: TestClient) -> None:
    for kind in ("application/x-www-form-urlencoded", "application/octet-stream", "text/plain"):
        answer = client.post("/v1/speak", content=sound(0.5), headers={"Content-Type": kind})
        assert answer.status_code == 200, kind  # the first is what curl --data-binary says


def test_a_form_is_told_how_to_send_the_file(client: TestClient) -> None:
    answer = client.post("/v1/speak", files={"file": ("in.wav", sound(0.5))})
    assert answer.status_code == 415 and "--data-binary" in refusal(answer)


def test_wrong_requests_are_problems_too(client: TestClient) -> None:
    assert client.get("/v1/speak").status_code == 405
    assert "does not answer GET" in refusal(client.get("/v1/speak"))
    assert "/docs" in refusal(client.get("/nothing"))
    answer = client.post("/v1/speak?seed=x", content=sound(0.5))
    assert answer.status_code == 422 and "query.seed" in refusal(answer)


def test_a_bug_is_a_problem_without_its_insides(
    voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret of the house")

    monkeypatch.setattr("serve.batching.advance", broken)
    with TestClient(build(service_of(voice))) as client:
        answer = client.post("/v1/speak", content=sound(0.5), headers={"X-Request-ID": "mine"})
        page = client.get("/metrics").text
    assert answer.status_code == 500 and "secret" not in refusal(answer)
    assert answer.headers["X-Request-ID"] == "mine"
    assert 'path="/v1/speak",replica="local",status="500"} 1.0' in page


def test_the_model_says_what_it_is(client: TestClient, run_folder: Path) -> None:
    card = client.get("/v1/model").json()
    assert card["name"] == "small" and card["version"] is None
    assert card["reference"] == str(run_folder) and card["engine"] == "torch"
    assert card["spec"]["size"] == 32 and card["dataset"] == "d" * 64
    assert card["sha256"] == artifact.load(run_folder).manifest["files"]["model.safetensors"]
    assert client.get("/healthz").json() == {"status": "ok"}
    assert client.get("/readyz").json()["status"] == "ready"


def test_onnx_runtime_says_the_same(voice: Voice, run_folder: Path) -> None:
    other = Voice.load(str(run_folder), engine="onnx")
    with TestClient(build(service_of(other))) as client:
        assert client.get("/v1/model").json()["engine"] == "onnx"
    speech = np.random.default_rng(0).normal(0, 0.1, 8_000).astype(np.float32)
    made, wanted = (one.synthesizer.speak(speech).astype(int) for one in (other, voice))
    assert np.abs(made - wanted).max() <= 1
    assert np.abs(made - other.synthesizer.speak(speech, seed=1)).max() > 10, "seeds count"


def test_a_registered_model_names_its_version(voice: Voice) -> None:
    card = Voice(voice.synthesizer, "models:/s2vgan/3", "onnx").card()
    assert (card["name"], card["version"]) == ("s2vgan", "3")


def test_the_documented_interface(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert {"/v1/speak", "/v1/model", "/healthz", "/readyz", "/metrics"} == set(paths)
    assert "video/mp4" in paths["/v1/speak"]["post"]["responses"]["200"]["content"]
    for page in ("/docs", "/"):
        text = client.get(page).text
        assert not re.search(r"https?://|src=[\"']?//|@import", text), "asks nobody else"


def test_the_page_asks_nobody_else(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "v1/speak" in page.text and "v1/model" in page.text
    assert not re.search(r"https?://|src=[\"']?//|@import", page.text)
    assert "default-src 'none'" in page.text


def test_no_model_no_voice(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no model here"):
        Voice.load(str(tmp_path))
