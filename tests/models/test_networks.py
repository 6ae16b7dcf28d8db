import numpy as np
import pytest
import torch

from s2vgan.config import ModelConfig
from s2vgan.errors import ConfigError
from s2vgan.models import MOUTH_DIM, FaceCodes, Generator, TalkingFace, build_discriminator
from s2vgan.regions import MOUTH, UPPER
from s2vgan.spec import GroupSpec

PAPER = ModelConfig(
    z_dim=100, width=64, audio_features="waveform", audio_past=0, audio_ahead=0, audio_dropout=0,
    frame_features="shared", initial_state="zero", carry_state=False, mean_face=False, pose_dim=0,
    discriminator_gru_after=0, discriminator_state=8, spectral_norm=False,
)  # fmt: skip
SMALL = ModelConfig(width=4, audio_dropout=0)


def inputs(face: TalkingFace, batch: int, groups: int) -> tuple[torch.Tensor, ...]:
    config, spec = face.config, face.spec
    samples = spec.samples_per_group + round((config.audio_past + config.audio_ahead) * 16000)
    return (
        torch.randn(batch, groups, samples) * 0.1,
        torch.randn(batch, groups, config.z_dim),
        torch.randn(batch, groups, spec.frames_per_group, config.pose_dim),
    )


@pytest.mark.parametrize("size", [32, 64, 128, 256])
@pytest.mark.parametrize("kind", ["gru", "no_gru"])
def test_shapes_and_ranges(size: int, kind: str) -> None:
    spec = GroupSpec(size=size)
    config = ModelConfig(kind=kind, width=4)  # type: ignore[arg-type]
    face = TalkingFace(config, spec)
    frames, code, mouth = face(*inputs(face, 2, 2))
    assert frames.shape == (2, 6, 3, size, size) and frames.abs().max() < 1
    assert code.shape == (2, 2, 128) and mouth.shape == (2, 2, 3, MOUTH_DIM)
    judge = build_discriminator(config, spec)
    assert judge(frames.unflatten(1, (2, 3)).flatten(0, 1), code.flatten(0, 1)).shape == (4,)


def test_parameter_counts() -> None:
    def count(module: torch.nn.Module) -> int:
        return sum(weight.numel() for weight in module.parameters())

    face, judge = TalkingFace(PAPER, GroupSpec()), build_discriminator(PAPER, GroupSpec())
    # DCGAN's five transposed convolutions, here from 228 inputs (z and the audio code) to the 16
    # features of the ConvGRU, with BatchNorm; and the ConvGRU itself with 3 hidden channels.
    widths = [228, 512, 256, 128, 64, 16]
    trunk = sum(16 * a * b + 2 * b for a, b in zip(widths, widths[1:], strict=False))
    gru = 9 * (16 + 3) * 9 + 9
    assert count(face.generator) == trunk + gru
    assert face.generator.gru is not None and count(face.generator.gru) == gru
    # Its mirror: ConvGRU of 8 hidden channels, four convolutions, the audio code, the score.
    widths = [8, 64, 128, 256, 512]
    convolutions = sum(16 * a * b for a, b in zip(widths, widths[1:], strict=False))
    biases = 64 + 2 * (128 + 256 + 512)  # the first has no BatchNorm
    gru = 9 * (3 + 8) * 24 + 24
    assert count(judge) == gru + convolutions + biases + 128 * 128 + 128 + 16 * 640 + 1


def test_the_audio_encoder_hears_all_of_its_window() -> None:
    for config in (PAPER, SMALL):
        face = TalkingFace(config, GroupSpec(size=32)).eval()
        audio = inputs(face, 1, 1)[0].requires_grad_()
        face.encode(audio).square().sum().backward()
        assert audio.grad is not None
        heard = audio.grad[0, 0].abs().reshape(-1, 160).sum(1)
        assert (heard > 0).all()


def test_every_weight_gets_a_gradient() -> None:
    for config in (PAPER, ModelConfig(width=4), ModelConfig(kind="no_gru", width=4)):
        face = TalkingFace(config, GroupSpec(size=32))
        judge = build_discriminator(config, GroupSpec(size=32))
        frames, code, mouth = face(*inputs(face, 4, 1))
        (judge(frames, code.flatten(0, 1)).sum() + mouth.sum()).backward()
        for name, weight in [*face.named_parameters(), *judge.named_parameters()]:
            assert weight.grad is not None and weight.grad.abs().sum() > 0, name


