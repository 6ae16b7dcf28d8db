"""Every metric against an answer that is known without it."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from s2vgan.errors import ConfigError
from s2vgan.metrics import (
    METRICS,
    Instruments,
    OpeningEstimator,
    Stretch,
    estimate,
    find_trunk,
    load_lpips,
    measure,
    mouth_opening_luma,
    ssim,
    ssim_map,
    to_float,
    values,
)
from s2vgan.regions import MOUTH, UPPER

WITH_INSTRUMENTS = {  # measured in test_metrics_sync.py and test_metrics_networks.py
    "lpips", "identity", "lse_c", "lse_d", "mouth_components_r", "pause_motion", "sync_lag",
    "sync_r", "sync_retrieval", "sync_upper_r",
}  # fmt: skip


def talking(count: int = 90, size: int = 64, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Frames of a drawn face that sways and speaks, and its mouth openings in [0, 1]."""
    random = np.random.default_rng(seed)
    opening = np.convolve(random.random(count + 4), np.ones(5) / 5, "valid")
    opening = (opening - opening.min()) / np.ptp(opening)
    skin = random.integers(120, 160, (size, size, 3)).astype(np.float32)
    frames = np.stack([skin] * count)
    rows, columns = UPPER.slices(size)
    sway = 20 * np.sin(np.arange(count) / 7)
    frames[:, rows, columns] += sway[:, None, None, None]
    rows, columns = MOUTH.slices(size)
    middle = (rows.start + rows.stop) / 2
    distance = np.abs(np.arange(size) - middle)[None, :] / (size / 16)  # half the region at most
    inside = 1 / (1 + np.exp((distance - opening[:, None]) * 12))  # soft edged lips
    frames[:, :, columns] *= 1 - 0.8 * inside[:, :, None, None]
    return frames.clip(0, 255).astype(np.uint8), opening


@pytest.fixture(scope="module")
def face() -> tuple[np.ndarray, np.ndarray]:
    return talking()


def test_ssim_is_skimages_of_the_pictures() -> None:
    random = np.random.default_rng(0)
    a = random.integers(0, 256, (3, 40, 32, 3), np.uint8)
    b = (a + random.normal(0, 25, a.shape)).clip(0, 255).astype(np.uint8)
    known = [
        structural_similarity(
            one, other, channel_axis=-1, gaussian_weights=True, use_sample_covariance=False
        )
        for one, other in zip(a, b, strict=True)
    ]
    assert ssim(to_float(a), to_float(b)).numpy() == pytest.approx(known, abs=1e-5)
    full = ssim_map(to_float(a), to_float(b))
    assert full.shape == (3, 3, 40, 32)
    assert full[..., 5:-5, 5:-5].mean(dim=(1, 2, 3)).numpy() == pytest.approx(known, abs=1e-5)


def test_ssim_of_equal_frames_is_1_and_its_gradient_points_there() -> None:
    a = torch.rand(2, 3, 16, 16) * 2 - 1
    assert ssim(a, a).numpy() == pytest.approx([1, 1])
    moved = (a + 0.3 * torch.randn_like(a)).requires_grad_()
    before = ssim(moved, a).mean()
    (gradient,) = torch.autograd.grad(before, moved)
    assert ssim(moved + 0.1 * gradient / gradient.abs().max(), a).mean() > before


def test_ssim_of_noise_is_near_0() -> None:
    noise, face = torch.rand(1, 3, 32, 32) * 2 - 1, torch.rand(1, 3, 32, 32) * 2 - 1
    assert abs(ssim(noise, face).item()) < 0.1


def test_ssim_is_not_spoilt_by_autocast() -> None:
    a = torch.rand(1, 3, 32, 32)
    b = a + 0.01 * torch.randn_like(a)
    with torch.autocast("cpu", torch.bfloat16):
        inside = ssim(a, b)
    assert inside.item() == pytest.approx(ssim(a, b).item(), abs=1e-6)


def test_a_perfect_model(face: tuple[np.ndarray, np.ndarray]) -> None:
    frames, _ = face
    found = values([Stretch(frames, frames)])
    known = {"mse": 0, "psnr": 100, "ssim": 1, "mouth_mse": 0, "mouth_r": 1, "mouth_r_luma": 1}
    known |= {"mouth_amplitude": 1, "sharpness": 1, "flicker": 1, "seam": 1, "warping": 1}
    known["mse_01"] = 0
    assert found == pytest.approx(known, abs=1e-6)
    assert "lpips" not in found  # no network was given


