"""The discriminator D(x | y): frames of a group and their audio code to a score."""

import math

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from s2vgan.models.conv_gru import ConvGRUCell

AUDIO = 128  # channels of the audio code where it meets the picture


class Discriminator(nn.Module):
    """A discriminator in two parts: what it sees in the frames, and whether the speech fits."""

    def features(self, frames: Tensor) -> Tensor:
        """Maps (N, C, 4, 4) of frames (N, T, 3, S, S) in [-1, 1], before it hears the speech."""
        raise NotImplementedError

    def compare(self, features: Tensor, audio_code: Tensor) -> Tensor:
        """Logits (N,) of maps from :meth:`features` and audio codes (N, audio_dim)."""
        raise NotImplementedError

    def forward(self, frames: Tensor, audio_code: Tensor) -> Tensor:
        """Score groups.

        Args:
            frames: (N, T, 3, S, S) in [-1, 1].
            audio_code: (N, audio_dim).

        Returns:
            (N,) logits; higher is more real.
        """
        return self.compare(self.features(frames), audio_code)


class SequenceDiscriminator(Discriminator):
    """A ConvGRU reads the frames in turn; its last state goes through DCGAN's convolutions.

    As published the ConvGRU comes first; ``gru_after`` moves it behind some of the convolutions,
    which then see each frame by itself: at a quarter of the resolution it costs a sixteenth.
    Without the ConvGRU (the ablation) the convolutions read all frames stacked. The audio code is
    tiled over the last 4x4 map, as in wav2pix (Duarte et al. 2019).

    Args:
        size: S of the frames, a power of two.
        audio_dim: length of the audio code.
        frames: T; the ConvGRU takes any number, the ablation exactly this one.
        width: channels after the first block; doubled at each further one, at most 8 times.
        gru: with ConvGRU.
        gru_after: number of convolutions before the ConvGRU.
        state: channels of the ConvGRU's state.
        spectral: spectral normalisation (Miyato et al. 2018) instead of BatchNorm.
    """

    def __init__(
        self,
        size: int,
        audio_dim: int,
        frames: int = 3,
        width: int = 64,
        gru: bool = True,
        gru_after: int = 0,
        state: int = 8,
        spectral: bool = False,
    ) -> None:
        super().__init__()
        blocks = round(math.log2(size)) - 2
        gru_after = min(gru_after, blocks) if gru else 0
        channels = [width * min(8, 2**block) for block in range(blocks)]
        inputs = [3 if gru else 3 * frames, *channels]  # of each block, and of the score
        self.gru = None
        if gru:
            self.gru = ConvGRUCell(inputs[gru_after], state)
            inputs[gru_after] = state

        def normalised(layer: nn.Conv2d) -> nn.Module:
            nn.init.normal_(layer.weight, 0, 0.02)  # DCGAN
            return spectral_norm(layer) if spectral else layer

        self.each_frame = nn.Sequential()
        self.picture = nn.Sequential()
        for block, (before, after) in enumerate(zip(inputs, channels, strict=False)):
            batch_norm = block > 0 and not spectral  # DCGAN: none on the first block
            part = self.each_frame if block < gru_after else self.picture
            part.append(normalised(nn.Conv2d(before, after, 4, 2, 1, bias=not batch_norm)))
            if batch_norm:
                part.append(nn.BatchNorm2d(after))
            part.append(nn.LeakyReLU(0.2, inplace=True))
        self.audio = nn.Linear(audio_dim, AUDIO)
        self.score = normalised(nn.Conv2d(inputs[-1] + AUDIO, 1, 4))

    def features(self, frames: Tensor) -> Tensor:
        """Maps (N, C, 4, 4) of groups (N, T, 3, S, S) in [-1, 1]."""
        if self.gru is None:
            x = frames.flatten(1, 2)
        else:
            x = self.each_frame(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])
            x = self.gru(x)[:, -1]
        return self.picture(x)

    def compare(self, features: Tensor, audio_code: Tensor) -> Tensor:
        """Logits (N,): how well the maps of groups go with audio codes (N, audio_dim)."""
        code = self.audio(audio_code)[..., None, None].expand(-1, -1, *features.shape[-2:])
        return self.score(torch.cat([features, code.to(features.dtype)], 1)).flatten()
