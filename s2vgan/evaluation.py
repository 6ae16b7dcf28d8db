"""Runs measured against the real video, on training time and held-out time, beside controls."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from s2vgan.comparison import Place, differences, find_recipes, seeds_of
from s2vgan.contenders import Contender, Entry, from_run
from s2vgan.controls import from_data
from s2vgan.dataset import GroupDataset
from s2vgan.errors import ConfigError, DatasetError, RunError
from s2vgan.files import write_text
from s2vgan.measuring import Extreme, extremes, row, take
from s2vgan.metrics import METRICS, Instruments
from s2vgan.openings import make_ruler
from s2vgan.people import with_references
from s2vgan.pieces import Piece, cut_pieces, cut_speech, read_speech
from s2vgan.rulers import make_instruments
from s2vgan.spec import GroupSpec
from s2vgan.synthesis import Synthesizer

METRICS_FILE = "metrics.json"
PAPER = [  # Table 1 of arXiv 2207.08813 as printed; its ranges are not stated
    {"name": "wav2pix", "mse": 0.0965, "ssim": 0.1564, "lpips": 0.5885},
    {"name": "no GRU", "mse": 0.1074, "ssim": 0.9525, "lpips": 0.4778},
    {"name": "with GRU", "mse": 0.1034, "ssim": 0.9543, "lpips": 0.4931},
]

_SHOWN_SECONDS = 10.0  # kept for the report's pictures
# A model starts afresh at each piece, and mouth_r and mouth_amplitude are centred in each: pieces
# of one length, or the splits would not compare.
_PIECE_SECONDS = 10.0
_FRAMES = {"heldout": 1800, "train": 900, "unseen": 900}  # about how many in all
_HELD_OUT = 0.15  # where no run says otherwise


@dataclass(frozen=True)
class Exhibit:
    """What one entry made for the pieces that the report shows.

    Attributes:
        entry: who made it.
        frames: (n, S, S, 3) uint8.
        opening: (n,) its mouth opening.
    """

    entry: Entry
    frames: np.ndarray
    opening: np.ndarray


@dataclass(frozen=True)
class Showcase:
    """Up to 10 s of a split: the real frames, their speech, and what each entry made of it."""

    split: str
    real: np.ndarray
    opening: np.ndarray
    speech: np.ndarray
    exhibits: list[Exhibit]


@dataclass(frozen=True)
class Evaluation:
    """The outcome.

    Attributes:
        metrics: the content of metrics.json.
        spec: of the dataset.
        showcase: of held-out time, or of training time where there is no other.
        extremes: of the same split: each model's best and worst second.
        notes: sentences about what was left out, and how things were measured.
        contenders: the models by name.
    """

    metrics: dict[str, Any]
    spec: GroupSpec
    showcase: Showcase
    extremes: list[Extreme]
    notes: list[str]
    contenders: dict[str, Contender] = field(default_factory=dict)


def evaluate(
    data: str | Path,
    runs: Sequence[str | Path],
    out: str | Path,
    *,
    metrics: Sequence[str] = tuple(METRICS),
    unseen: Sequence[str | Path] = (),
    openings: str | Path | None = None,
    lpips_trunk: str | Path | None = None,
    syncnet: str | Path | None = None,
    identity_model: str | Path | None = None,
    device: str = "cpu",
) -> Evaluation:
    """Measure runs and controls on a dataset and write OUT/metrics.json.

    A run of another spec, missing weights, too little data for an instrument, or a dataset without
    held-out time become notes, and the rest goes on.

    Args:
        data: the dataset.
        runs: run or model folders.
        out: folder of the report.
        metrics: names of those to measure.
        unseen: speech of other people, files and folders.
        openings: true mouth openings; by default those beside the source videos, if any.
        lpips_trunk: AlexNet weights for LPIPS, see :func:`s2vgan.metrics.find_trunk`.
        syncnet: TorchScript file, see :class:`s2vgan.metrics.SyncNet`.
        identity_model: TorchScript file, see :class:`s2vgan.metrics.IdentityModel`.
        device: to compute on.

    Raises:
        ConfigError: if a metric is unknown, or a file of weights does not hold what it should.
        DatasetError: if there is no dataset, or ``openings`` do not belong to it.
        RunError: if a run has no model, or all were made for another spec.
        SourceError: if there is no speech at ``unseen``, or it is unreadable.
    """
    unknown = [name for name in metrics if name not in METRICS]
    if unknown:
        raise ConfigError(
            f"--metrics: there is no {', '.join(unknown)}; choose of {', '.join(METRICS)}."
        )
    dataset = GroupDataset.load(data)
    sounds = read_speech(unseen, dataset.spec.sample_rate)
    contenders, notes = _load(runs, dataset, device)
    training, held_out = _splits(dataset, contenders, notes)
    if any(contender.speaker.has_identity for contender in contenders):
        dataset = with_references(dataset, training)
    ruler = make_ruler(dataset, data, openings, training, held_out)
    notes.append(ruler.sentence)
    instruments = make_instruments(
        dataset,
        training,
        ruler.opening,
        metrics,
        notes,
        lpips_trunk=lpips_trunk,
        syncnet=syncnet,
        identity_model=identity_model,
        device=device,
    )
    evaluation = compare(dataset, contenders, instruments, training, held_out, metrics, sounds)
    evaluation.notes[:0] = notes
    evaluation.metrics.update(opening=ruler.to_dict(), notes=evaluation.notes)
    content = json.dumps(evaluation.metrics, indent=2, allow_nan=False)
    write_text(Path(out) / METRICS_FILE, content + "\n")
    return evaluation


def compare(
    dataset: GroupDataset,
    contenders: Sequence[Contender],
    instruments: Instruments,
    training: np.ndarray,
    held_out: np.ndarray,
    names: Sequence[str] = tuple(METRICS),
    sounds: Sequence[np.ndarray] = (),
) -> Evaluation:
    """Measure contenders and controls on all splits; nothing is written.

    Args:
        dataset: real frames and speech.
        contenders: the models; none gives the controls alone.
        instruments: to measure with.
        training: rows of training time.
        held_out: rows of held-out time; may be empty.
        names: of the metrics.
        sounds: speech of other people, float32 mono in [-1, 1] at the dataset's rate.
    """
    pieces = {
        "heldout": cut_pieces(dataset, held_out, _PIECE_SECONDS, _FRAMES["heldout"]),
        "train": cut_pieces(dataset, training, _PIECE_SECONDS, _FRAMES["train"]),
        "unseen": cut_speech(sounds, dataset, training, _PIECE_SECONDS, _FRAMES["unseen"]),
    }
    pieces = {split: found for split, found in pieces.items() if found}
    if not pieces:
        raise DatasetError("the dataset holds no group to evaluate on; extract more video.")
    entries = [
        *(entry for contender in contenders for entry in from_run(contender)),
        *from_data(dataset, training),
    ]
    shown = next(iter(pieces))
    rows: list[dict[str, Any]] = []
    exhibits: list[Exhibit] = []
    best_and_worst: list[Extreme] = []
    blocks: dict[Place, dict[str, np.ndarray]] = {}
    jobs = [
        (split, found, entry)
        for split, found in pieces.items()
        for entry in entries
        if entry.can_speak(found[0])
    ]
    frames = sum(len(piece.real) for _, found, _ in jobs for piece in found)
    with tqdm(total=frames, unit="frame", desc="evaluate", disable=None) as bar:
        for split, found, entry in jobs:
            bar.set_postfix_str(f"{split}: {entry.label}", refresh=False)
            took = take(entry, found, instruments, names, dataset.spec, bar)
            rows.append(row(entry, split, took))
            if entry.kind == "model":
                blocks[entry.name, split, entry.pose] = took.blocks
            if split == shown:
                made = np.concatenate(took.made[: _shown(found, dataset.spec)])
                exhibits.append(Exhibit(entry, made, instruments.opening(made)))
                if entry.pose == "reference" and entry.kind == "model":
                    best_and_worst += extremes(entry, found, took.made, dataset.spec.fps)
    visible = pieces[shown][: _shown(pieces[shown], dataset.spec)]
    real = np.concatenate([piece.real for piece in visible])
    speech = np.concatenate([piece.speech for piece in visible])
    showcase = Showcase(shown, real, instruments.opening(real), speech, exhibits)
    recipes = find_recipes([(one.name, one.config) for one in contenders if one.config])
    notes = (
        []
        if any(piece.others for found in pieces.values() for piece in found)
        else [
            "Sync retrieval is left out: no split holds a second of speech from each of ten pieces."
        ]
    )
    metrics = {
        "rows": rows,
        "recipes": [recipe.to_dict() for recipe in recipes],
        "seeds": seeds_of(recipes, rows),
        "differences": differences(recipes, blocks),
        "spec": dataset.spec.to_dict(),
        "dataset": dataset.info.sha256,
        "paper": PAPER,
        "metrics": {name: metric.declaration() for name, metric in METRICS.items()},
    }
    named = {contender.name: contender for contender in contenders}
    return Evaluation(metrics, dataset.spec, showcase, best_and_worst, notes, named)


def _load(
    runs: Sequence[str | Path], dataset: GroupDataset, device: str
) -> tuple[list[Contender], list[str]]:
    """The runs that can speak these groups, and a note on each that cannot."""
    contenders: list[Contender] = []
    notes: list[str] = []
    for run in runs:
        model = Synthesizer.load(run, device)
        if model.spec != dataset.spec:
            notes.append(f"{run} is left out: it was trained on {model.spec}, not {dataset.spec}.")
            continue
        taken = {contender.name for contender in contenders}
        name = next(name for name in _names(Path(run)) if name not in taken)
        if model.manifest["dataset"] != dataset.info.sha256:
            notes.append(
                f"{name} was trained on another dataset: which of these rows it has seen is not "
                "known."
            )
        seed, held_out = model.manifest["seed"], model.config.train.held_out
        contenders.append(Contender(name, str(run), seed, held_out, model, model.config))
    if runs and not contenders:
        raise RunError(" ".join(notes) + " Extract with their spec, or give other runs.")
    return contenders, notes


def _names(run: Path) -> Iterator[str]:
    """Names for a run, shortest first: its folder, then with its parents, then numbered."""
    parts = [part for part in run.resolve().parts if part not in ("/", "model")]
    for count in range(1, len(parts) + 1):
        yield "/".join(parts[-count:])
    number = 2
    while True:
        yield f"{parts[-1] if parts else 'run'} ({number})"
        number += 1


def _splits(
    dataset: GroupDataset, contenders: Sequence[Contender], notes: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows that every run trained on, and rows that no run did."""
    shares = [contender.held_out for contender in contenders] or [_HELD_OUT]
    if len(set(shares)) > 1:
        notes.append(
            f"The runs held out {min(shares):g} to {max(shares):g} of each video: rows are on the "
            "time that all of them, or none of them, trained on."
        )
    training, held_out = dataset.split(max(shares))[0], dataset.split(min(shares))[1]
    if not len(held_out):
        notes.append(
            "There are no held-out rows: the videos are too short to hold "
            f"{min(shares):.0%} of their groups out."
        )
    return training, held_out


def _shown(pieces: Sequence[Piece], spec: GroupSpec) -> int:
    """How many pieces, from the first, the report shows."""
    ends = np.cumsum([len(piece.real) for piece in pieces])
    return max(1, int((ends <= _SHOWN_SECONDS * spec.fps).sum()))
