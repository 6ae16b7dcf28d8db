"""What it costs to evaluate: all metrics of 1,000 frames, and each metric's share.

    python bench/evaluation.py

renders a talking head, extracts it, and measures its held-out frames against a blurred copy, which
stands for a model: the model's own work is not counted. LPIPS counts where its weights are there.

Figures: ``seconds_per_1000`` (process time of all metrics for 1,000 frames, readings of the real
ones included, as for the first row of a table), ``next_seconds_per_1000`` (for a further row, which
shares those readings), ``over_lpips`` (all metrics over LPIPS alone; 0 without its weights), and
``share_NAME`` for each metric that takes 2 % or more.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from _report import report

from s2vgan import demo, extraction, ledger
from s2vgan.dataset import GroupDataset
from s2vgan.known import Options
from s2vgan.metrics import METRICS, Instruments, Stretch, measure, mouth_opening_luma
from s2vgan.pieces import Piece, cut_pieces
from s2vgan.rulers import make_instruments
from s2vgan.spec import GroupSpec

SECONDS = 60
ROUNDS = 3


def main() -> None:
    """Render, extract, measure, print."""
    with tempfile.TemporaryDirectory() as folder:
        video = demo.render(Path(folder) / "head.mp4", seconds=SECONDS).video
        data = Path(folder) / "data"
        extraction.extract_video(str(video), data, Options())
        ledger.write_dataset(data, GroupSpec())
        dataset = GroupDataset.load(data)
        training, held_out = dataset.split(0.4)
        pieces = cut_pieces(dataset, held_out, 10, 10**6)
        notes: list[str] = []
        instruments = make_instruments(dataset, training, mouth_opening_luma, tuple(METRICS), notes)
    print(*notes, sep="\n")
    frames = sum(len(piece.real) for piece in pieces)
    first, following, shares = [], [], []
    for _ in range(ROUNDS):
        fresh = [_stretch(piece, {}) for piece in pieces]
        first.append(_cost(fresh, instruments))
        following.append(
            _cost([_stretch(piece, one.known) for piece, one in zip(pieces, fresh, strict=True)],
                  instruments)
        )  # fmt: skip
        shares.append(
            {
                name: sum(_cost([_stretch(piece, {})], instruments, name) for piece in pieces)
                for name in METRICS
            }
        )
    seconds = {name: float(np.median([round_[name] for round_ in shares])) for name in METRICS}
    whole, alone = sum(seconds.values()), seconds["lpips"]
    figures = {
        "seconds_per_1000": float(np.median(first)) / frames * 1000,
        "next_seconds_per_1000": float(np.median(following)) / frames * 1000,
        "over_lpips": float(np.median(first)) / alone if instruments.lpips else 0.0,
    }
    figures |= {
        f"share_{name}": taken / whole for name, taken in seconds.items() if taken > 0.02 * whole
    }
    report("evaluation", figures)


def _stretch(piece: Piece, known: dict[Any, Any]) -> Stretch:
    """A piece's frames, blurred, against the real ones."""
    made = np.stack([cv2.GaussianBlur(frame, (0, 0), 1.0) for frame in piece.real])
    return Stretch(made, piece.real, 3, piece.speech, None, piece.others, True, known)


def _cost(stretches: list[Stretch], instruments: Instruments, *names: str) -> float:
    """Process seconds to measure them, by the named metrics or all."""
    started = time.process_time()
    for stretch in stretches:
        measure(stretch, instruments, names or METRICS)
    return time.process_time() - started


if __name__ == "__main__":
    main()
