"""Do lips and speech belong together? A canonical correlation, without downloaded weights.

After FaceSync (Slaney and Covell, NIPS 2000): canonical correlation analysis (Hotelling 1936) finds
the directions of what a region of the face looks like and of how the speech sounds that go together
best. They are fitted once, on real frames of training time; then any frames and any speech can be
held against each other.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torchaudio

from s2vgan.metrics.components import principal
from s2vgan.metrics.image import region_luma
from s2vgan.regions import MOUTH, Region
from s2vgan.spec import GroupSpec

LAGS = 15  # frames, either way, within which the best lag is looked for
CANDIDATES = 10  # seconds of speech among which the right one is looked for
FEWEST_FRAMES = 900  # half a minute; fewer cannot fit the directions

_SIDE = 24  # pixels that the region is shrunk to, either way
_PICTURES = 16  # components of the region
_PICTURE_SPAN = 2  # frames either way that are seen together
_BANDS = 32  # of the mel spectrum
_SPEECH_SPAN = 4  # frames either way that are heard together
_RIDGE = 3e-2  # of the mean variance of a side: no weight on what hardly varies
_PAIRS = 6  # directions that a second of speech is recognised by
_STILL = 1e-6  # of a variate, whose deviation is about 1
_HOP = 0.010  # s
_FLOOR = 1e-5  # of mel power, near the quantisation noise of 16 bits


@dataclass(frozen=True, eq=False)
class SyncMeter:
    """Directions of a region of the face and of the speech that go together on training time.

    Attributes:
        region: of the face.
        spec: of the groups.
        picture_mean: (24 * 24,) of the region's luma.
        picture_basis: (24 * 24, 16), its principal components.
        face_mean: (80,) of the components of 5 frames.
        face_directions: (80, 6).
        speech_mean: (288,) of the mel bands of 9 frames.
        speech_directions: (288, 6).
    """

    region: Region
    spec: GroupSpec
    picture_mean: np.ndarray
    picture_basis: np.ndarray
    face_mean: np.ndarray
    face_directions: np.ndarray
    speech_mean: np.ndarray
    speech_directions: np.ndarray

    @classmethod
    def fit(
        cls,
        stretches: Sequence[tuple[np.ndarray, np.ndarray]],
        spec: GroupSpec,
        region: Region = MOUTH,
    ) -> "SyncMeter":
        """Find the directions.

        Args:
            stretches: frames (n, S, S, 3) uint8 and their speech float32 in [-1, 1], real, each
                without a gap in time.
            spec: of the groups.
            region: of the face that is looked at.

        Raises:
            ValueError: if there are fewer than FEWEST_FRAMES frames.
        """
        if sum(len(frames) for frames, _ in stretches) < FEWEST_FRAMES:
            raise ValueError(f"a sync score needs at least {FEWEST_FRAMES} frames to be fitted on")
        looks = [region_luma(frames, region, _SIDE) for frames, _ in stretches]
        mean = np.concatenate(looks).mean(axis=0)
        basis = principal(np.concatenate(looks) - mean, _PICTURES)
        faces = [context((part - mean) @ basis, _PICTURE_SPAN) for part in looks]
        sounds = [
            context(log_mel(speech, len(frames), spec), _SPEECH_SPAN)
            for frames, speech in stretches
        ]
        face, sound = np.concatenate(faces), np.concatenate(sounds)
        directions = _canonical(face - face.mean(axis=0), sound - sound.mean(axis=0))
        return cls(
            region, spec, mean, basis, face.mean(axis=0), directions[0], sound.mean(axis=0),
            directions[1],
        )  # fmt: skip

    def look(self, frames: np.ndarray) -> np.ndarray:
        """What a contiguous stretch of frames (n, S, S, 3) uint8 shows, (n, 6)."""
        codes = (region_luma(frames, self.region, _SIDE) - self.picture_mean) @ self.picture_basis
        return (context(codes, _PICTURE_SPAN) - self.face_mean) @ self.face_directions

    def listen(self, speech: np.ndarray, frames: int) -> np.ndarray:
        """What the speech of so many frames sounds like, (frames, 6)."""
        sound = context(log_mel(speech, frames, self.spec), _SPEECH_SPAN)
        return (sound - self.speech_mean) @ self.speech_directions


def products(seen: np.ndarray, heard: np.ndarray) -> np.ndarray:
    """Terms (n, 3) of the correlation of the first pair: xx, yy, xy, each without its mean.

    Args:
        seen: (n, 6) of :meth:`SyncMeter.look`.
        heard: (n, 6) of :meth:`SyncMeter.listen`.
    """
    x, y = _first(seen, heard)
    return np.stack([x * x, y * y, x * y], axis=1)


def lagged(seen: np.ndarray, heard: np.ndarray) -> np.ndarray:
    """Terms (n, 31 * 3) like those of :func:`products`, of the picture so many frames later.

    The lags rise from -15 to 15 frames: lag 2 compares the speech with the picture two frames
    after it. Frames whose partner lies outside of the stretch count nothing.
    """
    x, y = _first(seen, heard)
    terms = np.zeros((len(x), 2 * LAGS + 1, 3))
    for number, lag in enumerate(range(-LAGS, LAGS + 1)):
        first, last = max(0, -lag), len(x) - max(0, lag)
        if last > first:
            a, b = x[first + lag : last + lag], y[first:last]
            terms[first:last, number] = np.stack([a * a, b * b, a * b], axis=1)
    return terms.reshape(len(x), -1)


def best_lag(sums: np.ndarray) -> np.ndarray:
    """The lag with the highest correlation, from sums (..., 31 * 3) of :func:`lagged` terms.

    NaN where nothing moves.
    """
    sums = sums.reshape(*sums.shape[:-1], -1, 3)
    power = sums[..., 0] * sums[..., 1]
    r = np.where(power > 0, sums[..., 2] / np.sqrt(np.where(power > 0, power, 1)), -np.inf)
    return np.where(np.isfinite(r.max(axis=-1)), r.argmax(axis=-1) - LAGS, np.nan)


def recognised(
    seen: np.ndarray, heard: np.ndarray, others: Sequence[np.ndarray], fps: int
) -> np.ndarray:
    """Terms (n, 2): for each whole second 1 or 0 at its first frame, and that it was asked.

    1 where the frames of the second go better with its own speech than with any of the others. A
    face that stands still recognises nothing.

    Args:
        seen: (n, 6) of :meth:`SyncMeter.look`.
        heard: (n, 6) of :meth:`SyncMeter.listen`.
        others: (fps, 6) each, what other seconds sound like.
        fps: frames in a second.
    """
    terms = np.zeros((len(seen), 2))
    seen = np.where(np.ptp(seen, axis=0) < _STILL, 0.0, seen)  # still in spite of rounding
    for start in range(0, len(seen) - fps + 1, fps):
        face = seen[start : start + fps]
        own = _likeness(face, heard[start : start + fps])
        terms[start] = own > max(_likeness(face, sound) for sound in others), 1
    return terms


def log_mel(speech: np.ndarray, frames: int, spec: GroupSpec) -> np.ndarray:
    """Log-mel bands (frames, 32) at the middle of each frame.

    Args:
        speech: float32 in [-1, 1] at the spec's rate; silence is added where it is too short.
        frames: of video that it belongs to.
        spec: of the groups.
    """
    wanted = round(frames * spec.sample_rate / spec.fps)
    heard = torch.zeros(wanted)
    heard[: len(speech)] = torch.from_numpy(np.ascontiguousarray(speech[:wanted], np.float32))
    bands = torch.log(_mel(spec.sample_rate)(heard) + _FLOOR).numpy()
    moments = (np.arange(frames) + 0.5) / spec.fps / _HOP
    before = np.minimum(moments.astype(int), bands.shape[1] - 2)
    share = (moments - before)[:, None]
    return bands.T[before] * (1 - share) + bands.T[before + 1] * share


@lru_cache(maxsize=4)
def _mel(rate: int) -> Callable[[torch.Tensor], torch.Tensor]:
    return torchaudio.transforms.MelSpectrogram(
        rate,
        n_fft=512,
        win_length=round(0.025 * rate),
        hop_length=round(_HOP * rate),
        n_mels=_BANDS,
    )


def context(rows: np.ndarray, span: int) -> np.ndarray:
    """Each row with its neighbours either way, (n, D * (2 span + 1)); the ends are repeated."""
    places = np.arange(len(rows))[:, None] + np.arange(-span, span + 1)
    return rows[places.clip(0, len(rows) - 1)].reshape(len(rows), -1)


def _canonical(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ridge-regularised canonical directions of centred (n, A) and (n, B), the strongest first."""
    whiten = []
    for side in (a, b):
        variance, vectors = np.linalg.eigh(side.T @ side / len(side))
        variance = variance.clip(0) + _RIDGE * variance.clip(0).mean()
        whiten.append(vectors / np.sqrt(variance))
    left, _, right = np.linalg.svd((a @ whiten[0]).T @ (b @ whiten[1]), full_matrices=False)
    return whiten[0] @ left[:, :_PAIRS], whiten[1] @ right[:_PAIRS].T


def _first(seen: np.ndarray, heard: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first pair without its means; a face held still is still in spite of rounding."""
    x, y = seen[:, 0] - seen[:, 0].mean(), heard[:, 0] - heard[:, 0].mean()
    return np.where(np.ptp(x) < _STILL, 0.0, x), y


def _likeness(face: np.ndarray, sound: np.ndarray) -> float:
    """Sum of the correlations of the pairs of (n, 6) and (n, 6)."""
    face, sound = face - face.mean(axis=0), sound - sound.mean(axis=0)
    power = np.sqrt((face**2).sum(axis=0) * (sound**2).sum(axis=0))
    return float(((face * sound).sum(axis=0) / np.maximum(power, 1e-12)).sum())
