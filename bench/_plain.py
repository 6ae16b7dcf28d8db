"""A plain PyTorch loop written straight from the paper: a file per frame and sound, fp32."""

import wave
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from s2vgan import groups
from s2vgan.config import Config
from s2vgan.models import build_discriminator, build_face
from s2vgan.spec import GroupSpec


def write_files(data: Path, video_id: str, folder: Path) -> GroupSpec:
    """Write each group of a video as one PNG per frame and one WAV."""
    folder.mkdir()
    spec, table = groups.read_groups(data, video_id)
    both = zip(groups.decode_frames(table, spec), groups.decode_audio(table, spec), strict=True)
    for number, (frames, audio) in enumerate(both):
        for place, frame in enumerate(frames):
            cv2.imwrite(
                str(folder / f"{number:06d}_{place}.png"), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
            )
        with wave.open(str(folder / f"{number:06d}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(spec.sample_rate)
            file.writeframes(audio.tobytes())
    return spec


class Files(Dataset[tuple[Tensor, Tensor]]):
    """Groups in files: speech (1, L) float32 and frames (T, 3, S, S) float32, both in [-1, 1]."""

    def __init__(self, folder: Path, spec: GroupSpec) -> None:
        self._sounds, self._count = sorted(folder.glob("*.wav")), spec.frames_per_group

    def __len__(self) -> int:
        return len(self._sounds)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        path = self._sounds[number]
        with wave.open(str(path)) as file:
            audio = np.frombuffer(file.readframes(file.getnframes()), np.int16)
        names = (f"{path.with_suffix('')}_{place}.png" for place in range(self._count))
        frames = np.stack([np.asarray(cv2.imread(name)) for name in names])[..., ::-1]
        pixels = torch.from_numpy(frames.copy()).permute(0, 3, 1, 2)
        return torch.from_numpy(audio[None].astype(np.float32) / 32768), pixels / 127.5 - 1


def plain_step(folder: Path, spec: GroupSpec, config: Config) -> Callable[[], tuple[float, float]]:
    """The loop's next step: D on real and generated groups, then G, by binary cross entropy.

    Args:
        folder: of :func:`write_files`.
        spec: of the groups.
        config: decides the networks, their learning rates and the batch.
    """
    torch.manual_seed(config.train.seed)
    face, judge = build_face(config.model, spec), build_discriminator(config.model, spec)
    betas = (config.train.beta1, config.train.beta2)
    opt_g = torch.optim.Adam(face.parameters(), config.train.lr_g, betas)
    opt_d = torch.optim.Adam(judge.parameters(), config.train.lr_d, betas)
    bce = nn.BCEWithLogitsLoss()
    loader = DataLoader(Files(folder, spec), config.train.batch, shuffle=True, drop_last=True)
    batches = iter(loader)

    def step() -> tuple[float, float]:
        nonlocal batches
        try:
            audio, real = next(batches)
        except StopIteration:
            batches = iter(loader)
            audio, real = next(batches)
        z = torch.randn(len(audio), 1, config.model.z_dim)
        fake, code, _ = face(audio, z, torch.zeros(len(audio), 1, spec.frames_per_group, 0))
        code = code.flatten(0, 1).detach()
        told_real, told_fake = judge(real, code), judge(fake.detach(), code)
        loss_d = bce(told_real, torch.ones_like(told_real))
        loss_d = loss_d + bce(told_fake, torch.zeros_like(told_fake))
        opt_d.zero_grad()
        loss_d.backward()
        opt_d.step()
        judged = judge(fake, code)
        loss_g = bce(judged, torch.ones_like(judged))
        opt_g.zero_grad()
        loss_g.backward()
        opt_g.step()
        return loss_d.item(), loss_g.item()

    return step
