"""What is read from held-out time at each evaluation."""

from pathlib import Path

import numpy as np
import pytest
import torch

from s2vgan import detectors
from s2vgan.config import Config
from s2vgan.dataset import GroupDataset
from s2vgan.validation import _other_moments, changes, validate, validation_rows
from tests.test_training import CONFIG, WAV2PIX, start, steps


@pytest.fixture(scope="module")
def dataset(toy_data: Path) -> GroupDataset:
    return GroupDataset.load(toy_data)


@pytest.mark.parametrize("config", [CONFIG, WAV2PIX], ids=["gru", "wav2pix"])
def test_validation_reads_held_out_time(dataset: GroupDataset, config: Config) -> None:
    state, _ = start(dataset, config)
    rows = validation_rows(dataset, dataset.split()[1])
    assert rows.shape == (2, 9) and set(rows.ravel()) == set(dataset.split()[1])
    readings, samples = validate(state, dataset, rows)
    assert set(readings) == {
        "val/l1", "val/ssim", "val/mouth_r", "val/mouth_r_shuffled", "val/mouth_amplitude",
        "val/sharpness", "val/variation", "val/audio_effect", "val/score",
    }  # fmt: skip
    assert all(np.isfinite(list(readings.values())))
    assert samples.picture.dtype == np.uint8 and samples.picture.shape[-1] == 3
    assert samples.film.shape == (27, 32, 64, 3) and samples.film.dtype == np.uint8
    real = dataset.frames[rows[0]].reshape(27, 32, 32, 3)
    np.testing.assert_array_equal(samples.film[:, :, :32], real)
    np.testing.assert_array_equal(samples.speech, dataset.speech(rows[0]))
    again, _ = validate(state, dataset, rows)
    assert again == readings
    assert validation_rows(dataset, np.empty(0, np.int64)).size == 0


def test_what_does_not_change_from_group_to_group_reads_zero() -> None:
    real = torch.rand(2, 30, 3, 32, 32) * 2 - 1
    other = real[:, torch.randperm(30)].roll(1, 0)
    perfect = changes(real, real, other, 3)
    assert perfect["variation"] == pytest.approx(1) and perfect["audio_effect"] == pytest.approx(
        1, abs=0.1
    )
    same = real[:1, :3].repeat(2, 10, 1, 1, 1)  # its three frames differ, its groups do not
    assert changes(real, same, same, 3) == {"variation": 0, "audio_effect": 0}
    noisy = changes(real, other, other, 3)
    assert noisy["variation"] > 0.9 and noisy["audio_effect"] == 0


def test_the_probe_hears_other_moments() -> None:
    """Each stretch gets another one's windows, in their order but for where they begin."""
    audio = torch.arange(4 * 9).view(4, 9, 1) // 9 * 100 + torch.arange(9)[:, None]
    other = _other_moments(audio)
    assert other.shape == audio.shape
    for mine, given in zip(audio[..., 0], other[..., 0], strict=True):
        assert given.min() // 100 != mine.min() // 100
        assert sorted(given % 100) == list(range(9))
    alone = _other_moments(audio[:1])
    assert torch.equal(alone, audio[:1].roll(-4, 1))


def test_a_face_that_is_deaf_is_told(dataset: GroupDataset) -> None:
    """Through the whole probe: other speech changes nothing, and the detector says so."""
    state, sampler = start(dataset)
    steps(state, sampler, dataset, 20)
    rows = validation_rows(dataset, dataset.split()[1])
    assert validate(state, dataset, rows)[0]["val/audio_effect"] > 1e-4, "a little"
    for name, weight in state.ema.named_parameters():
        if "audio_encoder" in name:
            weight.data.zero_()
    readings, _ = validate(state, dataset, rows)
    assert readings["val/audio_effect"] < 1e-6
    alive = {"val/mouth_amplitude": 1.0, "val/variation": 1.0, "val/sharpness": 1.0}
    [warning] = detectors.find(CONFIG, 500, [], readings | alive)
    assert warning.startswith("G ignores the speech")
