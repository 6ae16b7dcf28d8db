"""Who stands in the table: entries answer with frames for a piece of time. Here those of runs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from s2vgan.config import Config
from s2vgan.pieces import Piece

SHUFFLED, SILENCE, OTHER_TIME = "shuffled_audio", "silence", "other_time"
WRONG_SPEAKER = "wrong_speaker"

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
        config: of its training; None where it is not known.
    """

    name: str
    run: str
    seed: int | None
    held_out: float
    speaker: Speaker
    config: Config | None = None


@dataclass(frozen=True)
class Entry:
    """One row before it is measured: who speaks, and how.

    Attributes:
        name: of the run or the control.
        kind: model or control.
        speak: frames for a piece.
        run: folder of the model.
        seed: of its training.
        pose: held at the reference, or taken from the true video.
        hear: what it is given instead of a piece's own speech.
        wants_film: it looks at the true frames, so it needs a piece that was filmed.
    """

    name: str
    kind: Literal["model", "control"]
    speak: Speak
    run: str | None = None
    seed: int | None = None
    pose: Literal["reference", "true"] | None = None
    hear: Callable[[Piece], np.ndarray] | None = None
    wants_film: bool = False

    def can_speak(self, piece: Piece) -> bool:
        """Whether there is what this row needs: a film, another moment, or another person."""
        if self.name in (SHUFFLED, OTHER_TIME) and not len(piece.other_speech):
            return False
        if self.name == WRONG_SPEAKER and piece.other_reference is None:
            return False
        return piece.is_filmed or not self.wants_film

    @property
    def label(self) -> str:
        """Name for people, unique in a split."""
        pose = ", true pose" if self.pose == "true" else ""
        owner = f" of {Path(self.run).name}" if self.kind == "control" and self.run else ""
        return f"{self.name}{owner}{pose}"


def from_run(contender: Contender) -> Iterator[Entry]:
    """The rows of one run: its pose held, its pose from the true video, and controls.

    The controls are the model itself, given the speech of another moment (``shuffled_audio``),
    zeros (``silence``) or, where it has an identity, the reference frame of another person
    (``wrong_speaker``).
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
            wants_film=True,
        )

    def given(hear: Callable[[Piece], np.ndarray]) -> Speak:
        return lambda piece: speaker.speak(hear(piece), reference=own(piece))

    for name, hear in ((SHUFFLED, _other_speech), (SILENCE, _silence)):
        yield row(name, "control", given(hear), pose="reference", hear=hear)
    if speaker.has_identity:
        yield row(
            WRONG_SPEAKER,
            "control",
            lambda piece: speaker.speak(piece.speech, reference=piece.other_reference),
            pose="reference",
        )


def _other_speech(piece: Piece) -> np.ndarray:
    return piece.other_speech


def _silence(piece: Piece) -> np.ndarray:
    return np.zeros_like(piece.speech)
