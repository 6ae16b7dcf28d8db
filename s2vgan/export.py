"""A model as an ONNX graph that makes one group, for runtimes without PyTorch."""

import base64
import os
import uuid
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

from s2vgan.artifact import LoadedModel
from s2vgan.config import ModelConfig
from s2vgan.models import Face, folded
from s2vgan.spec import GroupSpec


class MelByConvolution(nn.Module):
    """What a MelSpectrogram computes, its Fourier transform as a convolution.

    ONNX has no short-time Fourier transform that all runtimes run.

    Args:
        mel: power spectrogram, centred, with reflected ends.
    """

    waves: Tensor
    bands: Tensor

    def __init__(self, mel: torchaudio.transforms.MelSpectrogram) -> None:
        super().__init__()
        self.hop, self.size = mel.hop_length, mel.n_fft
        before = (self.size - mel.win_length) // 2  # where the window lies in a frame
        time = torch.arange(before, before + mel.win_length, dtype=torch.float64)
        turns = torch.arange(self.size // 2 + 1, dtype=torch.float64)[:, None] * time / self.size
        waves = torch.cat([torch.cos(2 * torch.pi * turns), torch.sin(2 * torch.pi * turns)])
        window = mel.spectrogram.window.double().cpu()
        self.register_buffer("waves", (waves * window).float().unsqueeze(1))
        self.register_buffer("bands", mel.mel_scale.fb.T.cpu().unsqueeze(-1).contiguous())
        self.before = self.size // 2 - before

    def forward(self, audio: Tensor) -> Tensor:
        """Mel power (N, bands, frames) of (N, samples)."""
        padded = F.pad(audio.unsqueeze(1), (self.before, self.before), mode="reflect")
        parts = F.conv1d(padded, self.waves, stride=self.hop)
        real, imaginary = parts.chunk(2, dim=1)
        return F.conv1d(real.square() + imaginary.square(), self.bands)


class OneGroup(nn.Module):
    """A face that makes one group for each of N streams, its state handed in and out.

    Args:
        face: in evaluation mode, on the CPU.
    """

    def __init__(self, face: Face) -> None:
        super().__init__()
        self.face = folded(face)
        self.inputs = list(input_shapes(face.config, face.spec))
        for module in self.face.modules():
            if isinstance(getattr(module, "mel", None), torchaudio.transforms.MelSpectrogram):
                module.mel = MelByConvolution(module.mel)

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """The arguments of :meth:`Face.speak` that the model has, without the axis of groups.

        Returns:
            frames (N, T, 3, S, S) in (-1, 1); of a model with a state also the last of them.
        """
        parts = dict(zip(self.inputs, given, strict=True))
        audio = parts["audio"]
        z = parts.get("z", audio.new_zeros(audio.shape[0], 0))
        pose = parts.get(
            "pose", audio.new_zeros(audio.shape[0], self.face.spec.frames_per_group, 0)
        )
        frames = self.face.speak(
            audio.unsqueeze(1),
            z.unsqueeze(1),
            pose.unsqueeze(1),
            parts.get("state"),
            parts.get("reference"),
        )
        return (frames, frames[:, -1]) if "state" in parts else (frames,)


def input_shapes(config: ModelConfig, spec: GroupSpec) -> dict[str, tuple[int, ...]]:
    """The graph's inputs, those that the model has, and their shapes behind the axis of N."""
    picture = (3, spec.size, spec.size)
    shapes: dict[str, tuple[int, ...]] = {
        "audio": (spec.window(config.audio_past, config.audio_ahead)[1],)
    }
    if config.z_dim:
        shapes["z"] = (config.z_dim,)
    if config.pose_dim:
        shapes["pose"] = (spec.frames_per_group, config.pose_dim)
    if config.kind == "gru" and config.carry_state:
        shapes["state"] = picture
    if config.identity:
        shapes["reference"] = picture
    return shapes


def export_onnx(model: LoadedModel, path: Path) -> None:
    """Write a model as an ONNX graph that makes one group for each of N streams.

    All inputs and outputs are float32; N is free. Inputs, those that the model has:

    - ``audio`` (N, L): speech in [-1, 1], the group's 0.1 s and the context around it. The
      graph's metadata ``samples_before`` says how many of the L samples lie before the group.
    - ``z`` (N, z_dim): noise, standard normal, drawn for each group.
    - ``pose`` (N, T, pose_dim): pose codes. ``reference_pose`` of the metadata, for each frame,
      holds the head still.
    - ``state`` (N, 3, S, S): ``next_state`` of the group before; at the start ``first_state`` of
      the metadata, float32 (3, S, S) in base64, little endian.
    - ``reference`` (N, 3, S, S) in [-1, 1]: a frame of who speaks; of models with an identity only,
      whose first state is the reference itself, cut to [-0.98, 0.98], if ``first_state`` is not 0.

    Outputs: ``frames`` (N, T, 3, S, S) RGB in (-1, 1), and ``next_state`` where there is a state.

    Args:
        model: on the CPU.
        path: of the file, written whole or not at all; its folder is made.
    """
    import onnx  # torch and it take a second to start

    config, spec = model.config.model, model.spec
    shapes = input_shapes(config, spec)
    batch = torch.export.Dim("n")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*axis name: n will not be used")
        program = torch.onnx.export(
            OneGroup(model.face).eval(),
            tuple(torch.zeros(2, *shape) for shape in shapes.values()),
            input_names=list(shapes),
            output_names=["frames", "next_state"][: 1 + ("state" in shapes)],
            dynamic_shapes=(tuple({0: batch} for _ in shapes),),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    first = model.face.first_state(model.face.identify(None)).numpy()
    facts = {
        "model": model.manifest.get("name", ""),
        "sha256": model.manifest.get("files", {}).get("model.safetensors", ""),
        "fps": spec.fps,
        "sample_rate": spec.sample_rate,
        "samples_before": spec.window(config.audio_past, config.audio_ahead)[0],
        "reference_pose": model.face.codes.reference_pose.tolist(),
        "first_state": base64.b64encode(first.astype("<f4").tobytes()).decode(),
    }
    onnx.helper.set_model_props(graph, {name: str(value) for name, value in facts.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        onnx.save(graph, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
