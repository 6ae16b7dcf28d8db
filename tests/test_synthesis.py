import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s2vgan import artifact
from s2vgan.config import Config, LossConfig, ModelConfig, TrainConfig
from s2vgan.errors import ConfigError, RunError
from s2vgan.models import TalkingFace, build_face
from s2vgan.spec import GroupSpec
from s2vgan.synthesis import Synthesizer, enlarge
from tests.lively import liven

SPEC = GroupSpec(size=32)


def store(folder: Path, config: Config | None = None) -> Path:
    torch.manual_seed(1)
    config = config or Config(model=ModelConfig(width=4))
    face = liven(build_face(config.model, SPEC))
    artifact.save(
        folder, face, config, name="toy", dataset="d" * 64, step=7, readings={"val/score": 0.5}
    )
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store(tmp_path_factory.mktemp("run") / "model").parent


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, 8_123).astype(np.float32)


def test_speech_of_any_length_gives_whole_groups(model: Path, speech: np.ndarray) -> None:
    synthesizer = Synthesizer.load(model)
    for samples, frames in [(0, 0), (1, 3), (1600, 3), (1601, 6), (8123, 18)]:
        made = synthesizer.speak(speech[:samples])
        assert made.shape == (frames, 32, 32, 3) and made.dtype == np.uint8
    assert made.std() > 1


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(0, 8123), max_size=6))
def test_chunks_do_not_matter(model: Path, speech: np.ndarray, cuts: list[int]) -> None:
    synthesizer = Synthesizer.load(model)
    whole = synthesizer.speak(speech, seed=5).astype(int)
    stream = synthesizer.stream(seed=5)
    edges = [0, *sorted(cuts), len(speech)]
    parts = [stream.push(speech[a:b]) for a, b in zip(edges, edges[1:], strict=False)]
    made = np.concatenate([*parts, stream.finish()]).astype(int)
    assert made.shape == whole.shape and abs(made - whole).max() <= 1


def test_the_state_is_carried_and_the_stream_waits_only_for_what_it_needs(
    model: Path, speech: np.ndarray
) -> None:
    synthesizer = Synthesizer.load(model)
    stream = synthesizer.stream()
    assert len(stream.push(speech[:3199])) == 0  # a group and 0.1 s ahead are 3,200 samples
    assert len(stream.push(speech[3199:3200])) == 3
    whole = synthesizer.speak(speech)
    later = synthesizer.speak(speech[1600 * 3 :])
    assert abs(whole[9:12].astype(int) - later[:3]).max() > 1  # another past, another state


def test_seed_and_pose_count(model: Path, speech: np.ndarray) -> None:
    synthesizer = Synthesizer.load(model)
    first = synthesizer.speak(speech, seed=1)
    np.testing.assert_array_equal(first, synthesizer.speak(speech, seed=1))
    assert abs(first.astype(int) - synthesizer.speak(speech, seed=2)).max() > 10
    pose = np.full((4, 8), 3.0, np.float32)
    posed = synthesizer.speak(speech, seed=1, pose=pose)
    assert (posed != first).any()  # and the last pose is held for the 14 frames after it
    longer = np.concatenate([pose, pose[:1].repeat(14, 0)])
    np.testing.assert_array_equal(posed, synthesizer.speak(speech, seed=1, pose=longer))
    assert synthesizer.has_pose and synthesizer.pose_of(first).shape == (18, 8)


