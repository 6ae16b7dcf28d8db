"""Networks of a user's, in place of which small ones with known answers stand here."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchaudio
from torch import Tensor, nn

from s2vgan.errors import ConfigError
from s2vgan.metrics import IdentityModel, Instruments, Stretch, SyncNet, values
from s2vgan.spec import GroupSpec

SPEC = GroupSpec(size=32)


class Brightness(nn.Module):
    """The mean colour of a face."""

    def forward(self, frames: Tensor) -> Tensor:
        return frames.mean(dim=(2, 3)) + 1


class Loudness(nn.Module):
    """Pictures as bright as the speech is loud lie near each other."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = offset

    def forward(self, x: Tensor) -> Tensor:
        return x

    @torch.jit.export
    def forward_lip(self, pictures: Tensor) -> Tensor:
        return pictures.mean(dim=(1, 2, 3, 4)).div(255)[:, None]

    @torch.jit.export
    def forward_aud(self, coefficients: Tensor) -> Tensor:
        # The first of an MFCC is the level in dB times the root of its 40 bands.
        return coefficients[:, 0, 0].mean(dim=1, keepdim=True).div(20 * 40**0.5).add(self.offset)


def test_identity_is_the_cosine_distance_of_embeddings(tmp_path: Path) -> None:
    file = tmp_path / "colour.pt"
    torch.jit.script(Brightness()).save(str(file))
    model = Instruments(identity=IdentityModel.load(file))
    red = np.zeros((6, 32, 32, 3), np.uint8)
    red[..., 0] = 255
    blue = np.roll(red, 2, axis=-1)
    name = ("identity",)
    assert values([Stretch(red, red)], model, name)["identity"] == pytest.approx(0, abs=1e-6)
    assert values([Stretch(red, blue)], model, name)["identity"] == pytest.approx(1, abs=1e-6)


def test_syncnet_finds_the_lag_and_is_surer_where_there_is_one(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    level = np.convolve(random.random(150 + 8), np.ones(9) / 9, "valid")
    level = (level - level.min()) / np.ptp(level)
    frames = np.broadcast_to(
        (255 * level[:, None, None, None]).astype(np.uint8), (150, 32, 32, 3)
    ).copy()
    loud = np.interp(np.arange(80000) / 16000 * 30, np.arange(150) + 0.5, level)
    speech = (10 ** (loud - 1) * random.normal(0, 0.3, 80000)).astype(np.float32)
    bands = {"n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 40}
    first = torchaudio.transforms.MFCC(16000, 13, melkwargs=bands)(torch.from_numpy(speech))[0]
    file = tmp_path / "sync.pt"
    torch.jit.script(Loudness(level.mean() - first.mean().item() / (20 * 40**0.5))).save(str(file))
    net = SyncNet.load(file, SPEC)
    distances = net.distances(frames, speech)
    assert distances.shape[1] == 31 and len(distances) > 60
    names, with_net = ("lse_c", "lse_d"), Instruments(syncnet=net)
    right = values([Stretch(frames, frames, speech=speech)], with_net, names)
    late = values([Stretch(np.roll(frames, 75, 0), frames, speech=speech)], with_net, names)
    means = distances.mean(axis=0)
    assert right["lse_d"] == pytest.approx(means.min())
    assert right["lse_c"] == pytest.approx(np.median(means) - means.min())
    assert abs(int(means.argmin()) - 15) <= 2
    assert right["lse_c"] > 2 * late["lse_c"]
    short = values([Stretch(frames[:30], frames[:30], speech=speech[:16000])], with_net, names)
    assert not short


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "no.pt"
    file.write_text("weights")
    with pytest.raises(ConfigError, match=r"no\.pt.*--identity-model"):
        IdentityModel.load(file)
    with pytest.raises(ConfigError, match=r"nowhere\.pt.*--syncnet"):
        SyncNet.load(tmp_path / "nowhere.pt", SPEC)
    torch.jit.script(Brightness()).save(str(file))
    with pytest.raises(ConfigError, match="forward_lip"):
        SyncNet.load(file, SPEC)
