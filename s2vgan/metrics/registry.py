"""The metrics by name: what each measures, in which range, and which direction is better."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from s2vgan.metrics import image, sync, terms
from s2vgan.metrics.stretch import Instruments, Stretch
from s2vgan.metrics.terms import Terms


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        title: for people.
        low: end of its range.
        high: other end.
        best: which end is better; ``one``: the ratio 1; ``zero``: no lag.
        unit: or what a ratio is taken to.
        source: definition.
        terms: (N, K) float64 per frame of a stretch; None where an instrument is missing.
        combine: sums of terms (..., K) to values (...,); NaN where undefined.
        paired: it compares frames with the real ones of the same instants, and has no meaning
            for speech that nobody was filmed saying.
    """

    title: str
    low: float
    high: float
    best: Literal["lower", "higher", "one", "zero"]
    unit: str
    source: str
    terms: Terms
    combine: Callable[[np.ndarray], np.ndarray]
    paired: bool = True

    def declaration(self) -> dict[str, object]:
        """Range, direction, unit and source as JSON values; an endless range ends with null."""
        return {
            "title": self.title,
            "range": [self.low, self.high if math.isfinite(self.high) else None],
            "best": self.best,
            "unit": self.unit,
            "source": self.source,
        }


_CENTRED = "each piece of up to 10 s about its own mean"
_FACESYNC = "canonical correlation fitted on training time, after Slaney and Covell 2000"
_RATIO = "ratio to real"

