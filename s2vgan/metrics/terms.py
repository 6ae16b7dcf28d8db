"""What each metric counts in every frame of a stretch, and how the sums become its value.

Terms are (N, K) numbers per frame, and their sums decide the metric: a mean is (sum, count), a
ratio two sums, a correlation three. So all is counted in one pass, and an interval comes from
resampling the sums of blocks of time, for a correlation as for a mean.
"""

from collections.abc import Callable

import cv2
import numpy as np
import torch
from torch import Tensor

from s2vgan.metrics import image, sync
from s2vgan.metrics.mouth import mouth_opening_luma
from s2vgan.metrics.stretch import Instruments, Opening, Stretch
from s2vgan.regions import MOUTH, UPPER

STILL = 1e-12  # variance, or mean change, under which nothing moves

_BATCH = 64  # frames turned to float at a time
_PAUSE = 0.05  # of the loud frames' level (-26 dB), under which speech pauses
_SILENT = 1e-4  # RMS on [-1, 1] that is silence in any recording
_LOUD = 95  # percentile of the frames' levels that counts as loud

Terms = Callable[[Stretch, Instruments], np.ndarray | None]


# Sums to values


def ratio(sums: np.ndarray) -> np.ndarray:
    """First sum over second; NaN where the second is nothing."""
    above, below = sums[..., 0], sums[..., 1]
    return np.where(below > STILL, above / np.where(below > STILL, below, 1), np.nan)


def correlation(sums: np.ndarray) -> np.ndarray:
    """Pearson's r from sums of xx, yy and xy of centred series; 0 where one of them is still."""
    power = sums[..., 0] * sums[..., 1]
    moves = (sums[..., 0] > STILL) & (sums[..., 1] > STILL)
    r = np.where(moves, sums[..., 2] / np.sqrt(np.where(moves, power, 1)), 0.0)
    return r.clip(-1, 1)  # rounding can carry it past its ends


def amplitude(sums: np.ndarray) -> np.ndarray:
    """Root of the first sum over the second."""
    return np.sqrt(ratio(sums))


def ratio_of_ratios(sums: np.ndarray) -> np.ndarray:
    """First over second sum, over third over fourth."""
    return ratio(np.stack([ratio(sums[..., :2]), ratio(sums[..., 2:])], axis=-1))


def least_distance(sums: np.ndarray) -> np.ndarray:
    """LSE-D: the least of the mean distances over the lags; sums (..., 31 + 1)."""
    return _mean_distances(sums).min(axis=-1)


def confidence(sums: np.ndarray) -> np.ndarray:
    """LSE-C: the median of the mean distances over the lags less the least of them."""
    means = _mean_distances(sums)
    return np.median(means, axis=-1) - means.min(axis=-1)


def _mean_distances(sums: np.ndarray) -> np.ndarray:
    count = sums[..., -1:]
    return np.where(count > 0, sums[..., :-1] / np.where(count > 0, count, 1), np.nan)


# Frames against frames


def framewise(compare: Callable[[Tensor, Tensor], Tensor]) -> Terms:
    """Terms (N, 2) of a measure of pairs of frames: its value, and 1."""
    return lambda stretch, _: _per_frame(compare, stretch)


def mouth_mse(made: Tensor, true: Tensor) -> Tensor:
    """MSE inside the mouth region."""
    rows, columns = MOUTH.slices(made.shape[-1])
    return image.mse(made[..., rows, columns], true[..., rows, columns])


def mse_01(made: Tensor, true: Tensor) -> Tensor:
    """MSE of frames on [0, 1]."""
    return image.mse(made, true) / 4


def lpips(stretch: Stretch, instruments: Instruments) -> np.ndarray | None:
    """Perceptual distance and 1, where there is an instrument."""
    if instruments.lpips is None:
        return None
    return _per_frame(instruments.lpips, stretch, instruments.device)


def identity(stretch: Stretch, instruments: Instruments) -> np.ndarray | None:
    """Distance of embeddings and 1, where there is an instrument."""
    if instruments.identity is None:
        return None
    return _per_frame(instruments.identity.distance, stretch)


def _per_frame(
    compare: Callable[[Tensor, Tensor], Tensor], stretch: Stretch, device: str = "cpu"
) -> np.ndarray:
    parts = []
    with torch.inference_mode():
        for start in range(0, len(stretch.real), _BATCH):
            chunk = slice(start, start + _BATCH)
            made = image.to_float(stretch.generated[chunk]).to(device)
            true = image.to_float(stretch.real[chunk]).to(device)
            parts.append(compare(made, true).double().cpu().numpy())
    values = np.concatenate(parts)
    return np.stack([values, np.ones_like(values)], axis=1)


# Motion of the mouth


def opening(stretch: Stretch, instruments: Instruments) -> np.ndarray:
    """Products (N, 3) of generated and real opening, by the instruments' ruler."""
    return _products(instruments.opening, stretch)


def opening_luma(stretch: Stretch, _: Instruments) -> np.ndarray:
    """The same by the spread of luma."""
    return _products(mouth_opening_luma, stretch)


def components(stretch: Stretch, instruments: Instruments) -> np.ndarray | None:
    """Products (N, 3) of generated and real components of the mouth, summed over components."""
    if instruments.components is None:
        return None
    read = instruments.components.read
    made, true = stretch.of_made(read), stretch.of_real(read)
    made, true = made - made.mean(axis=0), true - true.mean(axis=0)
    return np.stack([(made * made).sum(1), (true * true).sum(1), (made * true).sum(1)], axis=1)


