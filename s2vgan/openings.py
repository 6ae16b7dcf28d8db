"""The ruler of mouth opening: calibrated on true openings where a video has them.

A rendered talking head ``x.mp4`` comes with ``x.openings.parquet``: columns ``time`` (s) and
``opening`` ([0, 1]), one row per frame of the video.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from s2vgan.dataset import GroupDataset
from s2vgan.errors import DatasetError
from s2vgan.ledger import read_rows
from s2vgan.metrics import FIT_FRAMES, Opening, OpeningEstimator, mouth_opening_luma

SUFFIX = ".openings.parquet"

_CHECKED = 9000  # held-out frames (5 minutes) that the ruler is checked on
_FEWEST = 100  # known frames; fewer cannot fit 32 numbers
_STILL = 1e-6  # standard deviation under which there is nothing to correlate with
_TRUSTED = 0.8  # r with the truth on held-out time, under which the truth is of another video


@dataclass(frozen=True)
class Ruler:
    """How mouth opening is measured in this evaluation.

    Attributes:
        opening: of frames (N, S, S, 3) uint8, (N,).
        calibrated: fitted on true openings; otherwise the luma measure.
        truth: (groups, T) float64 true openings, NaN where unknown.
        r_truth: correlation of the ruler with the truth on real held-out frames; None if unknown.
        r_truth_luma: the same for the luma measure.
    """

    opening: Opening
    calibrated: bool
    truth: np.ndarray
    r_truth: float | None = None
    r_truth_luma: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """What metrics.json says about it."""
        return {
            "estimator": "calibrated" if self.calibrated else "luma",
            "r_truth": self.r_truth,
            "r_truth_luma": self.r_truth_luma,
        }

    @property
    def sentence(self) -> str:
        """How mouth opening was measured, for people."""
        if not self.calibrated and self.r_truth is not None:
            return (
                "Mouth opening is measured by the spread of luma in the mouth region: the true "
                f"openings found do not fit this video (r {self.r_truth:.2f} on held-out frames); "
                "render or extract it again."
            )
        if not self.calibrated:
            amount = "too few" if np.isfinite(self.truth).any() else "no"
            return (
                "Mouth opening is measured by the spread of luma in the mouth region: this data "
                f"has {amount} true openings to calibrate on."
            )
        checked = (
            f" On real held-out frames it correlates {self.r_truth:.3f} with the truth (the "
            f"uncalibrated luma measure {self.r_truth_luma:.3f})."
            if self.r_truth is not None and self.r_truth_luma is not None
            else ""
        )
        return (
            "Mouth opening is measured by a linear estimator, calibrated on the true openings of "
            "real frames of training time, and applied to real and generated frames alike."
            + checked
        )


def make_ruler(
    dataset: GroupDataset,
    data: str | Path,
    openings: str | Path | None,
    training: np.ndarray,
    held_out: np.ndarray,
) -> Ruler:
    """Calibrate on training time where true openings are known, and check on held-out time.

    Args:
        dataset: loaded from ``data``.
        data: its folder; its ledger says where the videos lay.
        openings: file or folder with true openings; None looks beside each source video.
        training: rows of training time.
        held_out: rows of held-out time.

    Raises:
        DatasetError: if ``openings`` is given and has nothing for these videos.
    """
    truth = _read_truth(dataset, data, openings)
    known = training[np.isfinite(truth[training]).all(axis=1)]
    if truth[known].size < _FEWEST or truth[known].std() < _STILL:
        return Ruler(mouth_opening_luma, False, truth)
    estimator = OpeningEstimator.fit(*_some(dataset, truth, known, FIT_FRAMES))
    unseen = held_out[np.isfinite(truth[held_out]).all(axis=1)]
    if not len(unseen) or truth[unseen].std() < _STILL:
        return Ruler(estimator, True, truth)
    frames, true = _some(dataset, truth, unseen, _CHECKED)
    readings = [_agreement(ruler(frames), true) for ruler in (estimator, mouth_opening_luma)]
    if readings[0] < _TRUSTED:
        return Ruler(mouth_opening_luma, False, truth, *readings)
    return Ruler(estimator, True, truth, *readings)


def _agreement(read: np.ndarray, true: np.ndarray) -> float:
    """Pearson's r of readings with the moving truth; 0 where the readings are still."""
    return float(np.corrcoef(read, true)[0, 1]) if read.std() > _STILL else 0.0


def _some(
    dataset: GroupDataset, truth: np.ndarray, rows: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Frames (n, S, S, 3) of some rows and their true openings (n,), at most ``most``, evenly."""
    count = truth[rows].size
    chosen = np.linspace(0, count - 1, min(count, most)).astype(int)
    group, frame = np.divmod(chosen, truth.shape[1])
    return dataset.frames[rows[group], frame], truth[rows[group], frame]


def _read_truth(dataset: GroupDataset, data: str | Path, openings: str | Path | None) -> np.ndarray:
    spec = dataset.spec
    truth = np.full((len(dataset), spec.frames_per_group), np.nan)
    ledger = read_rows(data)
    asked = None if openings is None else Path(openings)
    if asked is not None and not asked.exists():
        raise DatasetError(f"{asked}: no such file or folder of true openings (*{SUFFIX}).")
    for number, video_id in enumerate(dataset.video_ids):
        source = Path(ledger[video_id].source) if video_id in ledger else Path(video_id)
        name = source.stem + SUFFIX
        if asked is None:
            path = source.with_name(name)
        elif asked.is_dir():
            path = asked / name
        else:
            path = asked if len(dataset.video_ids) == 1 or asked.name == name else Path()
        if not path.is_file():
            continue
        rows = np.flatnonzero(dataset.video == number)
        ticks = dataset.index[rows, None] * spec.frames_per_group + np.arange(spec.frames_per_group)
        truth[rows] = _at(path, (ticks + 0.5) / spec.fps)
    if asked is not None and not np.isfinite(truth).any():
        raise DatasetError(f"{asked}: has no true openings for the videos of {data}.")
    return truth


def _at(path: Path, seconds: np.ndarray) -> np.ndarray:
    """The opening of the video frame that is shown at each moment."""
    try:
        table = pq.read_table(path, columns=["time", "opening"])
        time, opening = table["time"].to_numpy(), table["opening"].to_numpy()
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DatasetError(
            f"{path}: not a file of true openings with columns time and opening ({error})."
        ) from error
    if not len(time):
        raise DatasetError(f"{path}: holds no row.")
    return opening[(np.searchsorted(time, seconds, side="right") - 1).clip(0)]
