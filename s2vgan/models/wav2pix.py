"""The baseline wav2pix: one second of speech to the one frame in its middle.

Duarte et al. 2019, "Wav2Pix: Speech-conditioned Face Generation using Generative Adversarial
Networks". What is published is kept; what it leaves open is set here: LeakyReLU between the
encoder's linear layers, ReLU in G, LeakyReLU .2 in D, and further blocks of the same kind above 64
pixels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from s2vgan.config import ModelConfig
from s2vgan.models.discriminator import Discriminator
from s2vgan.models.face import Face
from s2vgan.models.generator import blocks_to
from s2vgan.models.identity import Identity
from s2vgan.spec import GroupSpec

CHANNELS = (1, 16, 32, 128, 256, 512, 1024)  # of the encoder's convolutions
KERNEL, STRIDE = 15, 4
HIDDEN = 256  # of its linear layers
PRE_EMPHASIS = 0.95
QUIETEST = 1 / 32768  # largest sample that counts as sound: one step of 16 bits
DROPOUT = 0.5


class Wav2PixEncoder(nn.Module):
    """Six convolutions and three linear layers: 16,000 samples to 1024 x 4, 256, 128, 128.

    Every window is divided by its own maximum, so a stream needs no knowledge of the file.

    Args:
        samples: length L of a window.
        dim: length of the code.
    """

    def __init__(self, samples: int, dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        steps = samples
        for inputs, outputs in zip(CHANNELS, CHANNELS[1:], strict=False):
            layers += [
                nn.Conv1d(inputs, outputs, KERNEL, STRIDE, padding=KERNEL // 2, bias=False),
                nn.BatchNorm1d(outputs),
                nn.LeakyReLU(0.3),
            ]
            steps = (steps - 1) // STRIDE + 1
        self.layers = nn.Sequential(*layers)
        self.code = nn.Sequential(
            nn.Linear(CHANNELS[-1] * steps, HIDDEN),
            nn.LeakyReLU(0.3),
            nn.Linear(HIDDEN, dim),
            nn.LeakyReLU(0.3),
            nn.Linear(dim, dim),
        )

    def forward(self, audio: Tensor) -> Tensor:
        """Codes (N, dim) of windows (N, L) in [-1, 1]."""
        x = audio / audio.abs().amax(1, keepdim=True).clamp_min(QUIETEST)
        x = x - PRE_EMPHASIS * F.pad(x[:, :-1], (1, 0))
        return self.code(self.layers(x.unsqueeze(1)).flatten(1))


class Wav2PixGenerator(nn.Module):
    """Transposed convolutions 512-256-128-64-3 with spectral norm and dropout; no noise.

    Args:
        dim: length of the audio code.
        size: S, a power of two from 32 to 256.
        width: channels at half resolution; doubled at each coarser block, at most 8 times.

    Raises:
        ConfigError: if the size cannot be made from 4x4 by doubling.
    """

    def __init__(self, dim: int, size: int, width: int = 64) -> None:
        super().__init__()
        blocks = blocks_to(size)
        channels = [dim, *(width * min(8, 2 ** (blocks - 1 - block)) for block in range(blocks))]
        self.layers = nn.Sequential()
        for block, (inputs, outputs) in enumerate(zip(channels, [*channels[1:], 3], strict=True)):
            stride, padding = (2, 1) if block else (1, 0)
            layer = nn.ConvTranspose2d(inputs, outputs, 4, stride, padding)
            self.layers.append(spectral_norm(layer))
            if block < blocks:
                self.layers.extend([nn.ReLU(inplace=True), nn.Dropout(DROPOUT)])

    def forward(self, code: Tensor) -> Tensor:
        """Frames (N, 3, S, S) in (-1, 1) of audio codes (N, dim)."""
        return torch.tanh(self.layers(code[..., None, None]))


class Wav2PixDiscriminator(Discriminator):
    """Convolutions 64-128-256-512 with spectral norm, the audio code tiled onto 4x4, one score.

    Args:
        size: S of the frames, a power of two.
        dim: length of the audio code.
        width: channels after the first block; doubled at each further one, at most 8 times.
    """

    def __init__(self, size: int, dim: int, width: int = 64) -> None:
        super().__init__()
        channels = [3, *(width * min(8, 2**block) for block in range(blocks_to(size)))]
        self.picture = nn.Sequential()
        for inputs, outputs in zip(channels, channels[1:], strict=False):
            self.picture.append(spectral_norm(nn.Conv2d(inputs, outputs, 4, 2, 1)))
            self.picture.append(nn.LeakyReLU(0.2, inplace=True))
        self.score = spectral_norm(nn.Conv2d(channels[-1] + dim, 1, 4))

    def features(self, frames: Tensor) -> Tensor:
        """Maps (N, C, 4, 4) of single frames (N, 1, 3, S, S) in [-1, 1]."""
        return self.picture(frames.flatten(1, 2))

    def compare(self, features: Tensor, audio_code: Tensor) -> Tensor:
        """Scores (N,): how well the maps of frames go with audio codes (N, dim)."""
        code = audio_code[..., None, None].expand(-1, -1, *features.shape[-2:])
        return self.score(torch.cat([features, code.to(features.dtype)], 1)).flatten()


class Wav2Pix(Face):
    """Encoder and generator: each frame is made from the speech around its own middle.

    It is trained on pairs, the middle frame of a group and its window. It speaks every frame of a
    group, each from a window of its own; nothing is carried from frame to frame.

    Args:
        config: of the model; a window reaches ``audio_past`` before the middle of the time that
            its frame is shown, and ``audio_ahead`` behind it.
        spec: of the groups.
    """

    def __init__(self, config: ModelConfig, spec: GroupSpec) -> None:
        super().__init__(config, spec)
        around = round(config.audio_past * spec.sample_rate)
        self.samples = around + round(config.audio_ahead * spec.sample_rate)
        self.audio_encoder = Wav2PixEncoder(self.samples, config.audio_dim)
        self.generator = Wav2PixGenerator(config.audio_dim, spec.size, config.width)

    def forward(
        self,
        audio: Tensor,
        z: Tensor,
        pose: Tensor,
        state: Tensor | None = None,
        reference: Tensor | Identity | None = None,
    ) -> tuple[Tensor, Tensor, None]:
        """One frame for each window.

        Args:
            audio: (B, N, samples) windows of speech in [-1, 1], a frame in the middle of each.
            z: ignored, there is no noise.
            pose: ignored.
            state: ignored, there is none.
            reference: ignored, it knows one face.

        Returns:
            frames (B, N, 3, S, S) in (-1, 1); audio codes (B, N, audio_dim); None, since no mouth
            code is predicted.
        """
        code = self.audio_encoder(audio.flatten(0, 1))
        frames = self.generator(code)
        return frames.unflatten(0, audio.shape[:2]), code.unflatten(0, audio.shape[:2]), None

    def lesson(self, audio: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """The middle frame (B, K, 3, S, S) of each group, and its window (B, K, samples)."""
        middle = self.spec.frames_per_group // 2
        return self._window(audio, middle), frames[:, middle :: self.spec.frames_per_group]

    def speak(
        self,
        audio: Tensor,
        z: Tensor,
        pose: Tensor,
        state: Tensor | None = None,
        reference: Tensor | Identity | None = None,
    ) -> Tensor:
        """All frames of K groups, see :meth:`Face.speak`; only ``audio`` counts."""
        places = range(self.spec.frames_per_group)
        windows = torch.stack([self._window(audio, place) for place in places], 2)
        return self(windows.flatten(1, 2), z, pose)[0]

    def _window(self, audio: Tensor, place: int) -> Tensor:
        """The window around a frame of each group, in the group's window (B, K, L).

        The group's window starts ``audio_past`` before the group, the frame's as long before the
        frame's middle: the former's start is as far from the latter's as the group's is from the
        middle.
        """
        per_group, frames = self.spec.samples_per_group, self.spec.frames_per_group
        start = (2 * place + 1) * per_group // (2 * frames)
        return audio[..., start : start + self.samples]
