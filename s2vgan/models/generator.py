"""The generator G(z | y): noise, audio code and pose code to the frames of a group."""

import math

import torch
from torch import Tensor, nn

from s2vgan.errors import ConfigError
from s2vgan.models.conv_gru import ConvGRUCell
from s2vgan.models.identity import LIMIT, Identity

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
        condition: length of the condition vector (noise, audio code, pose code, identity code).
        size: S, a power of two from 32 to 256.
        frames: T, frames per group.
        width: channels at half resolution; doubled at each coarser block, at most 8 times.
        gru: with ConvGRU.
        own_features: the ConvGRU reads its own features at each step instead of the same ones.
        mean_face: add a face to every frame before tanh: a learned one, or who speaks.
        start_from_mean: the first state is that face instead of zero.
        identity: who speaks is given with each call.

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
        identity: bool = False,
    ) -> None:
        super().__init__()
        blocks = blocks_to(size)
        self.size, self.frames, self.start_from_mean = size, frames, start_from_mean
        widths = [width * min(8, 2 ** (blocks - 1 - block)) for block in range(blocks)]
        self.steps_of_features = frames if gru and own_features else 1
        last = FEATURES * self.steps_of_features if gru else 3 * frames
        self.widths = widths
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
        learned = mean_face and not identity
        self.mean_face = nn.Parameter(torch.zeros(3, size, size)) if learned else None

    @torch.no_grad()
    def set_mean_face(self, face: Tensor) -> None:
        """Start the mean face, if there is one, at (3, S, S) in [-1, 1]."""
        if self.mean_face is not None:
            self.mean_face.copy_(torch.atanh(face.clamp(-LIMIT, LIMIT)))

    def first_state(self, batch: int, base: Tensor | None) -> Tensor | None:
        """State before the first group, (B, 3, S, S): the face before tanh ``base``; None: zero."""
        if base is not None and self.start_from_mean:
            return torch.tanh(base).expand(batch, -1, -1, -1)
        return None

    def forward(
        self, condition: Tensor, state: Tensor | None = None, identity: Identity | None = None
    ) -> Tensor:
        """Generate K contiguous groups of B sequences.

        Args:
            condition: (B, K, condition), without the identity code.
            state: (B, 3, S, S), the last frame before them; None at the start.
            identity: who speaks in each sequence, where the generator is made for it.

        Returns:
            (B, K * T, 3, S, S) frames in (-1, 1). The last frame is the next call's state.
        """
        batch, groups = condition.shape[:2]
        base = self.mean_face if identity is None else identity.base
        features = self._features(condition.flatten(0, 1), identity and identity.repeat(groups))
        if self.gru is None:
            frames = features.reshape(batch, groups * self.frames, 3, self.size, self.size)
            if identity is not None and base is not None:
                base = base.unsqueeze(1)
            return torch.tanh(frames if base is None else frames + base)
        x = features.unflatten(1, (self.steps_of_features, FEATURES)).unflatten(0, (batch, groups))
        x = x.expand(-1, -1, self.frames, -1, -1, -1).flatten(1, 2)
        if identity is not None:
            x = x + identity.maps[-1].unsqueeze(1)
        if state is None:
            state = self.first_state(batch, base)
        return self.gru(x, state, base)

    def _features(self, condition: Tensor, identity: Identity | None) -> Tensor:
        """What the blocks make of (N, condition), each given the map of its resolution."""
        if identity is None:
            return self.trunk(condition[..., None, None])
        x = torch.cat([condition, identity.code], -1)[..., None, None]
        for block, place in enumerate(range(0, len(self.trunk), 3)):  # convolution, BatchNorm, ReLU
            x = self.trunk[place : place + 3](x)
            if block < len(self.widths):
                x = x + identity.maps[block]
        return x
