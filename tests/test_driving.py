from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from s2vgan import artifact, media
from s2vgan.batches import Batch
from s2vgan.cli import main
from s2vgan.config import Config, ModelConfig
from s2vgan.dataset import GroupDataset
from s2vgan.demo import Rendered
from s2vgan.driving import read_pose
from s2vgan.errors import ConfigError, SourceError
from s2vgan.models import build_face
from s2vgan.regions import UPPER
from s2vgan.synthesis import Synthesizer

from .conftest import MakeVideo

PLAIN = ModelConfig(width=4, pose_dim=0)


@pytest.fixture(scope="module")
def dataset(demo_data: Path) -> GroupDataset:
    return GroupDataset.load(demo_data)


@pytest.fixture(scope="module")
def run(dataset: GroupDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights whose pose code was fitted on the talking head."""
    return _store(dataset, ModelConfig("no_gru", width=4), tmp_path_factory.mktemp("run"))


@pytest.fixture
def plain(dataset: GroupDataset, tmp_path: Path) -> Path:
    """A model without a pose code."""
    return _store(dataset, PLAIN, tmp_path / "plain")


def _store(dataset: GroupDataset, model: ModelConfig, folder: Path) -> Path:
    torch.manual_seed(0)
    config = Config(model=model)
    face = build_face(model, dataset.spec)
    batch = Batch.gather(dataset, np.arange(40)[None], config, torch.device("cpu"))
    face.fit(batch.frames.flatten(0, 1))
    if model.pose_dim:  # hears nothing: all that moves is the pose
        first = face.generator.get_parameter("trunk.0.weight").data
        first[: -model.pose_dim * dataset.spec.frames_per_group] = 0
    pose = face.codes.pose(batch.frames[0]).view(1, 40, 3, -1)
    for layer in face.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0  # its statistics are those of the one pass that follows
    with torch.no_grad():
        face(batch.audio, torch.randn(1, 40, model.z_dim), pose)
    artifact.save(
        folder / "model", face, config, name="head", dataset="d" * 64, step=0, readings={}
    )
    return folder


def frames_of(video: Path, size: int) -> np.ndarray:
    with av.open(str(video)) as file:
        made = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert made[0].shape[0] == size
    return np.stack(made).astype(float)


def test_the_pose_is_that_of_the_extracted_frames(
    run: Path, dataset: GroupDataset, talking_head: Rendered
) -> None:
    synthesizer = Synthesizer.load(run)
    pose = read_pose(synthesizer, talking_head.video)
    assert pose.shape == (600, 8) and pose.dtype == np.float32
    wanted = synthesizer.pose_of(dataset.frames[:].reshape(-1, *dataset.spec.frame_shape[1:]))
    ticks = (dataset.index[:, None] * 3 + np.arange(3)).ravel()
    assert len(ticks) > 550
    np.testing.assert_allclose(pose[ticks], wanted, atol=1e-5)
    np.testing.assert_array_equal(read_pose(synthesizer, str(talking_head.video), 1.0), pose)


def test_a_moving_pose_moves_the_upper_face(
    run: Path, talking_head: Rendered, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    speech = media.read_audio(talking_head.video)[: 16_000 * 3]
    media.write_wav(tmp_path / "in.wav", speech)
    arguments = ["--model", str(run), "--audio", str(tmp_path / "in.wav"), "--scale", "1"]
    still, moved = tmp_path / "still.mp4", tmp_path / "moved.mp4"
    assert main(["speak", *arguments, "--out", str(still)]) == 0
    pose = ["--pose", str(talking_head.video)]
    assert main(["speak", *arguments, *pose, "--out", str(moved)]) == 0
    assert "pose is held" not in capsys.readouterr().out
    rows, columns = UPPER.slices(64)
    # First frames of groups: untrained, the three of a group differ. Both films bear the same mark,
    # which changes over time and falls out of their difference.
    first, second = (
        frames_of(video, 64)[::3, rows, columns].astype(float) for video in (still, moved)
    )
    assert (second - first).std(0).mean() > 2


def test_a_video_that_ends_early_holds_its_last_pose(
    run: Path, talking_head: Rendered, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    media.write_wav(tmp_path / "in.wav", np.zeros(16_000 * 21, np.float32))
    arguments = ["--model", str(run), "--audio", str(tmp_path / "in.wav"), "--scale", "1"]
    out = ["--pose", str(talking_head.video), "--out", str(tmp_path / "out.mp4")]
    assert main(["speak", *arguments, *out]) == 0
    assert "head.mp4: ends after 20.0 s; its last pose is held." in capsys.readouterr().out


def test_where_no_face_is_seen_the_pose_goes_from_one_side_to_the_other(
    run: Path, talking_head: Rendered, make_video: MakeVideo
) -> None:
    with av.open(str(talking_head.video)) as file:
        shown = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)][:180]
    blank = np.full_like(shown[0], 90)
    seen = [blank if n < 15 or 60 <= n < 90 else frame for n, frame in enumerate(shown)]
    sound = np.zeros(16_000 * 6, np.float32)
    video = make_video("gap.mp4", [(n / 30, f) for n, f in enumerate(seen)], sound,
                       audio_codec="aac")  # fmt: skip
    pose = read_pose(Synthesizer.load(run), video)
    assert pose.shape == (180, 8) and np.isfinite(pose).all()
    np.testing.assert_array_equal(pose[:15], pose[:1].repeat(15, 0))
    steps = np.diff(pose[60:90], axis=0)
    np.testing.assert_allclose(steps, steps[:1].repeat(29, 0), atol=1e-4)
    assert np.abs(pose[90] - pose[59]).max() > 0.1


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("missing", "no such file"),
        ("broken", "not a video"),
        ("faceless", "no frontal face .* seen from the front"),
        ("silent", "has no sound"),
    ],
)
def test_a_video_that_gives_no_pose_is_named(
    kind: str, sentence: str, run: Path, make_video: MakeVideo, tmp_path: Path
) -> None:
    path = tmp_path / f"{kind}.mp4"
    if kind == "broken":
        path.write_bytes(b"no video at all")
    elif kind != "missing":
        frames = [(n / 30, np.full((120, 160, 3), 90, np.uint8)) for n in range(30)]
        sound: Any = None if kind == "silent" else np.zeros(16_000, np.float32)
        make_video(path.name, frames, sound, audio_codec="aac")
    with pytest.raises(SourceError, match=sentence) as raised:
        read_pose(Synthesizer.load(run), path)
    assert path.name in str(raised.value)


def test_a_model_without_a_pose_code_says_so(plain: Path, talking_head: Rendered) -> None:
    with pytest.raises(ConfigError, match="takes no pose"):
        read_pose(Synthesizer.load(plain), talking_head.video)
