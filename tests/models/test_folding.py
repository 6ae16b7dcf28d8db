"""A folded face does what the face does."""

import pytest
import torch
from torch import nn

from s2vgan.models import folded
from tests.test_streams import MODELS, SPEC, random_model


@pytest.mark.parametrize("kind", MODELS)
def test_folding_changes_nothing_but_the_work(kind: str) -> None:
    model = random_model(MODELS[kind], strength=0.05)
    config, face = model.config.model, model.face
    before = {name: value.clone() for name, value in face.state_dict().items()}
    lean = folded(face)
    samples = SPEC.window(config.audio_past, config.audio_ahead)[1]
    torch.manual_seed(2)
    audio, z = torch.randn(2, 3, samples) * 0.1, torch.randn(2, 3, config.z_dim)
    pose, state = torch.randn(2, 3, 3, config.pose_dim), torch.rand(2, 3, 32, 32) * 2 - 1
    reference = torch.rand(2, 3, 32, 32) * 2 - 1 if config.identity else None
    with torch.inference_mode():
        expected = face.speak(audio, z, pose, state, reference)
        made = lean.speak(audio, z, pose, state, reference)
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-4)
    assert expected.std() > 0.02
    kept = [
        module for module in lean.modules() if isinstance(module, nn.modules.batchnorm._NormBase)
    ]
    assert all(not module.affine for module in kept)  # that of the features alone, if any
    assert not any(nn.utils.parametrize.is_parametrized(module) for module in lean.modules())
    assert not any(weight.requires_grad for weight in lean.parameters())
    for name, value in face.state_dict().items():  # the face itself is as it was
        assert torch.equal(value, before[name])