def _products(ruler: Opening, stretch: Stretch) -> np.ndarray:
    """(N, 3): xx, yy, xy of the generated and the real opening, each without its mean."""
    made = stretch.of_made(ruler).astype(np.float64)
    true = stretch.of_real(ruler).astype(np.float64)
    made, true = made - made.mean(), true - true.mean()
    # A frame held still measures the same up to rounding: that is no motion.
    made[np.abs(made) < 1e-6 * np.abs(true).max()] = 0
    return np.stack([made * made, true * true, made * true], axis=1)


def pause_motion(stretch: Stretch, instruments: Instruments) -> np.ndarray | None:
    """Change of opening in pauses and their number, generated (of what it heard), then real."""
    if not len(stretch.speech):
        return None
    heard = stretch.speech if stretch.heard is None else stretch.heard
    columns = []
    for said, read in ((heard, stretch.of_made), (stretch.speech, stretch.of_real)):
        still = pauses(said, len(stretch.real))
        still[0] = False  # there is no frame before it
        columns += [np.abs(np.diff(read(instruments.opening), prepend=0)) * still, still]
    return np.stack(columns, axis=1).astype(np.float64)


def pauses(speech: np.ndarray, frames: int) -> np.ndarray:
    """(frames,) bool: around this frame nothing is said; speech float32 of the same time."""
    edges = np.linspace(0, len(speech), frames + 1).astype(int)[:-1]
    power = np.add.reduceat(np.square(speech, dtype=np.float64), edges) * frames / len(speech)
    around = np.sqrt(np.convolve(power, np.ones(3) / 3, "same"))
    return around < max(_PAUSE * np.percentile(around, _LOUD), _SILENT)


# Speech and lips


def sync_products(stretch: Stretch, instruments: Instruments) -> np.ndarray | None:
    """Products (N, 3) of the first pair of canonical variates, of mouth and speech."""
    return _sync(sync.products, stretch, instruments.sync)


def upper_products(stretch: Stretch, instruments: Instruments) -> np.ndarray | None:
    """The same of the upper face."""
    return _sync(sync.products, stretch, instruments.upper_sync)


def sync_lagged(stretch: Stretch, instruments: Instruments) -> np.ndarray | None:
    """The same of the mouth at every lag."""
    return _sync(sync.lagged, stretch, instruments.sync)


def retrieval(stretch: Stretch, instruments: Instruments) -> np.ndarray | None:
    """Seconds of speech that the frames find among others, and seconds asked."""
    meter, others = instruments.sync, stretch.others
    if meter is None or not len(others) or not len(stretch.speech):
        return None
    fps = meter.spec.fps
    sounds = [meter.listen(other, fps) for other in others]
    seen, heard = stretch.of_made(meter.look), stretch.of_speech(meter.listen)
    return sync.recognised(seen, heard, sounds, fps)


def syncnet(stretch: Stretch, instruments: Instruments) -> np.ndarray | None:
    """Sums of distances at each lag, and their number, at the first frames of the stretch."""
    if instruments.syncnet is None or not len(stretch.speech):
        return None
    found = stretch.of_talk(instruments.syncnet.distances)
    terms = np.zeros((len(stretch.real), found.shape[1] + 1))
    terms[: len(found)] = np.concatenate([found, np.ones((len(found), 1))], axis=1)
    return terms


def _sync(
    count: Callable[[np.ndarray, np.ndarray], np.ndarray],
    stretch: Stretch,
    meter: sync.SyncMeter | None,
) -> np.ndarray | None:
    if meter is None or not len(stretch.speech):
        return None
    return count(stretch.of_made(meter.look), stretch.of_speech(meter.listen))


# The picture as a whole


def sharpness(stretch: Stretch, _: Instruments) -> np.ndarray:
    """Gradient energy, generated and real."""
    return _both(image.gradient_energy, stretch)


def flicker(stretch: Stretch, _: Instruments) -> np.ndarray:
    """Change of the upper face, generated and real."""
    return _both(_upper_change, stretch)


def seam(stretch: Stretch, _: Instruments) -> np.ndarray:
    """Change at group starts and inside groups, generated, then real."""
    made, true = stretch.of_made(image.change), stretch.of_real(image.change)
    starts = stretch.starts_group
    return np.stack([made * starts, made * ~starts, true * starts, true * ~starts], axis=1)


def warping(stretch: Stretch, _: Instruments) -> np.ndarray:
    """Change that motion does not explain, generated and real."""
    return _both(warping_error, stretch)


def warping_error(frames: np.ndarray) -> np.ndarray:
    """Squared luma error (N,) of each frame against the one before, moved by optical flow.

    The flow is of the frames themselves (DIS, Kroeger et al. 2016). The first frame has none: 0.

    Args:
        frames: (N, S, S, 3) uint8, consecutive.
    """
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow.setFinestScale(0)  # small pictures: down to the pixel
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    rows, columns = np.mgrid[: frames.shape[1], : frames.shape[2]].astype(np.float32)
    errors = np.zeros(len(frames))
    for number in range(1, len(frames)):
        moved = flow.calc(grey[number], grey[number - 1], None)  # type: ignore[call-overload]
        warped = cv2.remap(
            grey[number - 1],
            columns + moved[..., 0],
            rows + moved[..., 1],
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        difference = warped.astype(np.float32) - grey[number].astype(np.float32)
        errors[number] = np.square(difference / 255).mean()
    return errors


def _upper_change(frames: np.ndarray) -> np.ndarray:
    rows, columns = UPPER.slices(frames.shape[1])
    return image.change(frames, rows, columns)


def _both(reading: Callable[[np.ndarray], np.ndarray], stretch: Stretch) -> np.ndarray:
    return np.stack([stretch.of_made(reading), stretch.of_real(reading)], axis=1)
