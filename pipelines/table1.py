"""The method's experiment, from a video to the table: what does each model bring, and the GRU?

    make table1 VIDEO=talk.mp4 MINUTES=10 SEEDS=3
    python pipelines/table1.py talk.mp4 --out OUT --minutes 10 --seeds 3

extracts the video, trains wav2pix, the published method with and without its ConvGRU
(conf/paper.yaml) and our recipe with and without it (conf/base.yaml), all on the same groups with
the same minutes, and evaluates them together, beside controls and the paper's own numbers. The same
command goes on where it was interrupted. OUT/data has the dataset, OUT/runs the runs, OUT/report
the table.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tqdm import tqdm

from pipelines import extract
from pipelines.trainings import Training
from s2vgan import cli
from s2vgan.errors import ConfigError, S2VError
from s2vgan.ledger import has_dataset

CONF: Final = Path(__file__).resolve().parents[1] / "conf"
RECIPES: Final = {  # differences are told of the first to each other one
    "base_gru": ("base.yaml",),
    "base_no_gru": ("base.yaml", "ablations/no_gru.yaml"),
    "paper_gru": ("paper.yaml",),
    "paper_no_gru": ("paper.yaml", "ablations/no_gru.yaml"),
    "wav2pix": ("paper.yaml", "ablations/wav2pix.yaml"),
}
SEEDED: Final = ("base_gru", "base_no_gru")  # trained with every seed; the others with the first
_EVALUATION_MINUTES: Final = 1.5  # of one run, about


def trainings(
    out: Path, minutes: float, seeds: int, recipes: Sequence[str], settings: Sequence[str]
) -> list[Training]:
    """The runs of the experiment, the first seed of every recipe first.

    Args:
        out: OUT.
        minutes: of each training.
        seeds: of the recipes in ``SEEDED``.
        recipes: names in ``RECIPES``.
        settings: further arguments of every ``s2vgan train``.
    """
    wanted = [
        (name, seed) for seed in range(seeds) for name in recipes if seed == 0 or name in SEEDED
    ]
    runs = []
    for name, seed in wanted:
        files = [part for file in RECIPES[name] for part in ("--config", str(CONF / file))]
        budget = ["--minutes", f"{minutes:g}", "--train.seed", str(seed)]
        arguments = (*files, *budget, "--workers", "0", *settings)
        runs.append(Training(out / "runs" / f"{name}-{seed}", out / "data", arguments))
    return runs


def run(
    source: str | None,
    out: Path,
    *,
    minutes: float = 10.0,
    seeds: int = 1,
    recipes: Sequence[str] = tuple(RECIPES),
    settings: Sequence[str] = (),
    unseen: Sequence[str] = (),
) -> int:
    """Extract, train what is not trained yet, and evaluate all of it together.

    Args:
        source: video, as ``pipelines/extract.py`` takes it; None if OUT/data is there already.
        out: OUT.
        minutes: of each training.
        seeds: of our recipe, with and without ConvGRU.
        recipes: names in ``RECIPES``.
        settings: further arguments of every ``s2vgan train``.
        unseen: speech of other people, files or folders.

    Returns:
        The exit status.

    Raises:
        S2VError: if the video, the settings or a training are unusable.
    """
    if minutes <= 0 or seeds < 1:
        raise ConfigError("--minutes must be above 0 and --seeds at least 1.")
    data = out / "data"
    if source is not None:
        extract.run([source], data)
    elif not has_dataset(str(data)):
        raise ConfigError(f"{data}: holds no dataset; give the video to extract.")
    runs = trainings(out, minutes, seeds, recipes, settings)
    todo = [training for training in runs if not training.is_finished()]  # refuses others at once
    seconds = 60 * minutes
    done = sum(min(training.seconds, seconds) for training in todo)
    left = (len(todo) * seconds - done) / 60 + _EVALUATION_MINUTES * len(runs)
    print(
        f"{len(runs)} runs of {minutes:g} minutes, {len(runs) - len(todo)} of them done; about "
        f"{left:.0f} minutes are left, evaluation included. Ctrl-C interrupts, and the same "
        "command goes on.",
        flush=True,
    )
    form = "{l_bar}{bar}| {n:.0f}/{total:.0f} s of training [{elapsed}<{remaining}{postfix}]"
    with tqdm(total=len(todo) * seconds, initial=done, bar_format=form, disable=None) as bar:
        for training in todo:
            before = bar.n - min(training.seconds, seconds)
            bar.set_postfix_str(training.run.name)

            def follow(spent: float, before: float = before) -> None:
                bar.n = before + min(spent, seconds)
                bar.refresh()

            training.finish(follow)
            follow(seconds)
    command = ["evaluate", *(["--unseen", *unseen] if unseen else [])]
    command += ["--data", str(data), "--out", str(out / "report")]
    return cli.main([*command, *(str(training.run) for training in runs)])


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: 0, 2 for what the user can mend, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="table1.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "source", nargs="?", metavar="VIDEO", help="to extract; left out if OUT/data is there"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the experiment")
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="of each training (default: %(default)g)"
    )
    parser.add_argument(
        "--seeds",
        type=int,
        default=1,
        help="of conf/base.yaml with and without ConvGRU; the others have one (default: 1)",
    )
    parser.add_argument(
        "--recipes",
        nargs="+",
        choices=RECIPES,
        default=list(RECIPES),
        metavar="NAME",
        help=f"to compare, of {', '.join(RECIPES)} (default: all)",
    )
    parser.add_argument(
        "--unseen", nargs="+", default=[], metavar="PATH", help="speech of other people"
    )
    parser.add_argument(
        "--settings",
        nargs=argparse.REMAINDER,
        default=[],
        help="what follows is handed to every training, such as --settings --train.batch 8",
    )
    given = parser.parse_args(argv)
    try:
        return run(
            given.source,
            given.out,
            minutes=given.minutes,
            seeds=given.seeds,
            recipes=given.recipes,
            settings=given.settings,
            unseen=given.unseen,
        )
    except S2VError as error:
        print(f"table1: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("table1: interrupted; the same command goes on.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
