"""Faces of random weights that are worth comparing."""

from typing import TypeVar

import torch

from s2vgan.models import Face, TalkingFace

AnyFace = TypeVar("AnyFace", bound=Face)


@torch.no_grad()
def liven(face: AnyFace) -> AnyFace:
    """Make the frames of random weights differ as a trained face's do, by speech, seed and time.

    BatchNorm has then met the spread of its inputs, noise counts, and the last layer is loud. As
    they are drawn, all frames are of one grey, and wrong ones would pass for right ones.
    """
    config, spec = face.config, face.spec
    samples = spec.window(config.audio_past, config.audio_ahead)[1]
    random = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(8, 2, *shape, generator=random)

    if isinstance(face, TalkingFace) and face.generator.gru is not None:
        first = face.generator.trunk[0].weight
        assert isinstance(first, torch.Tensor)
        first[: config.z_dim] *= 8
        face.generator.gru.from_input.weight *= 30
    face.train()
    for _ in range(30):
        loudness = torch.rand(8, 2, 1, generator=random)
        face.speak(
            0.2 * loudness * drawn(samples),
            drawn(config.z_dim),
            drawn(spec.frames_per_group, config.pose_dim),
        )
    return face.eval()
