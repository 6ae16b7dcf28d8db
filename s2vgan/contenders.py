"""Who stands in the table: runs, and the controls that tell what a number is worth.

Both answer alike: frames for a piece of time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from s2vgan.dataset import GroupDataset

SHUFFLED = "shuffled_audio"
WRONG_SPEAKER = "wrong_speaker"

_CHUNK = 256  # groups of a video that are in memory at a time


@dataclass(frozen=True)
class Piece:
    """A stretch of a split that is generated and compared.

    Attributes:
        video: number of its video.
        real: (n, S, S, 3) uint8, the true frames.
        speech: float32 mono in [-1, 1] of the same time.
        other_speech: as long, of another moment of the same split; empty if there is no other.
        reference: (S, S, 3) uint8, the frame that stands for who is in the video; None if no
            contender asks for it.
        other_reference: the same of another video; None if there is no other.
    """

    video: int
    real: np.ndarray
    speech: np.ndarray
    other_speech: np.ndarray
    reference: np.ndarray | None = None
    other_reference: np.ndarray | None = None


Speak = Callable[[Piece], np.ndarray]


class Speaker(Protocol):
    """What evaluation asks of a model; :class:`s2vgan.synthesis.Synthesizer` is one."""

    @property
    def has_pose(self) -> bool:
        """Whether it takes a pose code."""

    @property
    def has_identity(self) -> bool:
        """Whether it takes a reference frame of who speaks."""

    def speak(
        self,
        audio: np.ndarray,
        seed: int = 0,
        pose: np.ndarray | None = None,
        reference: np.ndarray | None = None,
    ) -> np.ndarray:
        """Frames (n, S, S, 3) uint8 for a piece of speech."""

    def pose_of(self, frames: np.ndarray, reference: np.ndarray | None = None) -> np.ndarray:
        """Pose codes (n, P) of real frames."""


@dataclass(frozen=True)
class Contender:
    """A run in the table.

    Attributes:
        name: short, unique in the table.
        run: its folder.
        seed: of its training.
        held_out: share of each video's end that its training never saw.
        speaker: its model.
    """

    name: str
    run: str
    seed: int | None
    held_out: float
    speaker: Speaker


@dataclass(frozen=True)
class Entry:
    """One row before it is measured: who speaks, and how."""

    name: str
    kind: Literal["model", "control"]
    speak: Speak
    run: str | None = None
    seed: int | None = None
    pose: Literal["reference", "true"] | None = None

    def can_speak(self, piece: Piece) -> bool:
        """Whether there is what this row needs: another moment, or another person."""
        if self.name == SHUFFLED:
            return len(piece.other_speech) > 0
        return self.name != WRONG_SPEAKER or piece.other_reference is not None

    @property
    def label(self) -> str:
        """Name for people, unique in a split."""
        pose = ", true pose" if self.pose == "true" else ""
        owner = f" of {Path(self.run).name}" if self.kind == "control" and self.run else ""
        return f"{self.name}{owner}{pose}"


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
    total = sum(len(part) for part in parts) * dataset.spec.frames_per_group
    if total > frames:
        count = max(1, len(parts) * frames // total)
        # The middles of equal shares: the first and last piece are no better than others.
        chosen = ((np.arange(count) + 0.5) * len(parts) / count).astype(int)
        parts = [parts[number] for number in chosen]
    if not parts:
        return []
    speech = [dataset.speech(part) for part in parts]
    wrong = _other_speech(speech, dataset.spec.samples_per_group)
    pieces = []
    for part, said, other in zip(parts, speech, wrong, strict=True):
        video, real = int(dataset.video[part[0]]), np.concatenate(dataset.frames[part])
        own = next_one = None
        if (people := dataset.references) is not None:
            own = people[video]
            next_one = people[(video + 1) % len(people)] if len(people) > 1 else None
        pieces.append(Piece(video, real, said, other, own, next_one))
    return pieces


def _other_speech(speech: list[np.ndarray], group: int) -> list[np.ndarray]:
    """For each piece as much speech of another moment of the same split, from a random group on.

    Random, because at a fixed distance sentences of one length would start and end in step. A
    split of one group has no other moment, and gets empty speech.
    """
    random = np.random.default_rng(0)
    everything = np.concatenate(speech)
    total, start = len(everything), 0
    if total < 2 * group:
        return [everything[:0] for _ in speech]
    others = []
    for said in speech:
        size = len(said)
        apart = total // 2 if total < 3 * size else int(random.integers(size, total - size))
        apart -= apart % group
        places = np.arange(start + apart, start + apart + size)
        others.append(everything.take(places, mode="wrap"))
        start += size
    return others


def from_run(contender: Contender) -> Iterator[Entry]:
    """The rows of one run: its pose held, its pose from the true video, and controls.

    The controls are the model itself, given other_speech (``shuffled_audio``) or, where it has an
    identity, the reference frame of another person (``wrong_speaker``).
    """
    speaker = contender.speaker
    row = partial(Entry, run=contender.run, seed=contender.seed)

    def own(piece: Piece) -> np.ndarray | None:
        return piece.reference if speaker.has_identity else None

    yield row(
        contender.name,
        "model",
        lambda piece: speaker.speak(piece.speech, reference=own(piece)),
        pose="reference",
    )
    if speaker.has_pose:
        yield row(
            contender.name,
            "model",
            lambda piece: speaker.speak(
                piece.speech, pose=speaker.pose_of(piece.real, own(piece)), reference=own(piece)
            ),
            pose="true",
        )
    yield row(
        SHUFFLED,
        "control",
        lambda piece: speaker.speak(piece.other_speech, reference=own(piece)),
        pose="reference",
    )
    if speaker.has_identity:
        yield row(
            WRONG_SPEAKER,
            "control",
            lambda piece: speaker.speak(piece.speech, reference=piece.other_reference),
            pose="reference",
        )


def from_data(dataset: GroupDataset, rows: np.ndarray) -> list[Entry]:
    """The controls that need no model.

    ``mean_face``: the mean of the video's training frames, held still. ``medoid_frame``: the real
    training frame nearest to that mean (so the medoid under squared distance), held still: as
    sharp as a face can be without motion. ``noise``: uniform noise.

    Args:
        dataset: to take frames from.
        rows: training time.
    """
    means, medoids = {}, {}
    for video in np.unique(dataset.video[rows]):
        own = rows[dataset.video[rows] == video]
        parts = np.array_split(own, -(-len(own) // _CHUNK))
        mean = sum(_frames(dataset, part).sum(axis=0, dtype=np.float64) for part in parts)
        mean = mean / (len(own) * dataset.spec.frames_per_group)
        nearest, least = np.empty(0), np.inf
        for part in parts:
            for frame in _frames(dataset, part):
                distance = np.square(frame - mean).mean()
                if distance < least:
                    nearest, least = frame.copy(), distance
        means[video] = mean.round().astype(np.uint8)
        medoids[video] = nearest
    noise = np.random.default_rng(0)

    def still(face: np.ndarray, piece: Piece) -> np.ndarray:
        return np.broadcast_to(face, piece.real.shape).copy()

    controls: dict[str, Speak] = {
        "mean_face": lambda piece: still(means[piece.video], piece),
        "medoid_frame": lambda piece: still(medoids[piece.video], piece),
        "noise": lambda piece: noise.integers(0, 256, piece.real.shape, dtype=np.uint8),
    }
    return [Entry(name, "control", speak) for name, speak in controls.items()]


def _frames(dataset: GroupDataset, rows: np.ndarray) -> np.ndarray:
    """Frames (n * T, S, S, 3) of some rows."""
    return np.concatenate(dataset.frames[rows])
