"""ONNX Runtime as the engine of a face that speaks: on CPUs it is faster than PyTorch."""

import hashlib
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor

from s2vgan import artifact, cache
from s2vgan.errors import ConfigError, RunError
from s2vgan.export import input_shapes
from s2vgan.models import Face, Identity
from s2vgan.models.folding import folded

Engine = Literal["onnx", "torch"]

PARITY: Final = 1e-3  # how far a frame in [-1, 1] of the graph may be from the network's
EXPORT_SECONDS: Final = 600.0

_GRAPH: Final = "model.onnx"


class OnnxFace:
    """A face whose groups ONNX Runtime makes; streams take it in the place of a Face.

    Args:
        face: in evaluation mode, on the CPU; its fixed codes are kept.
        graph: of that face, from :func:`s2vgan.export.export_onnx`.

    Raises:
        Exception: of onnxruntime's, which have no base of their own, if the file is no graph.
    """

    def __init__(self, face: Face, graph: Path) -> None:
        import onnxruntime

        self.config, self.spec, self.codes = face.config, face.spec, face.codes
        self.identify, self.first_state = face.identify, face.first_state
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            graph.read_bytes(), options, providers=["CPUExecutionProvider"]
        )
        self._inputs = {item.name for item in self._session.get_inputs()}

    def speak(
        self,
        audio: Tensor,
        z: Tensor,
        pose: Tensor,
        state: Tensor | None = None,
        reference: Tensor | Identity | None = None,
    ) -> Tensor:
        """All frames of K contiguous groups of B sequences, see :meth:`Face.speak`."""
        given = {"audio": audio, "z": z, "pose": pose}
        values = {name: value.numpy() for name, value in given.items() if name in self._inputs}
        if "state" not in self._inputs:  # groups know nothing of each other
            flat = {name: value.reshape(-1, *value.shape[2:]) for name, value in values.items()}
            frames = self._session.run(["frames"], flat)[0]
            return torch.from_numpy(frames).unflatten(0, audio.shape[:2]).flatten(1, 2)
        before = self.first_state(None).expand(len(audio), -1, -1, -1) if state is None else state
        held, made = before.numpy(), []
        for group in range(audio.shape[1]):
            now = {name: value[:, group] for name, value in values.items()}
            frames, held = self._session.run(["frames", "next_state"], now | {"state": held})
            made.append(frames)
        return torch.from_numpy(np.concatenate(made, axis=1))


def fitting(model: artifact.LoadedModel, wanted: Engine) -> Engine:
    """The engine for a model: the wanted one, or PyTorch where ONNX Runtime does not serve.

    It serves models of one face on the CPU. The graph of a model with an identity would encode the
    reference frame for every group anew.
    """
    on_cpu = model.face.codes.pose_mean.device.type == "cpu"
    return wanted if on_cpu and not model.config.model.identity else "torch"


def load_onnx(folder: Path, model: artifact.LoadedModel) -> OnnxFace:
    """The face of a model, run by ONNX Runtime.

    The graph is exported once, by a child process of low priority, and kept in the cache
    (:mod:`s2vgan.cache`) under the hashes of the model's files. Whenever it is loaded, it is
    compared with the network.

    Args:
        folder: of the model, as :func:`artifact.load` takes it.
        model: loaded from there.

    Raises:
        ConfigError: if the model's engine must be ``torch``, see :func:`fitting`.
        RunError: if the export fails, or its frames are others than the network's.
        DatasetError: if the cache cannot be written.
    """
    if fitting(model, "onnx") != "onnx":
        raise ConfigError("engine: ONNX Runtime runs models of one face on the CPU; use torch.")
    files = model.manifest["files"]
    parts = [files[artifact.WEIGHTS], files[artifact.CONFIG], torch.__version__]
    key = hashlib.sha256(" ".join(parts).encode()).hexdigest()
    weights = artifact.find(folder) / artifact.WEIGHTS
    return cache.fetch(
        f"graph-{key}",
        weights.stat().st_size,
        partial(_open, model.face),
        partial(_build, artifact.find(folder), model.face),
    )


def _open(face: Face, entry: Path) -> OnnxFace | None:
    """The graph of an entry; None if it is not whole, or of an older code's making."""
    path = entry / _GRAPH
    if not path.is_file():
        return None
    try:
        found = OnnxFace(face, path)
        return found if _difference(face, found) <= PARITY else None
    except Exception:  # onnxruntime's errors have no base of their own; it is exported again
        return None


def _build(folder: Path, face: Face, entry: Path) -> None:
    # In a process of its own: here it would hold the interpreter for seconds, while others speak.
    command = [
        "nice", sys.executable, "-m", "s2vgan.cli", "export", "--model", str(folder),
        "--out", str(entry / _GRAPH),
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=EXPORT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise RunError(
            f"{folder}: its export to ONNX took more than {EXPORT_SECONDS:g} s; use engine torch."
        ) from error
    if done.returncode:
        raise RunError(f"{folder}: no ONNX graph could be made of it: {done.stderr[-2000:]}")
    difference = _difference(face, OnnxFace(face, entry / _GRAPH))
    if difference > PARITY:
        raise RunError(
            f"{folder}: its frames by ONNX Runtime differ by {difference:.2g} from those of "
            "PyTorch, on [-1, 1]; use engine torch."
        )


@torch.inference_mode()
def _difference(face: Face, other: OnnxFace) -> float:
    """The largest difference of a value of two groups of two streams."""
    random = torch.Generator().manual_seed(0)
    sizes = {"z": (0,), "pose": (face.spec.frames_per_group, 0)} | input_shapes(
        face.config, face.spec
    )
    given: dict[str, Any] = {
        name: 0.1 * torch.randn(2, 2, *sizes[name], generator=random)
        for name in ("audio", "z", "pose")
    }
    state = face.first_state(None).expand(2, -1, -1, -1)
    expected = folded(face).speak(**given, state=state)
    return float((other.speak(**given, state=state) - expected).abs().max())