def test_a_model_of_the_paper_speaks(tmp_path: Path, speech: np.ndarray) -> None:
    paper = ModelConfig(
        z_dim=100, width=4, audio_features="waveform", audio_past=0, audio_ahead=0,
        frame_features="shared", initial_state="zero", carry_state=False, mean_face=False,
        pose_dim=0, discriminator_gru_after=0, spectral_norm=False,
    )  # fmt: skip
    config = Config(paper, LossConfig(seam=0), train=TrainConfig(sequence=1))
    face = TalkingFace(paper, SPEC)
    artifact.save(tmp_path / "model", face, config, name="paper", dataset="", step=0, readings={})
    synthesizer = Synthesizer.load(tmp_path)
    assert not synthesizer.has_pose
    whole = synthesizer.speak(speech[:8000], seed=3)
    assert whole.shape == (15, 32, 32, 3)
    stream = synthesizer.stream(seed=3)
    parts = [stream.push(speech[start : start + 1600]) for start in range(0, 8000, 1600)]
    assert [len(part) for part in parts] == [3] * 5  # it needs nothing ahead
    assert abs(np.concatenate(parts).astype(int) - whole).max() <= 1


def test_wav2pix_speaks(tmp_path: Path, speech: np.ndarray) -> None:
    wav2pix = ModelConfig(
        kind="wav2pix", z_dim=0, width=4, audio_features="waveform", audio_past=0.5,
        audio_ahead=0.5, audio_dropout=0, initial_state="zero", carry_state=False,
        mean_face=False, pose_dim=0,
    )  # fmt: skip
    train = TrainConfig(sequence=1, pretrain_steps=0)
    store(tmp_path / "model", Config(wav2pix, LossConfig(seam=0, audio=0), train))
    assert "wav2pix" in (tmp_path / "model" / "MODEL_CARD.md").read_text()
    synthesizer = Synthesizer.load(tmp_path)
    assert not synthesizer.has_pose
    said = np.tile(speech, 3)[:20_000]
    whole = synthesizer.speak(said, seed=1)
    assert whole.shape == (39, 32, 32, 3) and whole.std() > 1
    np.testing.assert_array_equal(whole, synthesizer.speak(said, seed=2))  # no noise
    stream = synthesizer.stream()
    parts = [stream.push(said[start : start + 1600]) for start in range(0, 20_000, 1600)]
    assert [len(part) for part in parts] == 5 * [0] + 7 * [3] + [0]  # it hears 0.5 s ahead
    made = np.concatenate([*parts, stream.finish()]).astype(int)
    assert made.shape == whole.shape and abs(made - whole).max() <= 1
    later = synthesizer.speak(said[1600 * 6 :])  # nothing is carried; 0.5 s of past are heard
    assert abs(later[15:].astype(int) - whole[33:]).max() <= 1


def test_the_artifact_names_its_origin(model: Path) -> None:
    loaded = artifact.load(model)
    assert loaded.spec == SPEC and loaded.config.model.width == 4 and not loaded.face.training
    manifest = loaded.manifest
    assert manifest["name"] == "toy" and manifest["step"] == 7 and manifest["dataset"] == "d" * 64
    assert set(manifest["files"]) == {"model.safetensors", "config.json", "MODEL_CARD.md"}
    assert "consent" in (model / "model" / "MODEL_CARD.md").read_text()
    assert artifact.find(model) == artifact.find(model / "model") == model / "model"


def test_a_damaged_or_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run"):
        artifact.load(tmp_path / "nothing")
    with pytest.raises(RunError, match="no model here"):
        artifact.load(tmp_path)
    folder = store(tmp_path / "model")
    weights = folder / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:-1] + b"?")
    with pytest.raises(RunError, match=r"model\.safetensors: damaged"):
        artifact.load(tmp_path)
    weights.write_bytes(good)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["spec"]["colours"] = 4
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match="not a whole model"):
        artifact.load(tmp_path)


def test_saving_again_replaces_the_model_whole(tmp_path: Path) -> None:
    folder = store(tmp_path / "model")
    before = artifact.load(tmp_path).manifest["files"]
    store(folder, Config(model=ModelConfig(width=8)))
    assert artifact.load(tmp_path).manifest["files"] != before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_enlarging() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), np.uint8)
    large = list(enlarge(frames, 3))
    assert len(large) == 2 and large[0].shape == (96, 96, 3)
    np.testing.assert_array_equal(next(enlarge(frames, 1)), frames[0])
    with pytest.raises(ConfigError, match="scale 0"):
        list(enlarge(frames, 0))
