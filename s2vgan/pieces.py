"""The stretches of time on which models are compared: of a split, or of other people's speech."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from s2vgan.dataset import GroupDataset
from s2vgan.errors import SourceError
from s2vgan.media import read_audio
from s2vgan.metrics import CANDIDATES

_SOUNDS = {".wav", ".flac", ".ogg", ".mp3", ".m4a", ".opus", ".webm"}


@dataclass(frozen=True)
class Piece:
    """A stretch of a split that is generated and compared.

    Attributes:
        video: number of its video.
        rows: (k,) of the dataset; empty for speech that nobody was filmed saying.
        real: (n, S, S, 3) uint8, the true frames; where there are none, frames of training time
            that tell what real ones are like.
        speech: float32 mono in [-1, 1] of the same time.
        other_speech: as long, of another moment of the same split; empty if there is no other.
        other_real: (n, S, S, 3) uint8, the true frames of that moment; empty likewise.
        others: seconds of speech of other pieces, among which the right one is looked for.
        reference: (S, S, 3) uint8, the frame that stands for who is in the video; None if no
            contender asks for it.
        other_reference: the same of another video; None if there is no other.
        known: what metrics have read of the true frames already.
    """

    video: int
    rows: np.ndarray
    real: np.ndarray
    speech: np.ndarray
    other_speech: np.ndarray
    other_real: np.ndarray
    others: Sequence[np.ndarray] = ()
    reference: np.ndarray | None = None
    other_reference: np.ndarray | None = None
    known: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    @property
    def is_filmed(self) -> bool:
        """Whether ``real`` are the true frames of the speech."""
        return len(self.rows) > 0


def cut_pieces(dataset: GroupDataset, rows: np.ndarray, seconds: float, frames: int) -> list[Piece]:
    """Pieces of at most ``seconds``, evenly chosen so that they hold about ``frames`` frames.

    Args:
        dataset: that ``rows`` belong to.
        rows: of a split, in time order.
        seconds: longest piece.
        frames: bound on their sum; one piece is always given if there are rows.
    """
    longest = max(1, round(seconds / dataset.spec.seconds))
    parts: list[np.ndarray] = []
    for segment in dataset.segments(rows):
        parts.extend(np.array_split(segment, -(-len(segment) // longest)))
    parts = _some(parts, frames // dataset.spec.frames_per_group)
    if not parts:
        return []
    speech = [dataset.speech(part) for part in parts]
    elsewhere = other_moments([len(part) for part in parts])
    everything = np.concatenate(parts)
    # Speech lies in groups of one size: those of another moment are taken as they are.
    grouped = np.concatenate(speech).reshape(len(everything), -1)
    candidates = _candidates(speech, dataset.spec.sample_rate)
    pieces = []
    for part, said, other, seconds_of_others in zip(
        parts, speech, elsewhere, candidates, strict=True
    ):
        video = int(dataset.video[part[0]])
        own = next_one = None
        if (people := dataset.references) is not None:
            own = people[video]
            next_one = people[(video + 1) % len(people)] if len(people) > 1 else None
        pieces.append(
            Piece(
                video,
                part,
                _frames(dataset, part),
                said,
                grouped[other].reshape(-1),
                _frames(dataset, everything[other]),
                seconds_of_others,
                own,
                next_one,
            )
        )
    return pieces


def cut_speech(
    sounds: Sequence[np.ndarray],
    dataset: GroupDataset,
    training: np.ndarray,
    seconds: float,
    frames: int,
) -> list[Piece]:
    """Pieces of speech by people who are not in the dataset; all belong to its first video.

    Args:
        sounds: float32 mono in [-1, 1] at the dataset's rate, one for each file.
        dataset: whose training frames tell what real frames are like.
        training: rows of training time.
        seconds: longest piece.
        frames: bound on their sum; one piece is always given if there is speech.
    """
    spec = dataset.spec
    longest = max(1, round(seconds / spec.seconds))
    parts: list[np.ndarray] = []
    for sound in sounds:
        groups = sound[: len(sound) // spec.samples_per_group * spec.samples_per_group]
        groups = groups.reshape(-1, spec.samples_per_group)
        if len(groups):
            parts.extend(np.array_split(groups, -(-len(groups) // longest)))
    parts = _some(parts, frames // spec.frames_per_group)
    if not parts:
        return []
    speech = [part.reshape(-1) for part in parts]
    everything = np.concatenate(parts)
    candidates = _candidates(speech, spec.sample_rate)
    first = training[dataset.video[training] == dataset.video[training[0]]]
    people = dataset.references
    pieces, none = [], np.empty((0, *spec.frame_shape[1:]), np.uint8)
    for number, (part, other) in enumerate(
        zip(parts, other_moments([len(part) for part in parts]), strict=True)
    ):
        start = number * len(part) % max(1, len(first) - len(part) + 1)
        alike = np.resize(first[start : start + len(part)], len(part))
        pieces.append(
            Piece(
                int(dataset.video[first[0]]),
                np.empty(0, np.int64),
                _frames(dataset, alike),
                speech[number],
                everything[other].reshape(-1),
                none,
                candidates[number],
                None if people is None else people[int(dataset.video[first[0]])],
            )
        )
    return pieces


def read_speech(paths: Sequence[str | Path], sample_rate: int) -> list[np.ndarray]:
    """The speech of files, and of the sound files in folders, in the order of their names.

    Raises:
        SourceError: if there is no such file, none in a folder, or one is unreadable.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if not path.exists():
            raise SourceError(f"{path}: no such file or folder of speech; correct --unseen.")
        found = [path] if path.is_file() else sorted(path.iterdir())
        sounds = [file for file in found if path.is_file() or file.suffix.lower() in _SOUNDS]
        if not sounds:
            raise SourceError(f"{path}: holds no sound file; correct --unseen.")
        files += sounds
    return [read_audio(file, sample_rate) for file in files]


