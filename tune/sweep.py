"""A Ray Tune sweep: which learning rates, GRU or not, or any other field; the winner goes live.

    python tune/sweep.py --data DATA --out SWEEP --config conf/demo.yaml --minutes 5
    python tune/sweep.py --data DATA --out SWEEP --search random --samples 8 \
        --lr-g 1e-5..1e-3 --lr-d 1e-5..1e-3 --vary loss.gan=0.01,0.02

Every trial is a Ray Train run in SWEEP/trials/NAME, below one MLflow run. The same command goes on
with a sweep that was interrupted: finished trials are not trained again, the others continue from
their last checkpoint.
"""

import contextlib
import functools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ray import tune

from s2vgan import cluster, tracking
from s2vgan.errors import ConfigError, S2VError
from s2vgan.files import write_text
from s2vgan.train import RESTARTS, check
from tune import console, report, search
from tune.promotion import RESULT_FILE, Promotion, Winner, best_of, promote, retrain
from tune.settings import Sweep, make_parser, sweep_of
from tune.space import trial_config, trial_name
from tune.trials import (
    RUNS_FOLDER,
    Trial,
    collect,
    is_inside,
    resources,
    run_trial,
    settle,
    started_points,
)

SETTINGS_FILE, STATE_FOLDER = "sweep.json", "tune"


def run(
    sweep: Sweep,
    out: str | Path,
    *,
    winner: Winner = "as-is",
    retrain_times: float = 3.0,
    force: bool = False,
) -> tuple[list[Trial], Promotion]:
    """Run a sweep, or go on with the one that the folder holds; promote and report its winner.

    Args:
        sweep: what to try.
        out: SWEEP, on storage that all workers share.
        winner: register its model as it is, or train it anew for longer.
        retrain_times: the budget of one trial, for the winner that is trained anew.
        force: make the winner champion whatever the present one scores.

    Returns:
        All trials, best first, failed ones last; and what became of the winner.

    Raises:
        S2VError: if the settings or the dataset are unusable, the folder holds another sweep, no
            trial gave a model, or MLflow refuses it; the report is written whatever became of it.
    """
    folder = Path(out).absolute()
    sha256 = _check(sweep, folder)
    with _parent(sweep, folder) as tracker:
        tracker.log_input(sha256, Path(sweep.data).name, sweep.data)
        failed = _fit(sweep, folder, tracker.uri, tracker.run_id)
        points = sweep.points or started_points(folder)
        trials = collect(points, folder, sweep.config.train, failed)
        settle(trials, folder, tracker.uri)
        print(report.table(trials), flush=True)
        if told := report.effects(folder, sweep.to_dict(), trials):
            print(told)
        report.write(folder, sweep.to_dict(), trials, None)
        best = best_of(trials, folder)
        tracker.log_metrics(best.readings, best.step)
        tracker.set_tag("winner", best.name)
        longer = None
        if winner == "retrain":
            config = trial_config(sweep.config, best.point)
            longer = retrain(
                config,
                sweep.data,
                folder,
                sweep.workers,
                retrain_times,
                tracker.run_id,
                sweep.consent,
            )
        promotion = promote(trials, folder, sweep.data, retrained=longer, force=force)
        files = report.write(folder, sweep.to_dict(), trials, promotion)
        tracker.log_files(*files, folder / RESULT_FILE)
    return trials, promotion


def _check(sweep: Sweep, folder: Path) -> str:
    """Refuse here what would fail in a trial; the dataset's identity."""
    if sweep.workers < 1 or sweep.samples < 1:
        raise ConfigError(
            f"--workers {sweep.workers}, --samples {sweep.samples}: a sweep needs at least 1 each."
        )
    if sweep.search == "optuna":
        search.optuna_search(sweep.space, sweep.seed)  # raises where there is none
    for point in sweep.probes:
        config = trial_config(sweep.config, point)
        info = check(config, sweep.data, folder, sweep.workers, resume=False)
    share = sweep.config.train.held_out
    if not any(int(count * share) for count in info.groups.values()):
        raise ConfigError(
            f"{sweep.data}: too short to hold {share:.0%} out, which trials are compared on; "
            "extract more video or raise train.held_out."
        )
    return info.sha256