def test_state_carries_and_audio_counts() -> None:
    torch.manual_seed(0)
    face = TalkingFace(SMALL, GroupSpec(size=32)).eval()
    audio, z, pose = inputs(face, 1, 4)
    audio *= torch.tensor([0.001, 0.1, 10.0, 1.0]).view(1, 4, 1)
    with torch.no_grad():
        for weight in face.generator.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
        whole = face(audio, z, pose)[0]
        first = face(audio[:, :1], z[:, :1], pose[:, :1])[0]
        rest = face(audio[:, 1:], z[:, 1:], pose[:, 1:], first[:, -1])[0]
        torch.testing.assert_close(torch.cat([first, rest], 1), whole, atol=1e-5, rtol=0)
        assert not torch.allclose(face(audio.flip(1), z, pose)[0], whole, atol=1e-3)


def test_the_paper_starts_every_group_anew() -> None:
    torch.manual_seed(0)
    face = TalkingFace(PAPER, GroupSpec(size=32)).eval()
    audio, z, pose = inputs(face, 2, 3)
    with torch.no_grad():
        whole = face(audio, z, pose)[0]
        alone = face(audio[:, 1:2], z[:, 1:2], pose[:, 1:2])[0]
        torch.testing.assert_close(whole[:, 3:6], alone, atol=1e-5, rtol=0)
        stated = face(audio, z, pose, torch.ones(2, 3, 32, 32))[0]
        torch.testing.assert_close(stated, whole)
    assert whole.shape == (2, 9, 3, 32, 32)


def test_a_wrong_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="48 pixels"):
        Generator(10, 48)


def test_the_ablation_ends_in_frames_at_any_width() -> None:
    generator = Generator(10, 32, width=9, gru=False)  # as many channels as 3 frames have
    convolutions = [type(layer).__name__ for layer in generator.trunk]
    assert convolutions.count("BatchNorm2d") == convolutions.count("ReLU") == 3
    assert convolutions[-1] == "ConvTranspose2d"


def test_the_discriminator_takes_any_number_of_frames() -> None:
    judge = build_discriminator(SMALL, GroupSpec(size=32))
    for frames in (1, 3, 7):
        assert judge(torch.zeros(2, frames, 3, 32, 32), torch.zeros(2, 128)).shape == (2,)


def test_face_codes_part_pose_from_mouth() -> None:
    """Frames with one known pose factor and one known mouth factor, independent of each other."""
    random = np.random.default_rng(0)
    pose, mouth = random.normal(size=(2, 400)).astype(np.float32)
    texture = torch.from_numpy(random.normal(size=(2, 64, 64)).astype(np.float32)) * 0.05
    frames = torch.zeros(400, 3, 64, 64)
    upper, lower = UPPER.slices(64), MOUTH.slices(64)
    frames[:, :, *upper] += torch.from_numpy(pose)[:, None, None, None] * texture[0][upper]
    shared = torch.from_numpy(mouth + 0.5 * pose)[:, None, None, None]
    frames[:, :, *lower] += shared * texture[1][lower]
    codes = FaceCodes(2)
    codes.fit(frames)
    found = codes.pose(frames)
    torch.testing.assert_close(found[:, 0].std(), torch.tensor(1.0), atol=1e-2, rtol=0)
    assert abs(np.corrcoef(found[:, 0], pose)[0, 1]) > 0.99
    components = codes.mouth(frames)
    assert components.shape == (400, MOUTH_DIM)
    assert abs(np.corrcoef(components[:, 1], mouth)[0, 1]) > 0.95
    assert abs(np.corrcoef(components[:, 1], pose)[0, 1]) < 0.1
    torch.testing.assert_close(codes.reference_pose, found.median(0).values)


def test_face_codes_of_a_still_head_are_finite() -> None:
    frames = torch.zeros(50, 3, 64, 64)
    frames[:, :, *MOUTH.slices(64)] = torch.rand(50, 1, 1, 1)
    codes = FaceCodes(8)
    codes.fit(frames)
    assert all(torch.isfinite(value).all() for value in codes.state_dict().values())
    assert (codes.mouth_from_pose == 0).all()
    assert torch.isfinite(codes.pose(frames)).all() and torch.isfinite(codes.mouth(frames)).all()