def test_mse_psnr_and_mouth_mse_of_a_known_error() -> None:
    real = np.full((6, 32, 32, 3), 100, np.uint8)
    made = real.copy()
    rows, columns = MOUTH.slices(32)
    made[:, rows, columns] += 51  # .4 on [-1, 1]
    area = (rows.stop - rows.start) * (columns.stop - columns.start) / 32**2
    found = values([Stretch(made, real)], names=("mse", "psnr", "mouth_mse"))
    assert found["mouth_mse"] == pytest.approx(0.16, rel=1e-4)
    assert found["mse"] == pytest.approx(0.16 * area, rel=1e-4)
    assert found["psnr"] == pytest.approx(10 * math.log10(4 / (0.16 * area)), rel=1e-4)


def test_a_frozen_frame_has_no_motion_and_no_seam(face: tuple[np.ndarray, np.ndarray]) -> None:
    frames, _ = face
    found = values([Stretch(np.repeat(frames[:1], len(frames), axis=0), frames)])
    assert found["mouth_r"] == found["mouth_amplitude"] == found["flicker"] == 0
    assert "seam" not in found


def test_mouth_r_falls_with_a_shift_in_time_and_is_negative_when_inverted(
    face: tuple[np.ndarray, np.ndarray],
) -> None:
    frames, opening = face
    instruments = Instruments(OpeningEstimator.fit(frames, opening))
    late = [
        values([Stretch(np.roll(frames, lag, axis=0), frames)], instruments)["mouth_r"]
        for lag in (0, 2, 20)
    ]
    assert late[0] > 0.999 and late[0] > late[1] > late[2]
    assert abs(late[2]) < 0.5
    order = np.argsort(opening)
    inverted = np.empty_like(frames)
    inverted[order] = frames[order[::-1]]
    assert values([Stretch(inverted, frames)], instruments)["mouth_r"] < -0.8


def test_mouth_r_ignores_what_differs_between_stretches() -> None:
    """Two speakers, one dark and one bright, each frozen at the wrong moment: no correlation."""
    one, _ = talking(60, seed=1)
    other, _ = talking(60, seed=2)
    other = (other * 0.5).astype(np.uint8)
    found = values([Stretch(np.roll(one, 23, 0), one), Stretch(np.roll(other, 23, 0), other)])
    assert abs(found["mouth_r"]) < 0.5


