"""A generator of the size of Wav2Lip's, with random weights, to measure against.

The layers are those that Prajwal et al. 2020 published ("A Lip Sync Expert Is All You Need for
Speech to Lip Generation In the Wild", arXiv 2008.10010): an encoder of the face with skips, an
encoder of 0.2 s of mel spectrogram, and a decoder to one frame of 96x96 pixels. About 36.3 M
parameters.
"""

import torch
from torch import Tensor, nn

SIZE = 96
MEL_SHAPE = (1, 80, 16)  # bands and steps that one frame hears
FACE_INPUTS = 6  # a masked frame and a reference frame
# Channels of each stage from fine to coarse, and how many residual layers follow its first layer.
FACE = ((16, 0), (32, 2), (64, 3), (128, 2), (256, 2), (512, 1))
# Channels, stride and residual layers of each stage of speech.
SPEECH = ((32, 1, 2), (64, (3, 1), 2), (128, 3, 2), (256, (3, 2), 1))
DECODER = ((512, 1), (512, 2), (384, 2), (256, 2), (128, 2), (64, 2))
CODE = 512


class Layer(nn.Module):
    """Convolution, BatchNorm and ReLU, as a residual if asked for."""

    def __init__(self, convolution: nn.Module, outputs: int, residual: bool = False) -> None:
        super().__init__()
        self.body = nn.Sequential(convolution, nn.BatchNorm2d(outputs))
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """The layer's activations."""
        made = self.body(x)
        return torch.relu(made + x if self.residual else made)


def _layer(
    inputs: int, outputs: int, kernel: int = 3, stride: int | tuple[int, int] = 1, padding: int = 1
) -> Layer:
    return Layer(nn.Conv2d(inputs, outputs, kernel, stride, padding), outputs)


def _residuals(channels: int, count: int) -> list[nn.Module]:
    return [
        Layer(nn.Conv2d(channels, channels, 3, padding=1), channels, True) for _ in range(count)
    ]


class Wav2LipSized(nn.Module):
    """One frame of a lip-synced face from speech, a masked frame and a reference frame."""

    def __init__(self) -> None:
        super().__init__()
        self.face, inputs = nn.ModuleList(), FACE_INPUTS
        for stage, (outputs, residuals) in enumerate(FACE):
            first = _layer(inputs, outputs, 3, 2) if stage else _layer(inputs, outputs, 7, 1, 3)
            self.face.append(nn.Sequential(first, *_residuals(outputs, residuals)))
            inputs = outputs
        self.face.append(nn.Sequential(_layer(inputs, CODE, 3, 1, 0), _layer(CODE, CODE, 1, 1, 0)))
        speech: list[nn.Module] = []
        inputs = 1
        for outputs, stride, residuals in SPEECH:
            speech += [_layer(inputs, outputs, 3, stride), *_residuals(outputs, residuals)]
            inputs = outputs
        self.speech = nn.Sequential(
            *speech, _layer(inputs, CODE, 3, 1, 0), _layer(CODE, CODE, 1, 1, 0)
        )
        self.decoder = nn.ModuleList([_layer(CODE, CODE, 1, 1, 0)])
        skips = [channels for channels, _ in reversed(FACE)]
        inputs = CODE + CODE
        for stage, (outputs, residuals) in enumerate(DECODER):
            stride, extra = (2, 1) if stage else (1, 0)
            up = nn.ConvTranspose2d(inputs, outputs, 3, stride, extra and 1, extra)
            self.decoder.append(nn.Sequential(Layer(up, outputs), *_residuals(outputs, residuals)))
            inputs = outputs + skips[stage]
        self.picture = nn.Sequential(_layer(inputs, 32), nn.Conv2d(32, 3, 1), nn.Sigmoid())

    def forward(self, mel: Tensor, face: Tensor) -> Tensor:
        """Frames (N, 3, 96, 96) in (0, 1) of mel (N, 1, 80, 16) and face (N, 6, 96, 96)."""
        maps = []
        for stage in self.face:
            face = stage(face)
            maps.append(face)
        x = self.speech(mel)
        for stage in self.decoder:
            x = torch.cat([stage(x), maps.pop()], 1)
        return self.picture(x)
