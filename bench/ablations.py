"""What each idea of conf/base.yaml is worth: the recipe with one idea at a time switched off.

    python bench/ablations.py --data DATA --out OUT

trains the recipe with three seeds, whose spread tells what a difference is worth, and once more for
each idea with that idea as in conf/paper.yaml and everything else equal: the same data, seed and
steps. Then all are measured together on held-out time. OUT/ablations.md has the table, and
OUT/runs the runs. The same command goes on where it was interrupted: finished runs are kept.
"""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from _report import report
from tqdm import tqdm

from pipelines.trainings import Training
from s2vgan.dataset import GroupDataset
from s2vgan.files import write_text
from s2vgan.metrics import Instruments, Stretch, estimate, find_trunk, load_lpips, measure
from s2vgan.pieces import Piece, cut_pieces
from s2vgan.synthesis import Synthesizer

BASE_SEEDS: Final = 3
# Each idea as it is in paper.yaml; what hangs on it goes with it.
IDEAS: Final[dict[str, dict[str, Any]]] = {
    "no ConvGRU": {"model.kind": "no_gru"},
    "waveform instead of log-mel": {"model.audio_features": "waveform"},
    "0.1 s of speech": {"model.audio_past": 0.0, "model.audio_ahead": 0.0},
    "no look ahead": {"model.audio_ahead": 0.0},
    "no audio dropout": {"model.audio_dropout": 0.0},
    "the same features at each frame": {"model.frame_features": "shared"},
    "state starts from zero": {"model.initial_state": "zero"},
    "state not carried": {"model.carry_state": "false", "train.sequence": 1, "loss.seam": 0.0},
    "no mean face": {"model.mean_face": "false", "model.initial_state": "zero"},
    "no pose code": {"model.pose_dim": 0},
    "D's ConvGRU first": {"model.discriminator_gru_after": 0, "model.discriminator_state": 8},
    "BatchNorm in D": {"model.spectral_norm": "false"},
    "bce instead of hinge": {"loss.adversarial": "bce"},
    "no GAN": {"loss.gan": 0.0},
    "no L1": {"loss.l1": 0.0},
    "no SSIM": {"loss.ssim": 0.0},
    "no seam loss": {"loss.seam": 0.0},
    "mouth like all pixels": {"loss.mouth": 1.0},
    "no audio loss": {"loss.audio": 0.0},
    "no pre-training": {"train.pretrain_steps": 0},
    "no pre-training, no audio loss": {"train.pretrain_steps": 0, "loss.audio": 0.0},
    "no average of G": {"train.ema": 0.0},
    "no clipping": {"train.clip": 0.0},
}
# What differs from paper.yaml in size and speed, or counts with several videos only.
SIZES: Final = {
    "model.z_dim", "model.width", "train.batch", "train.lr_g", "train.lr_d", "train.amp",
    "train.balance",
}  # fmt: skip
FRAMES: Final = 900  # of held-out time, about
TRUE, WRONG = ", true pose", ", wrong speech"
CONDITIONS: Final = ("", WRONG, TRUE, TRUE + WRONG)
SHOWN: Final = (
    "mse", "ssim", "lpips", "mouth_mse", "mouth_r", "mouth_amplitude", "sharpness", "flicker",
    "seam", "mouth_r" + WRONG, "lpips" + TRUE, "mouth_r" + TRUE, "mouth_r" + TRUE + WRONG,
)  # fmt: skip


def training(data: Path, run: Path, steps: int, settings: dict[str, Any]) -> Training:
    """A run of so many steps, evaluated at its end alone."""
    arguments = ["--workers", "0", "--steps", str(steps), "--train.evaluate_every", str(steps)]
    arguments += [part for key, value in settings.items() for part in (f"--{key}", str(value))]
    return Training(run, data, tuple(arguments))


def measured(
    model: Synthesizer, pieces: Sequence[Piece], instruments: Instruments
) -> dict[str, float]:
    """The metrics of one model, its pose held; and with other speech, the true pose, and both.

    With the true pose and other speech, mouth_r tells how much of the mouth is read from the pose.
    """
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for piece in pieces:
        pose = model.pose_of(piece.real) if model.has_pose else None
        for condition in CONDITIONS:
            if TRUE in condition and pose is None:
                continue
            speech = piece.other_speech if WRONG in condition else piece.speech
            made = model.speak(speech, pose=pose if TRUE in condition else None)
            stretch = Stretch(made[: len(piece.real)], piece.real, model.spec.frames_per_group)
            for name, terms in measure(
                stretch, Instruments() if WRONG in condition else instruments
            ).items():
                found.setdefault((name, condition), []).append(terms.sum(axis=0))
    values = {key: estimate(key[0], np.stack(parts)) for key, parts in found.items()}
    return {"".join(key): value.value for key, value in values.items() if value is not None}


def main() -> None:
    """Train, measure, print the table and the bench's line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="dataset folder")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and the table")
    parser.add_argument("--steps", type=int, default=400, help="of each run (default: 400)")
    parser.add_argument("--only", nargs="+", choices=IDEAS, default=list(IDEAS), metavar="IDEA")
    options = parser.parse_args()

    runs = {f"base, seed {seed}": {"train.seed": seed} for seed in range(BASE_SEEDS)}
    runs |= {name: IDEAS[name] for name in options.only}
    folders = {name: options.out / "runs" / name.replace(" ", "_") for name in runs}
    for name, settings in tqdm(runs.items(), desc="train", unit="run", disable=None):
        one = training(options.data, folders[name], options.steps, settings)
        if not one.is_finished():
            one.finish()

    dataset = GroupDataset.load(options.data)
    pieces = cut_pieces(dataset, dataset.split()[1], seconds=10, frames=FRAMES)
    trunk = find_trunk()
    instruments = Instruments(lpips=load_lpips(trunk) if trunk else None)
    values = {
        name: measured(Synthesizer.load(folder), pieces, instruments)
        for name, folder in tqdm(folders.items(), desc="measure", unit="run", disable=None)
    }
    table = markdown(values)
    write_text(options.out / "ablations.md", table)
    write_text(options.out / "ablations.json", json.dumps(values, indent=2) + "\n")
    print(table)
    base = [row for name, row in values.items() if name.startswith("base")]
    figures = {}
    for metric in SHOWN:
        readings = [row[metric] for row in base if metric in row]
        if readings:
            figures[f"base_{metric}"] = float(np.mean(readings))
            figures[f"spread_{metric}"] = float(np.ptp(readings))
    report("ablations", figures)


def markdown(values: dict[str, dict[str, float]]) -> str:
    """The table, a row for each run; LPIPS is empty where its weights are missing."""
    lines = ["| | " + " | ".join(name.replace("_", " ") for name in SHOWN) + " |"]
    lines.append("|---" * (len(SHOWN) + 1) + "|")
    for run, row in values.items():
        digits = [4 if re.match("mse|lpips|mouth_mse", name) else 3 for name in SHOWN]
        cells = (
            f"{row[name]:.{places}f}" if name in row else "–"
            for name, places in zip(SHOWN, digits, strict=True)
        )
        lines.append(f"| {run} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
