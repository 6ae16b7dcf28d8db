"""Metrics that need a network of the user's: SyncNet's LSE-C and LSE-D, and a distance of identity.

No weights come with S2V-GAN. A network is a TorchScript file, so that its code comes with it; it
runs with the user's rights, as any program does.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchaudio
from torch import Tensor
from torch.nn import functional as F

from s2vgan.errors import ConfigError
from s2vgan.spec import GroupSpec

LSE_LAGS = 15  # frames of 1/25 s either way, as in Chung and Zisserman 2016

_FPS = 25  # of SyncNet
_SIDE = 224  # of its pictures
_PICTURES = 5  # in one of its windows
_BANDS, _STEPS = 13, 20  # of its MFCC windows, 0.2 s


@dataclass(frozen=True, eq=False)
class SyncNet:
    """SyncNet (Chung and Zisserman 2016): embeddings of 5 pictures and of 0.2 s of speech.

    Attributes:
        network: TorchScript module with the methods ``forward_lip``, (N, 3, 5, 224, 224) float on
            [0, 255] to (N, E), and ``forward_aud``, MFCC (N, 1, 13, 20) to (N, E).
        spec: of the groups.
    """

    network: torch.jit.ScriptModule
    spec: GroupSpec

    @classmethod
    def load(cls, path: str | Path, spec: GroupSpec) -> "SyncNet":
        """From a TorchScript file.

        Raises:
            ConfigError: if it is no such file.
        """
        network = _load(path, "--syncnet")
        for name in ("forward_lip", "forward_aud"):
            if not hasattr(network, name):
                raise ConfigError(f"{path}: has no method {name}; see docs/evaluation.md.")
        return cls(network, spec)

    @torch.inference_mode()
    def distances(self, frames: np.ndarray, speech: np.ndarray) -> np.ndarray:
        """Distance of each window of pictures from the speech so many frames later.

        Args:
            frames: (n, S, S, 3) uint8, a crop of the face, as SyncNet wants it.
            speech: of the same time.

        Returns:
            (windows, 31) float64; empty where the stretch is too short.
        """
        spec = self.spec
        ticks = int(len(frames) / spec.fps * _FPS)
        count = ticks - max(_PICTURES, 2 * LSE_LAGS + _PICTURES) + 1
        if count < 1:
            return np.empty((0, 2 * LSE_LAGS + 1))
        shown = (np.arange(ticks) * spec.fps / _FPS).astype(int)
        pixels = torch.from_numpy(frames[shown]).movedim(-1, 1).float()
        pixels = F.interpolate(pixels, size=(_SIDE, _SIDE), mode="bilinear")
        windows = ticks - _PICTURES + 1
        lips = torch.cat(
            [
                self.network.forward_lip(pixels[start : start + _PICTURES].movedim(0, 1)[None])
                for start in range(windows)
            ]
        )
        coefficients = torchaudio.transforms.MFCC(
            spec.sample_rate,
            _BANDS,
            melkwargs={"n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 40},
        )(torch.from_numpy(np.ascontiguousarray(speech, np.float32)))
        steps = coefficients.unfold(1, _STEPS, 100 // _FPS).movedim(1, 0)[:windows, None]
        sounds = self.network.forward_aud(steps.contiguous())
        middle = slice(LSE_LAGS, len(sounds) - LSE_LAGS)
        seen = lips[: len(sounds)][middle]
        lags = range(-LSE_LAGS, LSE_LAGS + 1)
        found = [F.pairwise_distance(seen, sounds[LSE_LAGS + lag :][: len(seen)]) for lag in lags]
        return torch.stack(found, 1).double().numpy()


@dataclass(frozen=True, eq=False)
class IdentityModel:
    """An embedding of faces: TorchScript, (N, 3, S, S) float on [-1, 1] to (N, E)."""

    network: torch.jit.ScriptModule

    @classmethod
    def load(cls, path: str | Path) -> "IdentityModel":
        """From a TorchScript file.

        Raises:
            ConfigError: if it is no such file.
        """
        return cls(_load(path, "--identity-model"))

    @torch.inference_mode()
    def distance(self, made: Tensor, real: Tensor) -> Tensor:
        """Cosine distance (N,) in [0, 2] of each pair of frames (N, 3, S, S)."""
        return 1 - F.cosine_similarity(self.network(made), self.network(real), dim=1)


def _load(path: str | Path, option: str) -> torch.jit.ScriptModule:
    try:
        return torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"{path}: not a TorchScript network ({reason}); correct {option} or leave it out."
        ) from error
