"""The parts of the synthesis bench that need no measurement. It is not run here: a minute."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from s2vgan.spec import GroupSpec
from tests.benches import loaded


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    """bench/synthesis.py as a module."""
    with loaded("synthesis") as module:
        yield module


def test_the_other_generator_has_the_published_size(bench: Any) -> None:
    generator = bench.Wav2LipSized().eval()
    parameters = sum(weight.numel() for weight in generator.parameters())
    assert abs(parameters / 36.3e6 - 1) < 0.02
    with torch.inference_mode():
        frame = generator(torch.zeros(1, *bench.MEL_SHAPE), torch.zeros(1, 6, 96, 96))
    assert frame.shape == (1, 3, 96, 96) and 0 <= frame.min() <= frame.max() <= 1


def test_figures_of_known_times(bench: Any) -> None:
    """A group costs 1 ms everywhere, a frame of the other generator 10 ms, encoding nothing."""
    groups = bench.SECONDS * 10
    seconds = {
        "live": groups, "live_torch": 3 * groups, "file": groups, "file_torch": 2 * groups,
        "encode": 0, "trained": 2 * bench.GROUPS, "folded": bench.GROUPS,
        "compiled": bench.GROUPS, "onnx": bench.GROUPS, "together_8": 4 * bench.GROUPS,
        "together_8_torch": 8 * bench.GROUPS, "together_24": 24 * bench.GROUPS,
        "wav2lip": 10 * bench.GROUPS, "wav2lip_24": 240,
    }  # fmt: skip
    spent = {name: [value / 1000] * 3 for name, value in seconds.items()}
    pixels = 3 * 64**2 / 96**2
    assert bench.figures_of(spent, GroupSpec()) == pytest.approx(
        {
            "rtf": 0.01, "rtf_torch": 0.03, "rtf_file": 0.01, "rtf_file_torch": 0.02,
            "encode_share": 0, "fold_gain": 2, "compile_gain": 2, "onnx_gain": 2,
            "batch_gain_8": 2, "batch_gain_24": 1, "torch_batch_gain_8": 3,
            "vs_wav2lip": 10 * pixels, "vs_wav2lip_batched": 20 * pixels,
        }
    )  # fmt: skip
