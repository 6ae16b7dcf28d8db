"""What metrics look at (a stretch of frames), and what they look with (instruments)."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from s2vgan.metrics.components import MouthComponents
from s2vgan.metrics.mouth import mouth_opening_luma
from s2vgan.metrics.networks import IdentityModel, SyncNet
from s2vgan.metrics.perceptual import Lpips
from s2vgan.metrics.sync import SyncMeter

Opening = Callable[[np.ndarray], np.ndarray]
NO_SPEECH = np.empty(0, np.float32)


@dataclass(frozen=True)
class Instruments:
    """What metrics measure with; a metric whose instrument is None is left out.

    Attributes:
        opening: mouth opening of (N, S, S, 3) uint8 frames, for mouth_r and mouth_amplitude.
        lpips: perceptual distance.
        device: of the tensors handed to ``lpips``.
        components: pose-free components of the mouth.
        sync: of the mouth with the speech.
        upper_sync: of the upper face, the control of ``sync``.
        syncnet: of a user's weights.
        identity: an embedding of a user's.
    """

    opening: Opening = mouth_opening_luma
    lpips: Lpips | None = None
    device: str = "cpu"
    components: MouthComponents | None = None
    sync: SyncMeter | None = None
    upper_sync: SyncMeter | None = None
    syncnet: SyncNet | None = None
    identity: IdentityModel | None = None


@dataclass(frozen=True)
class Stretch:
    """Generated and real frames, without a gap in time.

    Attributes:
        generated: (N, S, S, 3) uint8.
        real: like generated, of the same instants unless ``paired`` is false.
        frames_per_group: T; the first frame is the first of a group.
        speech: float32 in [-1, 1] of the same instants; empty where it is not known.
        heard: what the generated frames were made from; None for ``speech``.
        others: seconds of other speech, among which the right one is looked for.
        paired: whether ``real`` is of the same instants; where it is not, it only tells what real
            frames are like, and metrics that compare frame with frame are left out.
        known: of the real frames, what was computed already; hand the same one to all that are
            compared with them.
    """

    generated: np.ndarray
    real: np.ndarray
    frames_per_group: int = 3
    speech: np.ndarray = field(default_factory=lambda: NO_SPEECH)
    heard: np.ndarray | None = None
    others: Sequence[np.ndarray] = ()
    paired: bool = True
    known: dict[Hashable, Any] = field(default_factory=dict, repr=False)
    _made: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.generated.shape != self.real.shape:
            raise ValueError(f"generated {self.generated.shape}, real {self.real.shape}")

    @cached_property
    def starts_group(self) -> np.ndarray:
        """(N,) bool: the frame is the first of its group."""
        return np.arange(len(self.real)) % self.frames_per_group == 0

    def of_made(self, reading: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """A reading of the generated frames, taken once."""
        return _once(self._made, reading, self.generated)

    def of_real(self, reading: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """A reading of the real frames, taken once."""
        return _once(self.known, reading, self.real)

    def of_talk(self, reading: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
        """A reading of the generated frames with the speech, taken once."""
        if reading not in self._made:
            self._made[reading] = reading(self.generated, self.speech)
        return self._made[reading]

    def of_speech(self, reading: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
        """A reading of the speech of all frames, taken once."""
        if reading not in self.known:
            self.known[reading] = reading(self.speech, len(self.real))
        return self.known[reading]


def _once(
    known: dict[Hashable, Any], reading: Callable[[np.ndarray], np.ndarray], frames: np.ndarray
) -> np.ndarray:
    if reading not in known:
        known[reading] = reading(frames)
    return known[reading]
