"""The generator G(z | y): noise, audio code and pose code to the frames of a group."""

import math

import torch
from torch import Tensor, nn

from s2vgan.errors import ConfigError
from s2vgan.models.conv_gru import ConvGRUCell

FEATURES = 16  # channels that the ConvGRU reads for one frame


def blocks_to(size: int) -> int:
    """How often 4x4 is doubled to ``size`` pixels.

    Raises:
        ConfigError: if the size cannot be made so.
    """
    blocks = round(math.log2(size)) - 2
    if size != 4 * 2**blocks or not 32 <= size <= 256:
        raise ConfigError(
            f"the dataset's faces are {size} pixels wide; models are made for 32, 64, 128 or "
            "256: extract with one of these --size."
        )
    return blocks


class Generator(nn.Module):
    """DCGAN blocks (Radford et al. 2016) to full resolution, and a ConvGRU as the last layer.

    The ConvGRU's hidden state has the 3 colours as its channels: its states *are* the frames.
    Without it (``gru=False``, the ablation) the last block ends in 3 channels a frame and tanh.

    Args:
        condition: length of the condition vector (noise, audio code and pose code).
        size: S, a power of two from 32 to 256.
        frames: T, frames per group.
        width: channels at half resolution; doubled at each coarser block, at most 8 times.
        gru: with ConvGRU.
        own_features: the ConvGRU reads its own features at each step instead of the same ones.
        mean_face: learn a face that is added to every frame before tanh.
        start_from_mean: the first state is the mean face instead of zero.

    Raises:
        ConfigError: if the size cannot be made from 4x4 by doubling.
    """

    def __init__(
        self,
        condition: int,
        size: int,
        frames: int = 3,
        width: int = 64,
        gru: bool = True,
        own_features: bool = False,
        mean_face: bool = False,
        start_from_mean: bool = False,
    ) -> None:
        super().__init__()
        blocks = blocks_to(size)
        self.size, self.frames, self.start_from_mean = size, frames, start_from_mean
        widths = [width * min(8, 2 ** (blocks - 1 - block)) for block in range(blocks)]
        self.steps_of_features = frames if gru and own_features else 1
        last = FEATURES * self.steps_of_features if gru else 3 * frames
        layers: list[nn.Module] = [
            nn.ConvTranspose2d(condition, widths[0], 4, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        ]
        for block, (inputs, outputs) in enumerate(zip(widths, [*widths[1:], last], strict=True)):
            is_output = block == blocks - 1 and not gru
            layers.append(nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=is_output))
            if not is_output:
                layers += [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        self.trunk = nn.Sequential(*layers)
        for layer in self.trunk:
            if isinstance(layer, nn.ConvTranspose2d):
                nn.init.normal_(layer.weight, 0, 0.02)  # DCGAN
        # With a mean face to start from, the first features should disturb it little.
        self.gru = ConvGRUCell(FEATURES, 3, gain=0.1 if mean_face else 1.0) if gru else None
        self.mean_face = nn.Parameter(torch.zeros(3, size, size)) if mean_face else None

    @torch.no_grad()
    def set_mean_face(self, face: Tensor) -> None:
        """Start the mean face, if there is one, at (3, S, S) in [-1, 1]."""
        if self.mean_face is not None:
            self.mean_face.copy_(torch.atanh(face.clamp(-0.98, 0.98)))

    def first_state(self, batch: int) -> Tensor | None:
        """State before the first group: the mean face (B, 3, S, S), or None for zero."""
        if self.mean_face is not None and self.start_from_mean:
            return torch.tanh(self.mean_face).expand(batch, -1, -1, -1)
        return None

    def forward(self, condition: Tensor, state: Tensor | None = None) -> Tensor:
        """Generate K contiguous groups of B sequences.

        Args:
            condition: (B, K, condition).
            state: (B, 3, S, S), the last frame before them; None at the start.

        Returns:
            (B, K * T, 3, S, S) frames in (-1, 1). The last frame is the next call's state.
        """
        batch, groups = condition.shape[:2]
        features = self.trunk(condition.flatten(0, 1)[..., None, None])
        mean = self.mean_face
        if self.gru is None:
            frames = features.reshape(batch, groups * self.frames, 3, self.size, self.size)
            return torch.tanh(frames if mean is None else frames + mean)
        x = features.unflatten(1, (self.steps_of_features, FEATURES)).unflatten(0, (batch, groups))
        x = x.expand(-1, -1, self.frames, -1, -1, -1).flatten(1, 2)
        if state is None:
            state = self.first_state(batch)
        return self.gru(x, state, mean)