@contextlib.contextmanager
def _parent(sweep: Sweep, folder: Path) -> Iterator[tracking.Tracker]:
    """The sweep's MLflow run; SWEEP/sweep.json is written, or compared with."""
    file = folder / SETTINGS_FILE
    known = json.loads(file.read_text()) if file.is_file() else {}
    wanted = sweep.to_dict()
    if known and known["settings"] != wanted:
        changed = [key for key, value in wanted.items() if known["settings"].get(key) != value]
        raise ConfigError(
            f"{folder}: holds a sweep with another {', '.join(changed)}; give the same settings "
            "to go on with it, or choose another --out."
        )
    tracker = tracking.Tracker()
    parent = tracker.start(
        folder.name, wanted, {"sweep_folder": str(folder)}, run_id=known.get("mlflow_run")
    )
    content = {"settings": wanted, "mlflow_run": parent}
    write_text(file, json.dumps(content, indent=2) + "\n")
    status = "KILLED"
    try:
        yield tracker
        status = "FINISHED"
    except S2VError:
        status = "FAILED"
        raise
    finally:
        tracker.close_children()
        tracker.finish(status)


def _fit(sweep: Sweep, folder: Path, store: str, parent: str | None) -> dict[str, BaseException]:
    """Run all trials; the errors of those that failed, by name.

    Raises:
        KeyboardInterrupt: on Ctrl-C, after Ray Tune has saved its state.
    """
    console.quiet()
    cluster.connect()
    slots = cluster.trial_slots(sweep.workers)
    runs, kinds = folder / RUNS_FOLDER, sweep.space.kinds
    reserved, takes = resources(sweep.workers, slots)
    print(f"{sweep.total} trials, {slots} at a time; each takes {takes}.", flush=True)
    inside = is_inside(sweep.workers)
    workers = 0 if inside else sweep.workers
    beside = cluster.train_resources(sweep.workers, trials=slots)["CPU"] * workers
    if told := cluster.shortage(reserved["CPU"] + beside):
        print(told, flush=True)
    trainable = tune.with_resources(
        functools.partial(
            run_trial,
            base=sweep.config.to_dict(),
            kinds=kinds,
            data=sweep.data,
            runs=str(runs),
            workers=sweep.workers,
            trials=slots,
            store=store,
            parent=parent,
            consent=sweep.consent,
        ),
        reserved,
    )
    going_on = tune.Tuner.can_restore(str(folder / STATE_FOLDER))
    if going_on:
        print(f"Going on with the sweep in {folder}.", flush=True)
    searches = sweep.search == "optuna" and not going_on
    with console.interruptible() as interrupted:
        results = search.make_tuner(
            trainable,
            folder / STATE_FOLDER,
            points=sweep.points,
            searcher=search.optuna_search(sweep.space, sweep.seed) if searches else None,
            samples=sweep.total,
            slots=slots,
            scheduler=search.make_scheduler(sweep.scheduler, sweep.config.train),
            stopper=search.Hopeless(runs, kinds),
            callbacks=[console.Lines(sweep.total, kinds, takes, runs)],
            restarts=RESTARTS if inside else 0,  # Ray Train restarts its workers itself
            reuse=inside,
        ).fit()
    if interrupted.is_set():
        raise KeyboardInterrupt
    return {
        trial_name(search.point_of(item.config, kinds)): item.error
        for item in (results[number] for number in range(len(results)))
        if item.error is not None and item.config is not None
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Sweep, promote the winner and report; 2 for what the user can mend."""
    arguments = make_parser().parse_args(argv)
    try:
        _, promotion = run(
            sweep_of(arguments),
            arguments.out,
            winner=arguments.winner,
            retrain_times=arguments.retrain_times,
            force=arguments.force,
        )
    except S2VError as error:
        print(f"sweep: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sweep: interrupted; the same command goes on with it.", file=sys.stderr)
        return 130
    print(f"The best model is {promotion.winner}'s, in {promotion.model}.")
    print(promotion.sentence)
    if promotion.version is None:
        print(
            f"Give `s2vgan mlflow --deliver {Path(promotion.model).parent}`, then this command "
            "again."
        )
    print(f"All of it: {arguments.out / report.REPORT_FILE}, and in MLflow.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
