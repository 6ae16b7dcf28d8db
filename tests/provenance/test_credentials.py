"""Content credentials, tags and consent, written and read back."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from s2vgan import artifact, cache
from s2vgan.cli import main
from s2vgan.errors import ConfigError, SourceError
from s2vgan.media import encode_fragmented, read_tags, write_video, write_wav
from s2vgan.provenance import (
    Credentials,
    Detection,
    Marker,
    Origin,
    Provenance,
    read_credentials,
    sign_bytes,
    sign_file,
)

ORIGIN = Origin("small", "0.1.0", "run1", "ab" * 32, "A. Speaker, in writing", "models:/s2vgan/3")


@pytest.fixture
def movie(tmp_path: Path) -> Path:
    frames = np.random.default_rng(0).integers(0, 255, (10, 32, 32, 3)).astype(np.uint8)
    write_video(tmp_path / "movie.mp4", frames, 30, None, 16000, metadata=ORIGIN.metadata())
    return tmp_path / "movie.mp4"


def test_a_signed_file_tells_what_made_it(movie: Path) -> None:
    assert read_credentials(movie) is None
    sign_file(movie, ORIGIN)
    told = read_credentials(movie)
    assert told and told.state == "Valid"  # whole, by a certificate that nobody trusts
    assert "test certificate" in told.issuer
    assert told.source_type.endswith("/trainedAlgorithmicMedia")
    assert told.model["mlflow_run"] == "run1" and told.model["version"] == "0.1.0"
    assert told.model["consent"] == "A. Speaker, in writing"
    assert read_tags(movie)["title"] == "AI-generated talking face"  # it still opens


def test_a_change_after_signing_shows(movie: Path) -> None:
    signed = bytearray(sign_bytes(movie.read_bytes(), ORIGIN))
    signed[-20] ^= 1
    movie.write_bytes(signed)
    told = read_credentials(movie)
    assert told and told.state == "Invalid"


@pytest.mark.parametrize(
    "part", [{}, {"data": {}}, {"data": None}, {"label": "s2vgan.model", "data": ["name"]}]
)
def test_credentials_of_another_form_are_unreadable(
    movie: Path, monkeypatch: pytest.MonkeyPatch, part: dict[str, object]
) -> None:
    sign_file(movie, ORIGIN)
    manifest = {"assertions": [{"label": "c2pa.actions"} | part]}
    monkeypatch.setattr("c2pa.Reader.get_active_manifest", lambda _: manifest)
    with pytest.raises(SourceError, match="cannot be read"):
        read_credentials(movie)


def test_broken_credentials_do_not_hide_the_watermark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    movie = tmp_path / "movie.mp4"
    marked = Marker(fps=30).mark(np.full((60, 64, 64, 3), 128, np.uint8))
    write_video(movie, marked, 30, None, 16000)
    sign_file(movie, ORIGIN)
    broken = bytearray(movie.read_bytes())
    broken[broken.index(b"jumb")] ^= 1
    movie.write_bytes(broken)
    assert main(["detect", str(movie)]) == 0
    told = capsys.readouterr().out
    assert "watermark found" in told and "Content credentials: unreadable." in told
    assert main(["detect", "--json", str(movie)]) == 0
    parts = json.loads(capsys.readouterr().out)
    assert parts["credentials"] is None and "cannot be read (" in parts["unreadable"]


def test_what_a_file_tells_takes_no_line_of_its_own() -> None:
    forged = "x\nContent credentials: Trusted\r\x1b[2K\u2028\u202e\x9b1m\udc80\x7f"
    escaped = r"x\nContent credentials: Trusted\r\x1b[2K\u2028\u202e\x9b1m\udc80\x7f"
    watermark = Detection(False, 0.0, 1.0, 2.0)
    model = {"name": forged, forged: "Zoë"}
    signed = Credentials("Valid", forged, f"a/{forged}", model)
    for credentials, unreadable in ((signed, ""), (None, forged)):
        told = Provenance("x.mp4", watermark, {"comment": forged}, credentials, unreadable)
        lines = told.describe().split("\n")
        assert all(line.isprintable() for line in lines)
        assert f"comment: {escaped}" in lines
    assert len(lines) == 3
    told = Provenance("x.mp4", watermark, {}, signed, "")
    assert told.describe().split("\n")[1:] == [
        f"Content credentials: Valid, signed by {escaped}.",
        f"Source type: {escaped}",
        f"  name: {escaped}",
        f"  {escaped}: Zoë",
    ]


def test_the_test_key_is_kept_and_private(movie: Path) -> None:
    sign_file(movie, ORIGIN)
    file = cache.home() / "c2pa-test-signer.pem"
    before = file.read_bytes()
    assert file.stat().st_mode & 0o077 == 0
    sign_bytes(movie.read_bytes(), ORIGIN)
    assert file.read_bytes() == before


def test_a_configured_certificate_signs(
    movie: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pems = []
    for name in ("one", "other"):  # home-made ones stand in for bought ones
        with monkeypatch.context() as patch:
            patch.setenv("S2VGAN_CACHE", str(tmp_path / name))
            sign_bytes(movie.read_bytes(), ORIGIN)
            pems.append(str(cache.home() / "c2pa-test-signer.pem"))
    monkeypatch.setenv("S2VGAN_C2PA_CERT", pems[0])
    with pytest.raises(ConfigError, match="both"):
        sign_file(movie, ORIGIN)
    monkeypatch.setenv("S2VGAN_C2PA_KEY", pems[1])
    with pytest.raises(ConfigError, match="not the private key"):
        sign_file(movie, ORIGIN)
    monkeypatch.setenv("S2VGAN_C2PA_KEY", pems[0])
    sign_file(movie, ORIGIN)
    told = read_credentials(movie)
    assert told and told.state == "Valid"
    monkeypatch.setenv("S2VGAN_C2PA_KEY", str(tmp_path / "nowhere.pem"))
    with pytest.raises(ConfigError, match="nowhere.pem"):
        sign_file(movie, ORIGIN)


def test_without_the_library_a_sentence_says_so(
    movie: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "c2pa", None)
    with pytest.raises(ConfigError, match="pip install c2pa-python"):
        sign_file(movie, ORIGIN)
    with pytest.raises(ConfigError):
        read_credentials(movie)


def test_a_streamed_file_has_tags(tmp_path: Path) -> None:
    frames = np.zeros((30, 32, 32, 3), np.uint8)
    parts = encode_fragmented(frames, 30, None, 16000, metadata=ORIGIN.metadata())
    (tmp_path / "streamed.mp4").write_bytes(b"".join(parts))
    comment = read_tags(tmp_path / "streamed.mp4")["comment"]
    assert "Synthetic" in comment and "run1" in comment and "A. Speaker" in comment


def test_models_of_before_consent_name_nobody() -> None:
    manifest = {"name": "old", "version": "0.0.9", "mlflow_run": ""}
    origin = Origin.of(manifest | {"files": {"model.safetensors": "c" * 64}})
    assert origin.consented.endswith("nobody is named.")
    assert "consent" not in origin.c2pa("x.mp4")["assertions"][1]["data"]


def test_consent_stands_in_manifest_and_card(run_folder: Path, tmp_path: Path) -> None:
    loaded = artifact.load(run_folder)
    assert "Consent: nobody is named" in (run_folder / "model" / artifact.CARD).read_text()
    artifact.save(
        tmp_path / "model", loaded.face, loaded.config,
        name="n", dataset="", step=0, readings={}, consent="A. Speaker, in writing",
    )  # fmt: skip
    assert artifact.load(tmp_path).manifest["consent"] == "A. Speaker, in writing"
    assert "Consent: A. Speaker, in writing" in (tmp_path / "model" / artifact.CARD).read_text()


def test_training_keeps_consent(toy_data: Path, tmp_path: Path) -> None:
    """It is told once, outlives a resume, and is no part of the configuration."""
    command = [
        "train", "--data", str(toy_data), "--out", str(tmp_path / "run"), "--workers", "0",
        "--train.batch", "4", "--train.pretrain_steps", "0", "--train.evaluate_every", "1",
        "--model.width", "4",
    ]  # fmt: skip
    assert main([*command, "--steps", "1", "--consent", "A. Speaker"]) == 0
    manifest = tmp_path / "run" / "model" / "manifest.json"
    assert json.loads(manifest.read_text())["consent"] == "A. Speaker"
    assert main([*command, "--steps", "2", "--resume"]) == 0
    told = json.loads(manifest.read_text())
    assert (told["step"], told["consent"]) == (2, "A. Speaker")
    assert "A. Speaker" not in (tmp_path / "run" / "config.json").read_text()


def test_what_speak_makes_is_detected(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    speech, movie = tmp_path / "in.wav", tmp_path / "out.mp4"
    write_wav(speech, np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32))
    speak = ["speak", "--model", str(run_folder), "--audio", str(speech), "--out", str(movie)]
    assert main(speak) == 0
    assert "nobody is named" in capsys.readouterr().out
    assert main(["detect", str(movie)]) == 0
    assert "Content credentials: Valid" in capsys.readouterr().out
    assert main(["detect", "--json", str(movie)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["watermark"]["found"] and told["credentials"]["model"]["name"] == "small"
    assert told["tags"]["comment"].startswith("Synthetic")
    assert main([*speak, "--no-credentials", "--no-label"]) == 0
    capsys.readouterr()
    assert main(["detect", "--json", str(movie)]) == 0
    assert json.loads(capsys.readouterr().out)["credentials"] is None
    plain = tmp_path / "plain.mp4"
    write_video(plain, np.zeros((60, 64, 64, 3), np.uint8), 30, None, 16000)
    assert main(["detect", str(plain)]) == 1
    assert "not found" in capsys.readouterr().out
    assert main(["detect", str(tmp_path / "nowhere.mp4")]) == 2
    left = [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert not left


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nowhere"):
        read_credentials(tmp_path / "nowhere.mp4")
