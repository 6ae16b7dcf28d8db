"""How fast a face speaks on one thread, with the default model at 64x64 and random weights.

python bench/synthesis.py [--rounds 5]

Everything takes turns in one run, so that a busy machine disturbs all alike; a gain is the median
of the rounds' ratios of CPU seconds:

- ``rtf``: CPU seconds per second of video, groups one after another as they come in a live stream,
  audio features included, by ONNX Runtime as in the service; ``rtf_torch`` by PyTorch;
- ``rtf_file``, ``rtf_file_torch``: the same for a whole file, in blocks of groups;
- ``encode_share``: CPU seconds of encoding the file's MP4 over those of its synthesis by PyTorch;
- ``fold_gain``, ``compile_gain``, ``onnx_gain``: one group of one stream by the network as it was
  trained, over the same folded, by torch.compile of the folded one, and by ONNX Runtime;
- ``batch_gain_8``, ``batch_gain_24``: CPU seconds of a live group of one stream alone, over those
  of a group of 8 and of 24 streams that advance together, by ONNX Runtime; ``torch_batch_gain_8``
  by PyTorch;
- ``vs_wav2lip``: output pixels per CPU second of a live stream over those of a generator of the
  size of Wav2Lip's, frame by frame, without its audio features. ``vs_wav2lip_batched`` is both in
  batches: 8 streams against 24 frames.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from _report import Target, report
from _wav2lip import FACE_INPUTS, MEL_SHAPE, SIZE, Wav2LipSized

from s2vgan.artifact import LoadedModel
from s2vgan.config import Config
from s2vgan.engine import OnnxFace
from s2vgan.export import export_onnx, input_shapes
from s2vgan.media import encode_fragmented
from s2vgan.models import TalkingFace, folded
from s2vgan.spec import GroupSpec
from s2vgan.synthesis import Synthesizer, advance

SECONDS = 4
GROUPS = 20  # of each turn of what makes one group at a time
TARGETS: Final = {"rtf": Target(0.10, 0.03), "vs_wav2lip": Target(20, 60, higher=True)}
Turn = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description="Speed of synthesis; see the file's docstring.")
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    model = default_model()
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(model, Path(folder) / "model.onnx")
        onnx = OnnxFace(model.face, Path(folder) / "model.onnx")
    turns = speaking(model, onnx) | network(model, onnx) | other(model.spec)
    spent: dict[str, list[float]] = {name: [] for name in turns}
    for round_ in range(rounds + 1):
        for name, turn in turns.items():
            started = time.process_time()
            turn()
            if round_:  # the first warms up
                spent[name].append(time.process_time() - started)
    figures = figures_of(spent, model.spec)
    report("synthesis", figures, TARGETS)


def default_model() -> LoadedModel:
    """The default model with random weights, at 64x64."""
    torch.manual_seed(0)
    config, spec = Config(), GroupSpec()
    return LoadedModel(TalkingFace(config.model, spec).eval(), config, spec, {})


def figures_of(spent: dict[str, list[float]], spec: GroupSpec) -> dict[str, float]:
    """The figures, of the CPU seconds of each turn in each round."""

    def ratio(above: str, below: str) -> float:
        pairs = zip(spent[above], spent[below], strict=True)
        return statistics.median(a / b for a, b in pairs)

    live = GROUPS * spec.seconds / SECONDS  # turns make GROUPS groups, a file SECONDS
    ours, theirs = spec.size**2 * spec.frames_per_group, SIZE**2
    return {
        "rtf": statistics.median(spent["live"]) / SECONDS,
        "rtf_torch": statistics.median(spent["live_torch"]) / SECONDS,
        "rtf_file": statistics.median(spent["file"]) / SECONDS,
        "rtf_file_torch": statistics.median(spent["file_torch"]) / SECONDS,
        "encode_share": ratio("encode", "file_torch"),
        "fold_gain": ratio("trained", "folded"),
        "compile_gain": ratio("trained", "compiled"),
        "onnx_gain": ratio("trained", "onnx"),
        "batch_gain_8": ratio("live", "together_8") * live * 8,
        "batch_gain_24": ratio("live", "together_24") * live * 24,
        "torch_batch_gain_8": ratio("live_torch", "together_8_torch") * live * 8,
        "vs_wav2lip": ratio("wav2lip", "live") / live * ours / theirs,
        "vs_wav2lip_batched": ratio("wav2lip_24", "together_8") * GROUPS * 8 * ours / (24 * theirs),
    }


def speaking(model: LoadedModel, onnx: OnnxFace) -> dict[str, Turn]:
    """Streams and files through the library's own interface."""
    by_torch, by_onnx, spec = Synthesizer(model), Synthesizer(model, onnx), model.spec
    random = np.random.default_rng(0)
    speech = random.normal(0, 0.1, SECONDS * spec.sample_rate).astype(np.float32)
    frames = by_torch.speak(speech)

    def live(synthesizer: Synthesizer) -> None:
        stream = synthesizer.stream()
        for start in range(0, len(speech), spec.samples_per_group):
            stream.push(speech[start : start + spec.samples_per_group])
        stream.finish()

    def encode() -> None:
        for _ in encode_fragmented(frames, spec.fps, speech, spec.sample_rate):
            pass

    def together(synthesizer: Synthesizer, count: int) -> None:
        """GROUPS groups of each of ``count`` streams, one group of all at a time."""
        streams = [synthesizer.stream(seed) for seed in range(count)]
        ahead = round(model.config.model.audio_ahead * spec.sample_rate)
        for stream in streams:
            stream.feed(speech[:ahead])
        for start in range(ahead, ahead + GROUPS * spec.samples_per_group, spec.samples_per_group):
            for stream in streams:
                stream.feed(speech[start : start + spec.samples_per_group])
            advance(streams)

    return {
        "live": lambda: live(by_onnx),
        "live_torch": lambda: live(by_torch),
        "file": lambda: by_onnx.speak(speech),
        "file_torch": lambda: by_torch.speak(speech),
        "encode": encode,
        "together_8": lambda: together(by_onnx, 8),
        "together_24": lambda: together(by_onnx, 24),
        "together_8_torch": lambda: together(by_torch, 8),
    }


def network(model: LoadedModel, onnx: OnnxFace) -> dict[str, Turn]:
    """GROUPS groups of the bare network, by each engine."""
    shapes = input_shapes(model.config.model, model.spec)
    given = {name: torch.randn(1, *shape) * 0.1 for name, shape in shapes.items()}
    inputs = [given[name].unsqueeze(1) for name in ("audio", "z", "pose")]

    def groups(speak: Callable[..., torch.Tensor]) -> Turn:
        @torch.inference_mode()
        def turn() -> None:
            for _ in range(GROUPS):
                speak(*inputs, given["state"])

        return turn

    lean = folded(model.face)
    return {
        "trained": groups(model.face.speak),
        "folded": groups(lean.speak),
        "compiled": groups(torch.compile(lean.speak)),
        "onnx": groups(onnx.speak),
    }


def other(spec: GroupSpec) -> dict[str, Turn]:
    """GROUPS frames, and batches of 24, by a generator of the size of Wav2Lip's."""
    generator = Wav2LipSized().eval()

    def frames(count: int, times: int) -> Turn:
        mel, face = torch.randn(count, *MEL_SHAPE), torch.randn(count, FACE_INPUTS, SIZE, SIZE)

        @torch.inference_mode()
        def turn() -> None:
            for _ in range(times):
                generator(mel, face)

        return turn

    return {"wav2lip": frames(1, GROUPS), "wav2lip_24": frames(24, 1)}


if __name__ == "__main__":
    main()
