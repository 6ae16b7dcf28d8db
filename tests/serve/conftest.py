from pathlib import Path

import pytest
import torch

from s2vgan import artifact
from s2vgan.config import Config, ModelConfig
from s2vgan.groups import GroupSpec
from s2vgan.models import TalkingFace


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a small model of random weights."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    config, spec = Config(model=ModelConfig(width=4)), GroupSpec(size=32)
    artifact.save(
        folder / artifact.FOLDER,
        TalkingFace(config.model, spec),
        config,
        name="small",
        dataset="d" * 64,
        step=7,
        readings={"val/score": 0.5},
    )
    return folder