METRICS: dict[str, Metric] = {
    "mse": Metric(
        "MSE", 0, 4, "lower", "squared, on [-1, 1]", "mean squared error over all pixels",
        terms.framewise(image.mse), terms.ratio,
    ),
    "mse_01": Metric(
        "MSE [0, 1]", 0, 1, "lower", "squared, on [0, 1]", "the same of frames on [0, 1]",
        terms.framewise(terms.mse_01), terms.ratio,
    ),
    "psnr": Metric(
        "PSNR", 0, image.PSNR_CAP, "higher", "dB, data range 2", "mean over frames, capped",
        terms.framewise(image.psnr), terms.ratio,
    ),
    "ssim": Metric(
        "SSIM", -1, 1, "higher", "data range 1 on [0, 1]",
        "Wang et al. 2004; Gaussian window 11, sigma 1.5",
        terms.framewise(image.ssim), terms.ratio,
    ),
    "lpips": Metric(
        "LPIPS", 0, math.inf, "lower", "AlexNet, v0.1, on [-1, 1]", "Zhang et al. 2018",
        terms.lpips, terms.ratio,
    ),
    "mouth_mse": Metric(
        "mouth MSE", 0, 4, "lower", "squared, on [-1, 1]", "MSE inside the mouth region",
        terms.framewise(terms.mouth_mse), terms.ratio,
    ),
    "identity": Metric(
        "identity", 0, 2, "lower", "cosine distance",
        "between embeddings of generated and real frames, by the user's --identity-model",
        terms.identity, terms.ratio,
    ),
    "mouth_r": Metric(
        "mouth r", -1, 1, "higher", "correlation",
        "mouth opening of generated against real frames, by the estimator named in the report, "
        f"{_CENTRED}; 0 where nothing moves",
        terms.opening, terms.correlation,
    ),
    "mouth_r_luma": Metric(
        "mouth r (luma)", -1, 1, "higher", "correlation",
        "the same with the standard deviation of luma in the mouth region as its opening",
        terms.opening_luma, terms.correlation,
    ),
    "mouth_components_r": Metric(
        "mouth components r", -1, 1, "higher", "correlation",
        "5 principal components of the mouth, freed of the head's pose, generated against real, "
        f"all together, {_CENTRED}",
        terms.components, terms.correlation,
    ),
    "mouth_amplitude": Metric(
        "mouth amplitude", 0, math.inf, "one", _RATIO,
        f"standard deviation of mouth opening, generated over real, {_CENTRED}",
        terms.opening, terms.amplitude, paired=False,
    ),
    "pause_motion": Metric(
        "motion in pauses", 0, math.inf, "one", _RATIO,
        "mean frame-to-frame change of mouth opening where what was heard pauses (26 dB below "
        "loud speech), generated over real",
        terms.pause_motion, terms.ratio_of_ratios,
    ),
    "sync_r": Metric(
        "sync r", -1, 1, "higher", "correlation",
        f"mouth with speech: {_FACESYNC}; real frames have their own row",
        terms.sync_products, terms.correlation, paired=False,
    ),
    "sync_lag": Metric(
        "sync lag", -sync.LAGS, sync.LAGS, "zero", "frames",
        "where sync r is highest; above 0 the picture is late",
        terms.sync_lagged, sync.best_lag, paired=False,
    ),
    "sync_retrieval": Metric(
        "sync retrieval", 0, 1, "higher", f"share; chance {1 / sync.CANDIDATES:g}",
        f"seconds whose frames find their own speech among {sync.CANDIDATES}, by the same "
        "directions",
        terms.retrieval, terms.ratio, paired=False,
    ),
    "sync_upper_r": Metric(
        "sync r, upper face", -1, 1, "zero", "correlation",
        f"control of sync r: upper face with speech, {_FACESYNC}",
        terms.upper_products, terms.correlation, paired=False,
    ),
    "lse_d": Metric(
        "LSE-D", 0, math.inf, "lower", "distance",
        "SyncNet (Chung and Zisserman 2016; Prajwal et al. 2020), by the user's --syncnet",
        terms.syncnet, terms.least_distance, paired=False,
    ),
    "lse_c": Metric(
        "LSE-C", 0, math.inf, "higher", "distance",
        "the same: median over lags less the least",
        terms.syncnet, terms.confidence, paired=False,
    ),
    "sharpness": Metric(
        "sharpness", 0, math.inf, "one", _RATIO,
        "mean squared luma gradient, generated over real; noise is above 1",
        terms.sharpness, terms.ratio, paired=False,
    ),
    "flicker": Metric(
        "flicker", 0, math.inf, "one", _RATIO,
        "mean frame-to-frame luma change of the upper face, generated over real; 0 is frozen",
        terms.flicker, terms.ratio, paired=False,
    ),
    "warping": Metric(
        "warping", 0, math.inf, "one", _RATIO,
        "squared luma change that optical flow (DIS, of the frames themselves) does not explain, "
        "generated over real; after Lai et al. 2018",
        terms.warping, terms.ratio, paired=False,
    ),
    "seam": Metric(
        "seam", 0, math.inf, "one", _RATIO,
        "luma change across group boundaries over change inside groups, generated over real",
        terms.seam, terms.ratio_of_ratios, paired=False,
    ),
}  # fmt: skip


def measure(
    stretch: Stretch, instruments: Instruments, names: Iterable[str] = METRICS
) -> dict[str, np.ndarray]:
    """Terms (N, K) of each metric; a metric whose instrument is missing is left out."""
    wanted = (name for name in names if stretch.paired or not METRICS[name].paired)
    found = {name: METRICS[name].terms(stretch, instruments) for name in wanted}
    return {
        name: counted.astype(np.float64) for name, counted in found.items() if counted is not None
    }


def values(
    stretches: Iterable[Stretch],
    instruments: Instruments | None = None,
    names: Iterable[str] = METRICS,
) -> dict[str, float]:
    """Metrics over some stretches, without intervals.

    Args:
        stretches: at least one.
        instruments: luma opening alone by default.
        names: of the metrics.

    Returns:
        Value by name; a metric that is undefined there (a ratio of nothing) is absent.
    """
    instruments = instruments or Instruments()
    sums: dict[str, np.ndarray] = {}
    for stretch in stretches:
        for name, counted in measure(stretch, instruments, names).items():
            sums[name] = sums.get(name, 0) + counted.sum(axis=0)
    found = {name: float(METRICS[name].combine(total)) for name, total in sums.items()}
    return {name: value for name, value in found.items() if math.isfinite(value)}
