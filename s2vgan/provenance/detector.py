"""Finding the watermark in a video, without the unmarked one.

The signs of a key are independent of what a video shows that was not marked with it. So for any
video at all, the correlation of its cells with the signs, divided by the root of the sum of their
squares, is a weighted sum of fair coins with weights of norm 1, and by Hoeffding's inequality
(Journal of the American Statistical Association 58, 1963, theorem 2) exceeds z with a probability
of at most exp(-z^2 / 2). Nothing about pictures, codecs or noise is assumed.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from s2vgan.errors import SourceError
from s2vgan.media import pictures
from s2vgan.provenance.pattern import GRID, SLOT_SECONDS, SLOTS, signs

MIN_SECONDS: Final = 1.0  # of a video: two patterns, which can be told from a still picture
FALSE_ALARM: Final = 1e-6  # highest probability at which a watermark counts as found
STARTS: Final = 5  # moments within a slot at which the video may have been cut
TRIALS: Final = STARTS * SLOTS  # moments that are tried in all
PERIOD: Final = SLOTS * SLOT_SECONDS
_LEAST: Final = 1e-300  # probability that is told: what underflows is not 0
_FLOOR: Final = 1.0  # variance of a cell in levels squared below which none counts more


@dataclass(frozen=True)
class Detection:
    """What was found of a watermark.

    Attributes:
        found: whether ``false_alarm`` is at most FALSE_ALARM.
        statistic: the largest normalised correlation over the moments tried, about normal with
            mean 0 and variance 1 at each where there is no watermark of this key.
        false_alarm: upper bound of the probability of such a statistic, or a larger one, in a
            video that was not marked with this key.
        seconds: of the video that were looked at.
    """

    found: bool
    statistic: float
    false_alarm: float
    seconds: float


def detect(path: str | Path, key: str) -> Detection:
    """Look for the watermark of a key in a video of any size, rate and codec.

    Raises:
        SourceError: if it cannot be read, has no picture, or is shorter than MIN_SECONDS.
    """
    times, cells = read_cells(path)
    seconds = float(times[-1] - times[0])
    return judge(float(correlate(slot_sums(times, cells), signs(key)[None])[0]), seconds)


def judge(statistic: float, seconds: float) -> Detection:
    """What a statistic of :func:`correlate` means."""
    bound = TRIALS * float(np.exp(-(max(statistic, 0.0) ** 2) / 2))
    bound = min(1.0, max(bound, _LEAST))
    return Detection(bound <= FALSE_ALARM, statistic, bound, seconds)


def read_cells(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """The luma of a video on the watermark's grid.

    Returns:
        (n,) float64 times in seconds, and (n, GRID * GRID) float32 mean luma of the cells.

    Raises:
        SourceError: if it cannot be read, has no picture, or is shorter than MIN_SECONDS.
    """
    times, cells = [], []
    for picture in pictures(path):
        times.append(picture.time)
        cells.append(to_cells(picture.luma))
    if not times or times[-1] - times[0] < MIN_SECONDS:
        raise SourceError(
            f"{path}: too short to be judged; a watermark needs {MIN_SECONDS:g} s of video or more."
        )
    return np.array(times), np.stack(cells)


def to_cells(luma: np.ndarray) -> np.ndarray:
    """(GRID * GRID,) float32 means of (H, W) uint8 luma over the cells of the grid."""
    return cv2.resize(luma.astype(np.float32), (GRID, GRID), interpolation=cv2.INTER_AREA).ravel()


def slot_sums(times: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """What each cell says of the sign of each slot, for each moment of a slot the video may start.

    Of each cell its mean over the surrounding PERIOD is taken off, with which goes what stands
    still; and it counts by the inverse of its variance, by which a moving mouth counts little.

    Args:
        times: (n,) of the frames in seconds, rising.
        cells: (n, GRID * GRID) of :func:`read_cells`.

    Returns:
        (STARTS, SLOTS * GRID * GRID) float64, each row of norm 1 (or 0 where nothing moves).
    """
    sums = np.cumsum(np.pad(cells.astype(np.float64), ((1, 0), (0, 0))), axis=0)
    first = np.searchsorted(times, times - PERIOD / 2)
    last = np.searchsorted(times, times + PERIOD / 2, side="right")
    change = cells - (sums[last] - sums[first]) / (last - first)[:, None]
    change /= change.var(axis=0) + _FLOOR
    rows = []
    for start in range(STARTS):
        slot = ((times - times[0]) / SLOT_SECONDS + start / STARTS + 1e-6).astype(int) % SLOTS
        said = np.zeros((SLOTS, cells.shape[1]))
        np.add.at(said, slot, change)
        rows.append(said.ravel() / max(float(np.linalg.norm(said)), 1e-12))
    return np.stack(rows)


def correlate(sums: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """The statistic of each key: its largest correlation over all moments the video may start.

    Args:
        sums: of :func:`slot_sums`.
        keys: (k, SLOTS, GRID, GRID) of :func:`signs`.

    Returns:
        (k,) float64.
    """
    flat = keys.reshape(len(keys), SLOTS, -1)
    turns = (np.roll(flat, -turn, axis=1).reshape(len(keys), -1) for turn in range(SLOTS))
    return np.max([(rows @ sums.T).max(axis=1) for rows in turns], axis=0)
