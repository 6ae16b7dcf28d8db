"""Who speaks: a reference frame of the person as a condition, so that one model serves several."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

IDENTITY_DIM = 64  # length of the code
LIMIT = 0.98  # colours nearer to -1 and 1 would be far out in front of tanh


@dataclass(frozen=True)
class Identity:
    """What G is told of who speaks in each of B sequences.

    Attributes:
        code: (B, IDENTITY_DIM).
        maps: (B, C, H, W) features of the reference frame, coarse to fine, for G's blocks.
        base: (B, 3, S, S), the reference frame in front of tanh; None where G adds no face.
    """

    code: Tensor
    maps: list[Tensor]
    base: Tensor | None

    @staticmethod
    def join(parts: "Sequence[Identity]") -> "Identity | None":
        """Those of several batches as one batch; None if there are none."""
        if len(parts) < 2:
            return parts[0] if parts else None
        maps = [torch.cat(same) for same in zip(*(part.maps for part in parts), strict=True)]
        bases = [part.base for part in parts if part.base is not None]
        base = torch.cat(bases) if bases else None
        return Identity(torch.cat([part.code for part in parts]), maps, base)

    def repeat(self, times: int) -> "Identity":
        """The same for B * ``times`` sequences, those of one person next to each other."""
        code, *maps = (part.repeat_interleave(times, 0) for part in (self.code, *self.maps))
        base = None if self.base is None else self.base.repeat_interleave(times, 0)
        return Identity(code, maps, base)


class IdentityEncoder(nn.Module):
    """Strided convolutions from the reference frame to a code, their maps handed to G on the way.

    There is no normalisation: the frames of a batch are of few people, often of one, and its
    statistics would tell who else is in it.

    Args:
        size: S of the frames.
        widths: channels of the maps at 4x4, 8x8, ... S x S.
        base: whether the reference frame is the face that G's frames start from.
    """

    references: Tensor

    def __init__(self, size: int, widths: Sequence[int], base: bool) -> None:
        super().__init__()
        self.base = base
        fine_to_coarse = [3, *reversed(widths)]
        self.blocks = nn.ModuleList()
        for block, (inputs, outputs) in enumerate(
            zip(fine_to_coarse, fine_to_coarse[1:], strict=False)
        ):
            kernel, stride = (4, 2) if block else (3, 1)
            convolution = nn.Conv2d(inputs, outputs, kernel, stride, 1)
            self.blocks.append(nn.Sequential(convolution, nn.LeakyReLU(0.2)))
        self.code = nn.Linear(widths[0] * 16, IDENTITY_DIM)
        # Reference frames of people the model knows, (V, 3, S, S) uint8; grey before there is one.
        self.register_buffer("references", torch.full((1, 3, size, size), 127, dtype=torch.uint8))

    def forward(self, reference: Tensor | None, batch: int) -> Identity:
        """What G is told.

        Args:
            reference: (B, 3, S, S) in [-1, 1]; None for the first of the people it knows.
            batch: B.
        """
        if reference is None:
            reference = (self.references[:1].float() / 127.5 - 1).expand(batch, -1, -1, -1)
        maps, x = [], reference
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        base = torch.atanh(reference.clamp(-LIMIT, LIMIT)) if self.base else None
        return Identity(self.code(x.flatten(1)), maps[::-1], base)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *arguments: Any
    ) -> None:
        """How many people a stored model knows is not in its configuration."""
        stored = state_dict.get(f"{prefix}references")
        if stored is not None:
            self.references = self.references.new_empty(len(stored), *self.references.shape[1:])
        super()._load_from_state_dict(state_dict, prefix, *arguments)
