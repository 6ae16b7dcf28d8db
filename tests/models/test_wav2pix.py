import pytest
import torch

from s2vgan.config import ModelConfig
from s2vgan.errors import ConfigError
from s2vgan.models import Wav2Pix, build_discriminator, build_face
from s2vgan.models.wav2pix import Wav2PixEncoder, Wav2PixGenerator
from s2vgan.spec import GroupSpec

WAV2PIX = ModelConfig(
    kind="wav2pix", z_dim=0, width=64, audio_features="waveform", audio_past=0.5, audio_ahead=0.5,
    audio_dropout=0, initial_state="zero", carry_state=False, mean_face=False, pose_dim=0,
)  # fmt: skip
SECOND, GROUP = 16_000, 1_600


def make(spec: GroupSpec) -> Wav2Pix:
    face = build_face(WAV2PIX, spec)
    assert isinstance(face, Wav2Pix)
    return face


def nothing(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(*shape, 0), torch.zeros(*shape, 3, 0)


def count(module: torch.nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def test_parameter_counts_are_the_published_layers() -> None:
    face, judge = make(GroupSpec()), build_discriminator(WAV2PIX, GroupSpec())
    widths = [1, 16, 32, 128, 256, 512, 1024]
    convolutions = sum(15 * a * b + 2 * b for a, b in zip(widths, widths[1:], strict=False))
    linear = 4096 * 256 + 256 + 256 * 128 + 128 + 128 * 128 + 128
    assert count(face.audio_encoder) == convolutions + linear == 11_493_456
    widths = [128, 512, 256, 128, 64, 3]
    layers = sum(16 * a * b + b for a, b in zip(widths, widths[1:], strict=False))
    assert count(face.generator) == layers == 3_805_123
    assert count(face) == count(face.audio_encoder) + count(face.generator)
    widths = [3, 64, 128, 256, 512]
    layers = sum(16 * a * b + b for a, b in zip(widths, widths[1:], strict=False))
    assert count(judge) == layers + 16 * (512 + 128) + 1 == 2_766_785


@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_shapes_and_ranges(size: int) -> None:
    spec = GroupSpec(size=size)
    face, judge = make(spec), build_discriminator(WAV2PIX, spec)
    audio = torch.randn(2, 2, SECOND) * 0.1
    frames, code, mouth = face(audio, *nothing(2, 2))
    assert frames.shape == (2, 2, 3, size, size) and frames.abs().max() < 1
    assert code.shape == (2, 2, 128) and mouth is None
    pairs = frames.flatten(0, 1).unsqueeze(1)
    assert judge.features(pairs).shape == (4, 256 if size == 32 else 512, 4, 4)
    assert judge(pairs, code.flatten(0, 1)).shape == (4,)


def test_a_wrong_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="48 pixels"):
        Wav2PixGenerator(128, 48)


def test_every_weight_gets_a_gradient() -> None:
    torch.manual_seed(0)
    face, judge = make(GroupSpec(size=32)), build_discriminator(WAV2PIX, GroupSpec(size=32))
    frames, code, _ = face(torch.randn(4, 1, SECOND) * 0.1, *nothing(4, 1))
    judge(frames.flatten(0, 1).unsqueeze(1), code.flatten(0, 1)).sum().backward()
    for name, weight in [*face.named_parameters(), *judge.named_parameters()]:
        assert weight.grad is not None and weight.grad.abs().sum() > 0, name


def test_the_encoder_hears_the_whole_second_and_no_loudness() -> None:
    torch.manual_seed(0)
    encoder = Wav2PixEncoder(SECOND, 128).eval()
    audio = (torch.randn(1, SECOND) * 0.1).requires_grad_()
    encoder(audio).square().sum().backward()
    assert audio.grad is not None
    assert (audio.grad.abs().reshape(-1, 100).sum(1) > 0).all()
    with torch.no_grad():
        torch.testing.assert_close(encoder(audio), encoder(0.3 * audio), atol=1e-5, rtol=1e-4)
        assert torch.isfinite(encoder(torch.zeros(1, SECOND))).all()  # silence has no maximum


@pytest.mark.parametrize("fps", [30, 25])
def test_each_frame_hears_the_second_around_its_middle(fps: int) -> None:
    torch.manual_seed(0)
    spec = GroupSpec(size=32, fps=fps)
    face = make(spec).eval()
    length = spec.window(0.5, 0.5)[1]
    for frame in range(3):
        audio = (torch.randn(1, 2, length) * 0.1).requires_grad_()
        face.speak(audio, *nothing(1, 2))[0, 3 + frame].square().sum().backward()
        assert audio.grad is not None and (audio.grad[0, 0] == 0).all()  # of the second group
        heard = audio.grad[0, 1].nonzero().flatten() - SECOND // 2  # from the group's start on
        middle = (frame + 0.5) / fps * SECOND
        assert abs(int(heard[0]) - (middle - SECOND / 2)) <= 8
        assert abs(int(heard[-1]) - (middle + SECOND / 2)) <= 8


def test_a_lesson_is_the_middle_frame_and_its_second() -> None:
    face = make(GroupSpec(size=32)).eval()
    audio, frames = torch.randn(2, 2, SECOND + GROUP) * 0.1, torch.rand(2, 6, 3, 32, 32)
    window, taught = face.lesson(audio, frames)
    assert torch.equal(window, audio[..., GROUP // 2 : GROUP // 2 + SECOND])
    assert torch.equal(taught, frames[:, [1, 4]])
    with torch.no_grad():  # what is spoken is what was trained
        spoken = face.speak(audio, *nothing(2, 2))
        torch.testing.assert_close(
            spoken[:, [1, 4]], face(window, *nothing(2, 2))[0], atol=1e-5, rtol=0
        )


def test_nothing_is_carried_and_nothing_is_random() -> None:
    face = make(GroupSpec(size=32)).eval()
    audio = torch.randn(1, 3, SECOND + GROUP) * 0.1
    with torch.no_grad():
        whole = face.speak(audio, *nothing(1, 3))
        assert torch.equal(whole, face.speak(audio, *nothing(1, 3), torch.ones(1, 3, 32, 32)))
        alone = face.speak(audio[:, 1:2], *nothing(1, 1))
        torch.testing.assert_close(whole[:, 3:6], alone, atol=1e-5, rtol=0)