def other_moments(counts: Sequence[int]) -> list[np.ndarray]:
    """For each piece as many groups of another moment of the same split, from a random one on.

    Random, because at a fixed distance sentences of one length would start and end in step. A
    split of one group has no other moment, and gets none.

    Args:
        counts: groups of each piece.

    Returns:
        Numbers of groups among those of all pieces in a row, of other pieces where there are.
    """
    random = np.random.default_rng(0)
    total, start, found = sum(counts), 0, []
    for count in counts:
        if total < 2:
            found.append(np.empty(0, np.int64))
            continue
        apart = total // 2 if total < 3 * count else int(random.integers(count, total - count))
        found.append((start + apart + np.arange(count)) % total)
        start += count
    return found


def _candidates(speech: Sequence[np.ndarray], second: int) -> list[list[np.ndarray]]:
    """For each piece some seconds of speech of other pieces; none where there are too few."""
    random = np.random.default_rng(1)
    bank = [
        (number, said[start : start + second])
        for number, said in enumerate(speech)
        for start in range(0, len(said) - second + 1, second)
    ]
    found: list[list[np.ndarray]] = []
    for number in range(len(speech)):
        others = [said for owner, said in bank if owner != number]
        if len(others) < CANDIDATES - 1:
            found.append([])
            continue
        chosen = random.choice(len(others), CANDIDATES - 1, replace=False)
        found.append([others[place] for place in chosen])
    return found


def _some(parts: list[np.ndarray], groups: int) -> list[np.ndarray]:
    """Parts in the middles of equal shares, that hold about so many groups in all."""
    total = sum(len(part) for part in parts)
    if total <= groups:
        return parts
    count = max(1, len(parts) * groups // total)
    # The middles of equal shares: the first and last piece are no better than others.
    chosen = ((np.arange(count) + 0.5) * len(parts) / count).astype(int)
    return [parts[number] for number in chosen]


def _frames(dataset: GroupDataset, rows: np.ndarray) -> np.ndarray:
    """Frames (n * T, S, S, 3) of some rows."""
    frames = dataset.frames[rows]
    return frames.reshape(-1, *frames.shape[2:])
