"""LPIPS (Zhang et al. 2018) with AlexNet, from weights that are already on this machine.

The ``lpips`` package holds the linear heads. The convolutions under them (the trunk) are
torchvision's ImageNet AlexNet; they are looked for, never downloaded, and never left random.
"""

import os
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from s2vgan.errors import ConfigError

TRUNK_VARIABLE = "S2VGAN_LPIPS_TRUNK"
_HUB_FILE = "alexnet-owt-7be5be79.pth"  # torchvision's name for its AlexNet

Lpips = Callable[[Tensor, Tensor], Tensor]


def find_trunk(trunk: str | Path | None = None) -> Path | None:
    """Weights of the AlexNet trunk: the path given, else the environment's, else torch's cache.

    Raises:
        ConfigError: if a path was given, here or in S2VGAN_LPIPS_TRUNK, and there is no file.
    """
    asked = trunk or os.environ.get(TRUNK_VARIABLE)
    if asked:
        if not Path(asked).is_file():
            raise ConfigError(
                f"{asked}: no file with the AlexNet weights of LPIPS; correct --lpips-trunk or "
                f"{TRUNK_VARIABLE}, or leave both out to go without LPIPS."
            )
        return Path(asked)
    cached = Path(torch.hub.get_dir()) / "checkpoints" / _HUB_FILE
    return cached if cached.is_file() else None


def load_lpips(trunk: Path, device: str = "cpu") -> Lpips:
    """LPIPS-alex, version 0.1, as a function of two (N, 3, H, W) batches on [-1, 1] to (N,).

    Args:
        trunk: safetensors or torch file with torchvision's ``features.*`` weights.
        device: to compute on.

    Raises:
        ConfigError: if the file does not hold them.
    """
    import lpips  # takes seconds, and only evaluation needs it

    try:
        if trunk.suffix == ".safetensors":
            weights = load_file(trunk)
        else:
            weights = torch.load(trunk, map_location="cpu", weights_only=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lpips builds AlexNet through a deprecated argument
            network = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
        # "slice2.3.weight" of lpips is "features.3.weight" of torchvision.
        names = {name: f"features.{name.split('.', 1)[1]}" for name in network.net.state_dict()}
        network.net.load_state_dict({name: weights[theirs] for name, theirs in names.items()})
    except (SafetensorError, pickle.UnpicklingError, OSError, KeyError, RuntimeError) as error:
        raise ConfigError(
            f"{trunk}: does not hold the features.* weights of torchvision's AlexNet; correct "
            f"--lpips-trunk or {TRUNK_VARIABLE}, or leave both out to go without LPIPS."
        ) from error
    network = network.to(device).eval().requires_grad_(False)

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return network(a, b).flatten()

    return distance
