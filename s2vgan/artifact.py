"""A model on disk: model.safetensors, config.json, manifest.json and MODEL_CARD.md."""

import datetime
import hashlib
import json
import shutil
import subprocess
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from s2vgan import __version__
from s2vgan.config import Config
from s2vgan.errors import ConfigError, RunError
from s2vgan.models import Face, build_face
from s2vgan.spec import GroupSpec

FOLDER = "model"  # of a run: the latest
BEST = "best"  # of a run: the best by val/score
WEIGHTS, CONFIG, MANIFEST, CARD = (
    "model.safetensors",
    "config.json",
    "manifest.json",
    "MODEL_CARD.md",
)
GENERATORS = {  # by kind, as the card calls them
    "gru": "with ConvGRU",
    "no_gru": "without ConvGRU",
    "wav2pix": "wav2pix (Duarte et al. 2019)",
}


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to speak.

    Attributes:
        face: in evaluation mode, on the device asked for.
        config: of the run that made it.
        spec: of the groups it speaks.
        manifest: name, version, created, spec, dataset, step, seed, mlflow_run, git_commit,
            people (whose reference frames are stored, by video), consent (who gave it; empty if
            nobody is named) and the SHA-256 of each file.
    """

    face: Face
    config: Config
    spec: GroupSpec
    manifest: dict[str, Any]


def save(
    folder: str | Path,
    face: Face,
    config: Config,
    *,
    name: str,
    dataset: str,
    step: int,
    readings: dict[str, float],
    mlflow_run: str = "",
    people: Sequence[str] = (),
    consent: str = "",
) -> None:
    """Write a model folder, whole: an older one is replaced only when the new one is complete.

    Args:
        folder: to write, usually RUN/model.
        face: its weights, averaged ones as a rule.
        config: of the run.
        name: of the run.
        dataset: the dataset's identity.
        step: that the weights are from.
        readings: validation readings for the card.
        mlflow_run: id of the MLflow run, if there is one.
        people: ids of the videos whose reference frames the face stores, in its order.
        consent: who consented that the face is learned and shown, and how; empty if nobody is
            named.
    """
    target = Path(folder)
    new = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    new.mkdir(parents=True)
    try:
        weights = {
            key: value.detach().cpu().contiguous() for key, value in face.state_dict().items()
        }
        save_file(weights, new / WEIGHTS)
        (new / CONFIG).write_text(_json(config.to_dict()))
        manifest = {
            "name": name,
            "version": __version__,
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "spec": face.spec.to_dict(),
            "dataset": dataset,
            "step": step,
            "seed": config.train.seed,
            "mlflow_run": mlflow_run,
            "people": list(people),
            "consent": consent,
            "git_commit": git_commit(),
            "parameters": sum(value.numel() for value in face.parameters()),
            "readings": readings,
        }
        (new / CARD).write_text(_card(manifest, config))
        manifest["files"] = {file: _sha256(new / file) for file in (WEIGHTS, CONFIG, CARD)}
        (new / MANIFEST).write_text(_json(manifest))
        old = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        if target.exists():
            target.rename(old)
        new.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def find(run: str | Path) -> Path:
    """The model folder of a run folder, or the folder itself if it is one.

    Raises:
        RunError: if there is no model.
    """
    folder = Path(run)
    for candidate in (folder, folder / FOLDER):
        if (candidate / MANIFEST).is_file():
            return candidate
    if not folder.exists():
        raise RunError(f"{folder}: no such run or model folder.")
    raise RunError(
        f"{folder}: no model here (no {FOLDER}/{MANIFEST}); train one with "
        f"`s2vgan train --data DATA --out {folder}`."
    )


def load(run: str | Path, device: torch.device | str = "cpu") -> LoadedModel:
    """Load a model from a run folder or a model folder, its files checked by their hashes.

    Raises:
        RunError: if there is no model, a file is missing or damaged, or another version wrote it.
        ConfigError: if there is no such device.
    """
    folder = find(run)
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        for file, digest in manifest["files"].items():
            if _sha256(folder / file) != digest:
                raise RunError(f"{folder / file}: damaged (its SHA-256 is not the manifest's).")
        config = Config.from_dict(json.loads((folder / CONFIG).read_text()))
        spec = GroupSpec(**manifest["spec"])
        face = build_face(config.model, spec)
        face.load_state_dict(load_file(folder / WEIGHTS))
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise RunError(f"{folder}: not a whole model ({error}); export or train it again.") from (
            error
        )
    except (ConfigError, RuntimeError) as error:
        made_by = manifest.get("version", "?")
        raise RunError(
            f"{folder}: written by S2V-GAN {made_by}, which this version {__version__} cannot "
            f"load ({error})."
        ) from error
    try:
        face = face.to(device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {device}: cannot be used on this machine; use cpu.") from error
    return LoadedModel(face.eval(), config, spec, manifest)


def git_commit() -> str:
    """Commit of the source tree this runs from; empty outside of one."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return ""
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def _card(manifest: dict[str, Any], config: Config) -> str:
    readings = "\n".join(
        f"| {name} | {value:.4f} |" for name, value in manifest["readings"].items()
    )
    spec, people = manifest["spec"], ""
    if known := len(manifest["people"]):
        people = f"- A frame of each of {known} people is stored with it\n"
    return f"""# {manifest["name"]}

Speech to a talking face: {spec["size"]}x{spec["size"]} pixels, {spec["fps"]} frames/s, made by
S2V-GAN {manifest["version"]} on {manifest["created"]}.

- Generator: {GENERATORS[config.model.kind]},
  {manifest["parameters"]:,} parameters, step {manifest["step"]}, seed {manifest["seed"]}
- Trained on dataset {manifest["dataset"]}
{people}- Consent: {manifest["consent"] or "nobody is named"}
- Code: commit {manifest["git_commit"] or "unknown"}
- MLflow run: {manifest["mlflow_run"] or "none"}

Quick readings on held-out time, pose held at the reference (`s2vgan evaluate` gives the full
table with controls):

| reading | value |
|---|---|
{readings or "| none: no held-out time | |"}

The frames are synthetic. Use the model only with the consent of the person whose face it learned.
"""


def _json(values: dict[str, Any]) -> str:
    return json.dumps(values, indent=2) + "\n"


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
