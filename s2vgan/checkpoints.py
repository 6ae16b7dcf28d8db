"""Checkpoints of a training run: written whole, verified when loaded, the latest two kept.

A checkpoint is step_XXXXXXX.pt, with its SHA-256 in step_XXXXXXX.sha256. Loading one runs no code.
"""

import hashlib
import os
import pickle
from pathlib import Path

import torch

from s2vgan.config import changed_keys
from s2vgan.errors import RunError
from s2vgan.files import write_text
from s2vgan.runlog import unwritten
from s2vgan.training import TrainState, unwrapped

KEPT_CHECKPOINTS = 2
_FREE = {"train.steps", "train.minutes", "train.evaluate_every"}  # they do not decide the weights


def save_checkpoint(state: TrainState, folder: Path, dataset: str) -> Path:
    """Write a checkpoint; keep it and the one before it.

    Args:
        state: of rank 0.
        folder: of checkpoints; made if missing.
        dataset: the dataset's identity.

    Raises:
        RunError: if it cannot be written; the others are then as they were.
    """
    target = folder / f"step_{state.step:07d}.pt"
    temporary = target.with_suffix(".tmp")
    content = {
        "step": state.step,
        "seconds": state.seconds,
        "skipped": state.skipped,
        "best": state.best,
        "config": state.config.to_dict(),
        "dataset": dataset,
        "g": unwrapped(state.g).state_dict(),
        "d": unwrapped(state.d).state_dict(),
        "ema": state.ema.state_dict(),
        "opt_g": state.opt_g.state_dict(),
        "opt_d": state.opt_d.state_dict(),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            torch.save(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
        write_text(_digest_file(target), _sha256(temporary))
        temporary.replace(target)
    except (OSError, RuntimeError) as error:  # torch makes a RuntimeError of a full disk
        cause = error if isinstance(error, OSError) else error.__context__
        reason = cause.strerror if isinstance(cause, OSError) else None
        raise RunError(unwritten(target, reason or str(error).splitlines()[0])) from error
    finally:
        temporary.unlink(missing_ok=True)
    # Later ones are of a branch that was left: they were damaged, and passed over.
    paths = sorted(folder.glob("step_*.pt"))
    last = paths.index(target) + 1
    for old in paths[: max(0, last - KEPT_CHECKPOINTS)] + paths[last:]:
        old.unlink()
        _digest_file(old).unlink(missing_ok=True)
    return target


def load_checkpoint(state: TrainState, folder: Path, dataset: str) -> list[str]:
    """Continue from the latest whole checkpoint; call before :meth:`TrainState.distribute`.

    Returns:
        Sentences about damaged checkpoints that were passed over.

    Raises:
        RunError: if no checkpoint is whole, or it belongs to another configuration or dataset.
    """
    damaged = []
    for path in sorted(folder.glob("step_*.pt"), reverse=True):
        digest = _digest_file(path)
        if digest.is_file() and digest.read_bytes() == _sha256(path).encode():
            break
        damaged.append(f"{path} is damaged and was passed over.")
    else:
        raise RunError(
            " ".join([*damaged, f"{folder}: no whole checkpoint to resume from; start a new run."])
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, OSError) as error:
        raise RunError(
            f"{path}: is no checkpoint of S2V-GAN, or holds code, which is never run; delete it "
            "to go on from the one before it, or start a new run."
        ) from error
    if not isinstance(content, dict) or not {"config", "dataset"} <= set(content):
        raise RunError(f"{path}: is no checkpoint of S2V-GAN; start a new run.")
    if content["dataset"] != dataset:
        raise RunError(
            f"{path}: was trained on another dataset ({content['dataset'][:12]}, now "
            f"{dataset[:12]}); give the same --data or start a new run."
        )
    changed = [
        name
        for name in changed_keys(content["config"], state.config.to_dict())
        if name not in _FREE
    ]
    if changed:
        raise RunError(
            f"{path}: was trained with another {', '.join(changed)}; resume with the same "
            "configuration (only train.steps, train.minutes and train.evaluate_every may change) "
            "or start a new run."
        )
    try:
        unwrapped(state.g).load_state_dict(content["g"])
        unwrapped(state.d).load_state_dict(content["d"])
        if state.config.train.ema:
            state.ema.load_state_dict(content["ema"])
        state.opt_g.load_state_dict(content["opt_g"])
        state.opt_d.load_state_dict(content["opt_d"])
        state.step, state.seconds = content["step"], content["seconds"]
        state.skips.fill_(content["skipped"])
        state.best = content["best"]
    except (KeyError, ValueError, RuntimeError) as error:
        raise RunError(
            f"{path}: was written by another version of S2V-GAN; start a new run."
        ) from error
    return damaged


def _digest_file(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
