"""Metrics of motion and speech against faces whose speech is known."""

import numpy as np
import pytest

from s2vgan.metrics import METRICS, Instruments, MouthComponents, Stretch, SyncMeter, values
from s2vgan.metrics.sync import CANDIDATES, LAGS
from s2vgan.metrics.terms import pauses, warping_error
from s2vgan.regions import UPPER
from s2vgan.spec import GroupSpec
from tests.test_metrics import talking

SPEC = GroupSpec(size=32)
SECOND = 16000
NAMES = ("sync_r", "sync_lag", "sync_retrieval", "sync_upper_r")


def speak(opening: np.ndarray, seed: int) -> np.ndarray:
    """Noise as loud as the mouth is open, (n * 1600 / 3,) float32."""
    random = np.random.default_rng(seed)
    times = np.arange(round(len(opening) * SECOND / 30)) / SECOND * 30
    level = np.interp(times, np.arange(len(opening)) + 0.5, opening)
    return (0.3 * level * random.normal(0, 1, len(times))).clip(-1, 1).astype(np.float32)


def scene(seconds: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    frames, opening = talking(30 * seconds, SPEC.size, seed)
    return frames, speak(opening, seed)


@pytest.fixture(scope="module")
def instruments() -> Instruments:
    training = [scene(20, seed) for seed in range(2)]
    return Instruments(
        components=MouthComponents.fit(np.concatenate([frames for frames, _ in training])),
        sync=SyncMeter.fit(training, SPEC),
        upper_sync=SyncMeter.fit(training, SPEC, UPPER),
    )


def read(made: np.ndarray, frames: np.ndarray, speech: np.ndarray, with_: Instruments) -> dict:
    others = np.split(scene(CANDIDATES - 1, 9)[1], CANDIDATES - 1)
    return values([Stretch(made, frames, speech=speech, others=others)], with_, NAMES)


def test_lips_in_time_are_recognised_and_late_ones_told_by_how_much(
    instruments: Instruments,
) -> None:
    frames, speech = scene(20, 5)
    right = read(frames, frames, speech, instruments)
    assert right["sync_r"] > 0.8 and right["sync_lag"] == 0
    assert right["sync_retrieval"] > 0.8
    assert abs(right["sync_upper_r"]) < 0.4
    for shift in (4, -6):  # the picture comes 4 frames late, or 6 early
        moved = read(np.roll(frames, shift, axis=0), frames, speech, instruments)
        assert moved["sync_lag"] == shift
        assert moved["sync_r"] < 0.5


def test_lips_that_say_something_else_are_not_recognised(instruments: Instruments) -> None:
    frames, speech = scene(20, 5)
    other, _ = scene(20, 6)
    wrong = read(other, frames, speech, instruments)
    assert abs(wrong["sync_r"]) < 0.4
    assert wrong["sync_retrieval"] < 0.35  # of 20 seconds; by chance a tenth


def test_a_face_held_still_has_no_sync(instruments: Instruments) -> None:
    frames, speech = scene(20, 5)
    still = np.repeat(frames[:1], len(frames), axis=0)
    found = read(still, frames, speech, instruments)
    assert found["sync_r"] == 0 and found["sync_retrieval"] == 0
    assert "sync_lag" not in found


def test_without_speech_or_other_seconds_there_is_no_sync(instruments: Instruments) -> None:
    frames, speech = scene(4, 5)
    assert not values([Stretch(frames, frames)], instruments, NAMES)
    alone = values([Stretch(frames, frames, speech=speech)], instruments, NAMES)
    assert alone.keys() == set(NAMES) - {"sync_retrieval"}
    with pytest.raises(ValueError, match="at least 900 frames"):
        SyncMeter.fit([(frames, speech)], SPEC)


def test_the_lags_reach_as_far_as_they_say(instruments: Instruments) -> None:
    assert (METRICS["sync_lag"].low, METRICS["sync_lag"].high) == (-LAGS, LAGS)
    frames, speech = scene(20, 5)
    late = read(np.roll(frames, LAGS, axis=0), frames, speech, instruments)
    assert late["sync_lag"] == LAGS


def test_components_of_the_mouth_do_not_see_the_head(instruments: Instruments) -> None:
    frames, _ = scene(20, 5)
    name = ("mouth_components_r",)
    assert values([Stretch(frames, frames)], instruments, name)[name[0]] == pytest.approx(1)
    bright = frames.copy()
    rows, columns = UPPER.slices(SPEC.size)
    bright[:, rows, columns] = frames[:1, rows, columns]  # the head does not sway
    assert values([Stretch(bright, frames)], instruments, name)[name[0]] > 0.8
    other, _ = scene(20, 6)
    assert abs(values([Stretch(other, frames)], instruments, name)[name[0]]) < 0.3
    with pytest.raises(ValueError, match="at least 300 frames"):
        MouthComponents.fit(frames[:100])


def test_pauses_are_where_nothing_is_said() -> None:
    random = np.random.default_rng(0)
    speech = random.normal(0, 0.2, 3 * SECOND).astype(np.float32)
    speech[SECOND : 2 * SECOND] *= 0.01  # 40 dB below
    found = pauses(speech, 90)
    assert not found[:29].any() and found[31:59].all() and not found[61:].any()
    assert pauses(np.zeros(SECOND, np.float32), 30).all()


def test_motion_in_pauses_is_held_against_real_pauses() -> None:
    frames, opening = talking(90, SPEC.size)
    speech = np.full(3 * SECOND, 0.2, np.float32)
    speech[SECOND : 2 * SECOND] = 0
    name = "pause_motion"
    assert values([Stretch(frames, frames, speech=speech)], None, (name,))[name] == 1
    calm = frames.copy()
    calm[29:62] = frames[29]
    assert values([Stretch(calm, frames, speech=speech)], None, (name,))[name] == 0
    # Given silence all the time, all of its motion counts.
    silent = Stretch(frames, frames, speech=speech, heard=np.zeros_like(speech))
    motion = np.abs(np.diff(opening))
    assert values([silent], None, (name,))[name] == pytest.approx(
        motion.mean() / motion[30:59].mean(), rel=0.25
    )
    assert name not in values([Stretch(frames, frames)], None, (name,))


def test_warping_forgives_motion_and_not_flicker(face: np.ndarray) -> None:
    slide = np.stack([face[:, 10 + step : 202 + step] for step in range(12)])
    random = np.random.default_rng(0)
    flickering = (slide + random.normal(0, 12, (12, 1, 1, 1))).clip(0, 255).astype(np.uint8)
    change = np.square(np.diff(slide.mean(axis=-1) / 255, axis=0)).mean()
    assert warping_error(slide)[1:].mean() < 0.35 * change
    assert warping_error(flickering)[1:].mean() > 2 * warping_error(slide)[1:].mean()
    assert warping_error(np.repeat(slide[:1], 3, axis=0)).max() == 0


def test_frames_of_another_moment_are_not_compared_one_by_one(instruments: Instruments) -> None:
    frames, speech = scene(4, 5)
    real, _ = scene(4, 6)
    found = values([Stretch(frames, real, speech=speech, paired=False)], instruments)
    assert {"sync_r", "sharpness", "flicker", "mouth_amplitude"} <= found.keys()
    assert not {name for name in found if METRICS[name].paired}
