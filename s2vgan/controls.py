"""The controls that need no model: they tell what a number is worth."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from s2vgan.contenders import OTHER_TIME, Entry
from s2vgan.dataset import GroupDataset
from s2vgan.metrics.image import gradient_energy
from s2vgan.metrics.sync import context, log_mel
from s2vgan.pieces import Piece

_CHUNK = 256  # groups of a video that are in memory at a time
_MEDIAN_FRAMES = 900  # that a median is taken of, at most
_SPAN = 6  # frames of speech either way that two groups are compared by
_APART = 10  # groups; a nearer one is the same moment


def from_data(dataset: GroupDataset, rows: np.ndarray) -> list[Entry]:
    """The controls that need no model, from frames of training time.

    Held still: ``mean_face`` and ``median_face`` of the video, ``medoid_frame`` (the real frame
    nearest to the mean, so the medoid under squared distance: as sharp as a face can be without
    motion) and ``sharpest_frame`` (the real frame with the most gradient energy). Moving:
    ``previous_frame`` (the true frame before each, an oracle), ``nearest_audio`` (the real frames
    of the training group whose speech sounds most alike), ``other_time`` (real frames of another
    moment). ``noise`` is uniform. ``real_frames`` are the true frames themselves: what sync
    measures can reach.

    Args:
        dataset: to take frames from.
        rows: training time.
    """
    stills: dict[str, dict[int, np.ndarray]] = {}
    for video in np.unique(dataset.video[rows]):
        for name, face in _stills(dataset, rows[dataset.video[rows] == video]).items():
            stills.setdefault(name, {})[int(video)] = face
    noise = np.random.default_rng(0)
    retrieval = _Retrieval.over(dataset, rows)
    entry = partial(Entry, kind="control")
    return [
        *(entry(name, speak=partial(_held, faces)) for name, faces in stills.items()),
        entry("previous_frame", speak=_previous, wants_film=True),
        entry("nearest_audio", speak=retrieval.speak),
        entry(OTHER_TIME, speak=lambda piece: piece.other_real, wants_film=True),
        entry(
            "noise",
            speak=lambda piece: noise.integers(0, 256, piece.real.shape, dtype=np.uint8),
        ),
        entry("real_frames", speak=lambda piece: piece.real, wants_film=True),
    ]


def _held(faces: dict[int, np.ndarray], piece: Piece) -> np.ndarray:
    return np.broadcast_to(faces[piece.video], piece.real.shape).copy()


def _previous(piece: Piece) -> np.ndarray:
    return np.concatenate([piece.real[:1], piece.real[:-1]])


def _stills(dataset: GroupDataset, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Faces (S, S, 3) uint8 of one video that are held still."""
    parts = np.array_split(rows, -(-len(rows) // _CHUNK))
    mean = sum(_frames(dataset, part).sum(axis=0, dtype=np.float64) for part in parts)
    mean = mean / (len(rows) * dataset.spec.frames_per_group)
    medoid, least = np.empty(0), np.inf
    sharpest, most = np.empty(0), -np.inf
    for part in parts:
        frames = _frames(dataset, part)
        distances = np.array([np.square(frame - mean).mean() for frame in frames])
        if distances.min() < least:
            medoid, least = frames[distances.argmin()].copy(), distances.min()
        energy = gradient_energy(frames)
        if energy.max() > most:
            sharpest, most = frames[energy.argmax()].copy(), energy.max()
    count = max(1, _MEDIAN_FRAMES // dataset.spec.frames_per_group)
    some = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), count)).astype(int))]
    return {
        "mean_face": mean.round().astype(np.uint8),
        "median_face": np.median(_frames(dataset, some), axis=0).round().astype(np.uint8),
        "medoid_frame": medoid,
        "sharpest_frame": sharpest,
    }


@dataclass(frozen=True)
class _Retrieval:
    """Real frames of training time by the sound of their speech.

    Attributes:
        dataset: to take frames from.
        rows: (M,) of training time, in the order of ``sounds``.
        sounds: (M, D) float32 standardised log-mel of each group and its surroundings.
        mean: (D,) that was taken off.
        spread: (D,) that was divided by.
    """

    dataset: GroupDataset
    rows: np.ndarray
    sounds: np.ndarray
    mean: np.ndarray
    spread: np.ndarray

    @classmethod
    def over(cls, dataset: GroupDataset, rows: np.ndarray) -> "_Retrieval":
        segments = dataset.segments(rows)
        found = np.concatenate([_sounds(dataset.speech(part), dataset) for part in segments])
        mean, spread = found.mean(axis=0), found.std(axis=0).clip(1e-6)
        sounds = ((found - mean) / spread).astype(np.float32)
        return cls(dataset, np.concatenate(segments), sounds, mean, spread)

    def speak(self, piece: Piece) -> np.ndarray:
        """Frames of the training groups that sound most like each group of the piece."""
        wanted = ((_sounds(piece.speech, self.dataset) - self.mean) / self.spread).astype(
            np.float32
        )
        squares = np.square(self.sounds).sum(axis=1)
        distances = squares - 2 * wanted @ self.sounds.T  # but for what a row has in common
        own = self.dataset.video[self.rows] == piece.video
        if own.any():
            distances[:, ~own] = np.inf
        if piece.is_filmed:  # of training time itself: not the same moment
            near = np.abs(self.rows[None] - piece.rows[:, None]) < _APART
            if (np.isfinite(distances) & ~near).any(axis=1).all():
                distances[near] = np.inf
        return _frames(self.dataset, self.rows[distances.argmin(axis=1)])


def _sounds(speech: np.ndarray, dataset: GroupDataset) -> np.ndarray:
    """Log-mel around the middle frame of each group of contiguous speech, (groups, D)."""
    spec = dataset.spec
    groups = len(speech) // spec.samples_per_group
    bands = context(log_mel(speech, groups * spec.frames_per_group, spec), _SPAN)
    return bands[spec.frames_per_group // 2 :: spec.frames_per_group]


def _frames(dataset: GroupDataset, rows: np.ndarray) -> np.ndarray:
    """Frames (n * T, S, S, 3) of some rows."""
    return np.concatenate(dataset.frames[rows])
