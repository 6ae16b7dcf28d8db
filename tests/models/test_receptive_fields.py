"""What of the input reaches what of the output, and how many weights there are, by conf/*.yaml."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn

from s2vgan.config import Config
from s2vgan.models import MOUTH_DIM, TalkingFace, build_discriminator, build_face
from s2vgan.spec import GroupSpec

CONF = Path(__file__).parents[2] / "conf"
RECIPES = {
    name: Config.from_dict(yaml.safe_load((CONF / f"{name}.yaml").read_text())).model
    for name in ("base", "paper")
}
SPEC, SMALL = GroupSpec(), GroupSpec(size=32)


def made(name: str, spec: GroupSpec = SMALL) -> TalkingFace:
    torch.manual_seed(0)
    face = build_face(RECIPES[name], spec)
    assert isinstance(face, TalkingFace)
    return face.eval()  # in training BatchNorm and dropout tie a batch together


def inputs(face: TalkingFace, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    config = face.config
    _, samples = face.spec.window(config.audio_past, config.audio_ahead)
    parts = torch.randn(1, groups, samples) * 0.1, torch.randn(1, groups, config.z_dim)
    return *(part.requires_grad_() for part in parts), torch.randn(1, groups, 3, config.pose_dim)  # type: ignore[return-value]


def reached(output: Tensor, x: Tensor) -> Tensor:
    """Where x has any influence on the output."""
    (gradient,) = torch.autograd.grad(output.square().sum(), x, retain_graph=True)
    return gradient != 0


def count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def layers(kernel: int, channels: list[int], each: int) -> int:
    """Weights of convolutions, and ``each`` per output: 1 for a bias, 2 for BatchNorm."""
    pairs = zip(channels, channels[1:], strict=False)
    return sum(kernel * a * b + each * b for a, b in pairs)


def gru(inputs: int, hidden: int) -> int:
    return 9 * (inputs + hidden) * 3 * hidden + 3 * hidden


def test_the_weights_of_base() -> None:
    face, judge = made("base", SPEC), build_discriminator(RECIPES["base"], SPEC)
    # 0.5 s at a hop of 10 ms are 51 frames of log-mel, halved three times to 7.
    encoder = layers(5, [64, 128, 128, 128], 2) + 7 * 128 * 128 + 128
    assert count(face.audio_encoder) == encoder == 320_384
    # z, the audio code and 3 pose codes of 8; 16 features for each of 3 frames; the mean face.
    trunk = layers(16, [16 + 128 + 3 * 8, 256, 128, 64, 32, 3 * 16], 2)
    generator = trunk + gru(16, 3) + 3 * 64 * 64
    assert count(face.generator) == generator == 1_415_724
    assert count(face) == encoder + generator + 128 * 3 * MOUTH_DIM + 3 * MOUTH_DIM
    picture = layers(16, [3, 32, 64, 128, 256], 1)
    picture -= 16 * (64 - 32) * 128  # the third reads the ConvGRU's state of 32 channels
    judged = picture + gru(64, 32) + 128 * 128 + 128 + 16 * (256 + 128) + 1
    assert count(judge) == judged == 730_305


def test_the_weights_of_paper() -> None:
    face, judge = made("paper", SPEC), build_discriminator(RECIPES["paper"], SPEC)
    # 1,600 samples, a quarter of them after each of four convolutions: 7.
    encoder = layers(15, [1, 16, 32, 64, 128], 2) + 7 * 128 * 128 + 128
    assert count(face.audio_encoder) == encoder == 276_816
    assert count(face.generator) == layers(16, [228, 512, 256, 128, 64, 16], 2) + gru(16, 3)
    assert count(face.generator) == 4_640_172
    assert count(judge) == 2_791_713  # its sum is in test_networks


@pytest.mark.parametrize("name", RECIPES)
def test_a_code_hears_its_own_window_and_all_of_it(name: str) -> None:
    face = made(name)
    audio = inputs(face, 3)[0]
    heard = reached(face.encode(audio)[:, 1], audio)[0]
    assert not heard[[0, 2]].any()
    # The Hann window of a spectrum is 0 at its first sample, and the first frame is centred on 0.
    assert heard[1].float().mean() > 0.99


@pytest.mark.parametrize("name", RECIPES)
def test_the_discriminator_sees_every_pixel_of_every_frame(name: str) -> None:
    torch.manual_seed(0)
    judge = build_discriminator(RECIPES[name], SMALL).eval()
    frames = torch.rand(2, 3, 3, 32, 32).requires_grad_()
    code = torch.randn(2, 128).requires_grad_()
    logits = judge(frames, code)
    assert reached(logits[0], frames)[0].all() and reached(logits[0], code)[0].all()
    assert not reached(logits[0], frames)[1].any() and not reached(logits[0], code)[1].any()


@pytest.mark.parametrize("name", RECIPES)
def test_a_frame_knows_what_came_before_it_by_the_state_alone(name: str) -> None:
    face = made(name)
    audio, z, pose = inputs(face, 2)
    frames = face(audio, z, pose)[0]
    of_first, of_second = frames[:, :3], frames[:, 3:]
    for x in (audio, z):
        assert reached(of_first, x)[0, 0].any() and not reached(of_first, x)[0, 1].any()
        assert reached(of_second, x)[0, 1].any()
        assert reached(of_second, x)[0, 0].any() == face.config.carry_state
    if face.config.carry_state:  # the last frame is all that is carried
        last = frames[:, 2].detach()
        alone = face(audio[:, 1:], z[:, 1:], pose[:, 1:], last)[0]
        torch.testing.assert_close(alone, of_second, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", RECIPES)
def test_within_a_group_time_has_one_direction(name: str) -> None:
    face = made(name)
    cell = face.generator.gru
    assert cell is not None
    x = torch.randn(1, 3, 16, 8, 8).requires_grad_()
    frames = cell(x)
    for frame in range(3):
        steps = reached(frames[:, frame], x)[0].flatten(1).any(1)
        assert steps.tolist() == [step <= frame for step in range(3)]


@pytest.mark.parametrize("name", RECIPES)
def test_the_same_input_gives_the_same_output(name: str) -> None:
    face, again = made(name), made(name)
    audio, z, pose = inputs(face, 2)
    assert torch.equal(face(audio, z, pose)[0], face(audio, z, pose)[0])
    assert torch.equal(face(audio, z, pose)[0], again(audio, z, pose)[0])
    assert not torch.equal(face(audio, z + 1, pose)[0], face(audio, z, pose)[0])
