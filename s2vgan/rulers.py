"""The instruments of an evaluation, fitted on real frames of training time."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from s2vgan.dataset import GroupDataset
from s2vgan.metrics import (
    IdentityModel,
    Instruments,
    MouthComponents,
    Opening,
    SyncMeter,
    SyncNet,
    find_trunk,
    load_lpips,
)
from s2vgan.metrics.components import FEWEST_FRAMES
from s2vgan.metrics.sync import FEWEST_FRAMES as FEWEST_SYNC_FRAMES
from s2vgan.regions import UPPER

_FITTED = 9000  # frames (5 minutes) that instruments are fitted on, at most
_SYNC = ("sync_r", "sync_lag", "sync_retrieval")
_UPPER_SYNC = "sync_upper_r"
_SYNCNET = ("lse_c", "lse_d")


def make_instruments(
    dataset: GroupDataset,
    training: np.ndarray,
    opening: Opening,
    names: Sequence[str],
    notes: list[str],
    *,
    lpips_trunk: str | Path | None = None,
    syncnet: str | Path | None = None,
    identity_model: str | Path | None = None,
    device: str = "cpu",
) -> Instruments:
    """What the named metrics need; what cannot be had is told in ``notes``, with the reason.

    Args:
        dataset: to fit on.
        training: rows of training time.
        opening: ruler of mouth opening.
        names: of the metrics that are asked for.
        notes: sentences are added to it.
        lpips_trunk: AlexNet weights for LPIPS, see :func:`s2vgan.metrics.find_trunk`.
        syncnet: TorchScript file, see :class:`s2vgan.metrics.SyncNet`.
        identity_model: TorchScript file, see :class:`s2vgan.metrics.IdentityModel`.
        device: to compute LPIPS on.

    Raises:
        ConfigError: if a file is given and does not hold what it should.
    """
    lpips = components = sync = upper = None
    if "lpips" in names:
        trunk = find_trunk(lpips_trunk)
        if trunk is None:
            notes.append(
                "LPIPS is left out: there are no AlexNet weights on this machine; give "
                "--lpips-trunk PATH or set S2VGAN_LPIPS_TRUNK."
            )
        else:
            lpips = load_lpips(trunk, device)
    stretches = _stretches(dataset, training)
    frames = sum(len(part) for part, _ in stretches)
    if "mouth_components_r" in names:
        if frames >= FEWEST_FRAMES:
            components = MouthComponents.fit(np.concatenate([part for part, _ in stretches]))
        else:
            notes.append(_too_short("mouth_components_r", frames, FEWEST_FRAMES))
    asked = [name for name in (*_SYNC, _UPPER_SYNC) if name in names]
    if asked and frames < FEWEST_SYNC_FRAMES:
        notes.append(_too_short(", ".join(asked), frames, FEWEST_SYNC_FRAMES))
    elif asked:
        if any(name in _SYNC for name in asked):
            sync = SyncMeter.fit(stretches, dataset.spec)
        if _UPPER_SYNC in asked:
            upper = SyncMeter.fit(stretches, dataset.spec, UPPER)
    if syncnet is None and any(name in names for name in _SYNCNET):
        notes.append(
            "LSE-C and LSE-D are left out: they need a SyncNet of yours; give --syncnet PATH."
        )
    if identity_model is None and "identity" in names:
        notes.append(
            "The distance of identity is left out: it needs an embedding of faces of yours; give "
            "--identity-model PATH."
        )
    return Instruments(
        opening,
        lpips,
        device,
        components,
        sync,
        upper,
        SyncNet.load(syncnet, dataset.spec) if syncnet else None,
        IdentityModel.load(identity_model) if identity_model else None,
    )


def _too_short(names: str, frames: int, fewest: int) -> str:
    return (
        f"Left out: {names}; training time holds {frames} frames to fit the instrument on, and it "
        f"needs {fewest}: extract more video."
    )


def _stretches(dataset: GroupDataset, rows: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Frames and speech of segments, evenly chosen, of at most 5 minutes in all."""
    segments = dataset.segments(rows)
    total = len(rows) * dataset.spec.frames_per_group
    count = max(1, min(len(segments), len(segments) * _FITTED // total))
    chosen = np.linspace(0, len(segments) - 1, count).astype(int)
    longest = _FITTED // dataset.spec.frames_per_group
    return [
        (np.concatenate(dataset.frames[part]), dataset.speech(part))
        for part in (segments[number][:longest] for number in chosen)
    ]
