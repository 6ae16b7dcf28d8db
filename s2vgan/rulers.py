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
from s2vgan.regions import UPPER

_FITTED = 9000  # frames (5 minutes) that instruments are fitted on, at most
_SYNC = ("sync_r", "sync_lag", "sync_retrieval")


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
    try:
        if "mouth_components_r" in names:
            components = MouthComponents.fit(np.concatenate([frames for frames, _ in stretches]))
        if any(name in names for name in _SYNC):
            sync = SyncMeter.fit(stretches, dataset.spec)
        if "sync_upper_r" in names:
            upper = SyncMeter.fit(stretches, dataset.spec, UPPER)
    except ValueError as error:
        notes.append(f"Left out: {error}; extract more video for it.")
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