def test_flicker_sharpness_and_seam_say_what_is_wrong(
    face: tuple[np.ndarray, np.ndarray],
) -> None:
    frames, _ = face
    blurred = frames.reshape(90, 32, 2, 32, 2, 3).mean(axis=(2, 4)).astype(np.uint8)
    blurred = blurred.repeat(2, axis=1).repeat(2, axis=2)
    random = np.random.default_rng(0)
    noisy = (frames + random.integers(-20, 20, frames.shape)).clip(0, 255).astype(np.uint8)
    jumpy = frames.astype(np.int16)
    jumpy[np.arange(90) // 3 % 2 == 0] += 15  # every other group is brighter
    found = {
        name: values([Stretch(made, frames)], names=("flicker", "sharpness", "seam"))
        for name, made in {
            "blurred": blurred,
            "noisy": noisy,
            "jumpy": jumpy.clip(0, 255).astype(np.uint8),
        }.items()
    }
    assert found["blurred"]["sharpness"] < 0.7 < 1.3 < found["noisy"]["sharpness"]
    assert found["noisy"]["flicker"] > 2
    assert found["jumpy"]["seam"] > 3 and found["noisy"]["seam"] == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("size", [48, 64, 128])
def test_the_estimator_reads_unseen_openings_and_survives_blur(size: int) -> None:
    frames, opening = talking(240, size)
    estimator = OpeningEstimator.fit(frames[:160], opening[:160])
    assert np.corrcoef(estimator(frames[160:]), opening[160:])[0, 1] > 0.95
    assert estimator(frames[160:]) == pytest.approx(opening[160:], abs=0.2)
    blurred = frames.reshape(240, size // 2, 2, size // 2, 2, 3).mean(axis=(2, 4))
    blurred = blurred.repeat(2, axis=1).repeat(2, axis=2).astype(np.uint8)
    assert np.corrcoef(estimator(blurred[160:]), opening[160:])[0, 1] > 0.95
    assert np.corrcoef(mouth_opening_luma(frames), opening)[0, 1] > 0.8


def test_estimate_gives_an_interval_around_the_value() -> None:
    random = np.random.default_rng(0)
    errors = random.exponential(0.1, (40, 30))  # 40 blocks of 30 frames
    blocks = np.stack([errors.sum(axis=1), np.full(40, 30)], axis=1)
    found = estimate("mse", blocks)
    assert found is not None and found.low is not None and found.high is not None
    assert found.value == pytest.approx(errors.mean())
    spread = 1.96 * errors.mean(axis=1).std() / math.sqrt(40)
    assert found.high - found.low == pytest.approx(2 * spread, rel=0.2)
    assert estimate("mse", blocks) == found  # seeded
    few = estimate("mse", blocks[:2])
    assert few is not None and few.low is None
    assert estimate("flicker", np.zeros((5, 2))) is None


def test_values_lie_in_the_declared_ranges(face: tuple[np.ndarray, np.ndarray]) -> None:
    random = np.random.default_rng(0)
    checked = set()
    for seed in range(8):
        frames, _ = talking(48, seed=seed)
        noise = random.integers(0, 256, frames.shape, dtype=np.uint8)
        for made, real in ((noise, frames), (255 - frames, frames), (frames, frames)):
            for name, value in values([Stretch(made, real)]).items():
                checked.add(name)
                assert METRICS[name].low <= value <= METRICS[name].high, (name, value)
    assert checked == METRICS.keys() - WITH_INSTRUMENTS
    doubled = np.array([[3.0, 3.0, 3.0 + 1e-15]])  # rounding, as sums of many products have it
    assert METRICS["mouth_r"].combine(doubled) == 1


def test_metrics_declare_themselves() -> None:
    for name, metric in METRICS.items():
        declared = metric.declaration()
        assert declared["best"] in ("lower", "higher", "one", "zero"), name
        assert declared["unit"] and declared["source"] and metric.low < metric.high


def test_terms_are_per_frame(face: tuple[np.ndarray, np.ndarray]) -> None:
    frames, _ = face
    for terms in measure(Stretch(frames, frames), Instruments()).values():
        assert terms.shape[0] == len(frames) and terms.dtype == np.float64


def test_no_trunk_no_lpips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("S2VGAN_LPIPS_TRUNK", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert find_trunk() is None
    cached = tmp_path / "checkpoints" / "alexnet-owt-7be5be79.pth"
    cached.parent.mkdir()
    cached.touch()
    assert find_trunk() == cached
    with pytest.raises(ConfigError, match="nowhere"):
        find_trunk(tmp_path / "nowhere.safetensors")
    monkeypatch.setenv("S2VGAN_LPIPS_TRUNK", str(tmp_path / "gone"))
    with pytest.raises(ConfigError, match="gone"):
        find_trunk()


def test_a_file_without_the_trunk_is_refused(tmp_path: Path) -> None:
    for name in ("text.safetensors", "text.pth"):
        (tmp_path / name).write_text("no weights")
        with pytest.raises(ConfigError, match="AlexNet"):
            load_lpips(tmp_path / name)


def test_lpips_is_0_for_equal_frames_and_grows_with_blur(
    face: tuple[np.ndarray, np.ndarray], lpips_trunk: Path
) -> None:
    lpips = load_lpips(lpips_trunk)
    frames = to_float(face[0][:4])
    small = torch.nn.functional.avg_pool2d(frames, 3, stride=1, padding=1)
    large = torch.nn.functional.avg_pool2d(frames, 9, stride=1, padding=4)
    assert lpips(frames, frames).numpy() == pytest.approx(np.zeros(4), abs=1e-6)
    assert (lpips(frames, small) < lpips(frames, large)).all()
    again = load_lpips(lpips_trunk)(frames, large)
    assert torch.equal(again, lpips(frames, large)), "weights must come from the file, not chance"
