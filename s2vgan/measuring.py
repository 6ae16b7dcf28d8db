"""One entry on one split: its frames, its metrics over blocks of time, its extreme seconds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from s2vgan.contenders import Entry
from s2vgan.metrics import Instruments, Stretch, estimate, measure
from s2vgan.pieces import Piece
from s2vgan.regions import MOUTH
from s2vgan.spec import GroupSpec

_BLOCK_SECONDS = 3.0  # resampled whole by the bootstrap


@dataclass(frozen=True)
class Extreme:
    """The second that a model did best or worst, by the squared error of its mouth.

    Attributes:
        entry: the model, its pose held.
        kind: best or worst.
        seconds: where it starts, in the time of the split that was measured.
        error: mean squared error of the mouth on [-1, 1].
        real: (n, S, S, 3) uint8.
        made: like ``real``.
    """

    entry: Entry
    kind: Literal["best", "worst"]
    seconds: float
    error: float
    real: np.ndarray
    made: np.ndarray


@dataclass(frozen=True)
class Take:
    """What one entry made of a split: its frames, and the metrics' sums over blocks of time."""

    made: list[np.ndarray]
    blocks: dict[str, np.ndarray]


def take(
    entry: Entry,
    pieces: Sequence[Piece],
    instruments: Instruments,
    names: Sequence[str],
    spec: GroupSpec,
    bar: "tqdm[Any]",
) -> Take:
    """Let an entry speak all pieces, and measure it in one pass.

    Args:
        entry: who speaks.
        pieces: of the split.
        instruments: to measure with.
        names: of the metrics.
        spec: of the groups.
        bar: told of every frame.
    """
    blocks: dict[str, list[np.ndarray]] = {}
    frames = []
    for piece in pieces:
        made = entry.speak(piece)[: len(piece.real)]
        count = -(-len(made) // round(_BLOCK_SECONDS * spec.fps))
        stretch = Stretch(
            made,
            piece.real,
            spec.frames_per_group,
            piece.speech,
            entry.hear(piece) if entry.hear else None,
            piece.others,
            piece.is_filmed,
            piece.known,
        )
        for name, counted in measure(stretch, instruments, names).items():
            parts = np.array_split(counted, count)
            blocks.setdefault(name, []).extend(part.sum(axis=0) for part in parts)
        frames.append(made)
        bar.update(len(made))
    return Take(frames, {name: np.stack(parts) for name, parts in blocks.items()})


def row(entry: Entry, split: str, took: Take) -> dict[str, Any]:
    """A row of metrics.json."""
    found = {name: estimate(name, blocks) for name, blocks in took.blocks.items()}
    return {
        "name": entry.name,
        "run": entry.run,
        "seed": entry.seed,
        "kind": entry.kind,
        "split": split,
        "pose": entry.pose,
        "n": sum(len(made) for made in took.made),
        "metrics": {name: value.to_dict() for name, value in found.items() if value is not None},
    }


def extremes(
    entry: Entry, pieces: Sequence[Piece], made: Sequence[np.ndarray], fps: int
) -> list[Extreme]:
    """The best and the worst whole second; none where every piece is shorter."""
    rows, columns = MOUTH.slices(pieces[0].real.shape[1])
    found = []
    for number, (piece, frames) in enumerate(zip(pieces, made, strict=True)):
        before = sum(len(other.real) for other in pieces[:number])
        for start in range(0, len(frames) - fps + 1, fps):
            second = slice(start, start + fps)
            mouths = (part[second, rows, columns] / 127.5 for part in (frames, piece.real))
            error = float(np.square(np.subtract(*mouths)).mean())
            found.append((error, (before + start) / fps, piece.real[second], frames[second]))
    found.sort(key=lambda item: item[0])
    kinds: list[tuple[Literal["best", "worst"], int]] = [("best", 0), ("worst", -1)]
    return [
        Extreme(entry, kind, found[place][1], found[place][0], *found[place][2:])
        for kind, place in kinds
        if found
    ]
