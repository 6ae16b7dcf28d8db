"""How Ray Tune searches: which points it tries, and which trials it stops early."""

import importlib.util
import pickle
from pathlib import Path
from typing import Any, Final, Literal

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.repeater import TRIAL_INDEX, Repeater

from s2vgan import detectors
from s2vgan.config import TrainConfig
from s2vgan.errors import ConfigError
from s2vgan.runlog import read_log
from tune.space import KIND, Choices, Point, Space, trial_name

METRIC: Final = "val/score"  # higher is better; defined in s2vgan/metrics/score.py
REDUCTION: Final = 3  # ASHA lets the best third of the trials pass each rung
GRACE: Final = 3  # evaluations that every trial gets before the first rung
SIGNS: Final = 2  # evaluations in a row that see no hope in a trial, and it is stopped
POINT: Final = "point"  # key of a trial's point, where it is known beforehand

Search = Literal["grid", "random", "optuna"]
Scheduling = Literal["asha", "fifo"]


def make_scheduler(kind: Scheduling, train: TrainConfig) -> TrialScheduler:
    """Whether trials are compared at rungs, and the worse ones stopped.

    Args:
        kind: asha: asynchronous successive halving (Li et al. 2020, arXiv 1810.05934); fifo: every
            trial uses up its budget.
        train: with the budget of one trial.
    """
    if kind == "fifo":
        return FIFOScheduler()
    return ASHAScheduler(
        time_attr="step",
        max_t=train.steps + 1,  # a trial that reaches its last step ends by itself
        grace_period=min(GRACE * train.evaluate_every, train.steps),
        reduction_factor=REDUCTION,
    )


def hopeless(run: Path) -> str | None:
    """Why more training will not mend a run, in a sentence; None while there is hope.

    A sign (``detectors.HOPELESS``) must show at two evaluations in a row: one can pass.

    Args:
        run: folder of a trial.
    """
    readings = [line for line in read_log(run) if METRIC in line][-SIGNS:]
    signs = [
        next((text for text in line.get("warnings", []) if text.startswith(detectors.HOPELESS)), "")
        for line in readings
    ]
    return signs[-1] if len(signs) == SIGNS and all(signs) else None


class Hopeless(tune.Stopper):
    """Stops trials whose D has won, or that do not follow the speech.

    Args:
        runs: folder of the trials' runs.
        kinds: of models, see :func:`point_of`.
    """

    def __init__(self, runs: Path, kinds: tuple[str, ...]) -> None:
        self._runs, self._kinds = runs, kinds

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether Ray Tune shall stop the trial."""
        return (
            hopeless(self._runs / trial_name(point_of(result["config"], self._kinds))) is not None
        )

    def stop_all(self) -> bool:
        """Whether Ray Tune shall stop everything."""
        return False


class PairedSearch(Repeater):
    """Lets every kind of model run at each point that a search suggests.

    The search is told the mean of their scores. Ray's own Repeater forgets its pairs when a sweep
    is interrupted.
    """

    def save(self, checkpoint_path: str) -> None:
        """Keep the pairs and the search's own state."""
        Path(checkpoint_path).write_bytes(pickle.dumps(self.__dict__))

    def restore(self, checkpoint_path: str) -> None:
        """The inverse of :meth:`save`."""
        self.__dict__.update(pickle.loads(Path(checkpoint_path).read_bytes()))


def point_of(config: dict[str, Any], kinds: tuple[str, ...]) -> Point:
    """The point of a trial in Ray Tune's words for it."""
    if POINT in config:
        return dict(config[POINT])
    values = {name: value for name, value in config.items() if name != TRIAL_INDEX}
    rounded = {
        name: float(f"{value:.6g}") if isinstance(value, float) else value
        for name, value in values.items()
    }
    return {KIND: kinds[config[TRIAL_INDEX]], **rounded}


def optuna_search(space: Space, seed: int) -> Searcher:
    """Optuna's TPE over the space; each suggestion runs with every kind.

    Raises:
        ConfigError: if Optuna is not installed, or no field has a range.
    """
    if importlib.util.find_spec("optuna") is None:
        raise ConfigError(
            "--search optuna needs Optuna: pip install -c constraints.txt -e '.[optuna]', or take "
            "--search random."
        )
    if not space.ranges:
        raise ConfigError(
            "--search optuna finds values between others, and no field has a range: give one, such "
            "as --lr-g 1e-5..1e-3, or take --search grid."
        )
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    domains = {
        name: tune.choice(list(found.values))
        if isinstance(found, Choices)
        else tune.loguniform(found.low, found.high)
        for name, found in space.dimensions.items()
    }
    search = OptunaSearch(OptunaSearch.convert_search_space(domains), METRIC, "max", seed=seed)
    return PairedSearch(search, repeat=len(space.kinds))


def make_tuner(
    trainable: Any,
    state: Path,
    *,
    points: list[Point] | None,
    searcher: Searcher | None,
    samples: int,
    slots: int,
    scheduler: TrialScheduler,
    stopper: tune.Stopper | None,
    callbacks: list[tune.Callback],
    restarts: int = 0,
    reuse: bool = False,
) -> tune.Tuner:
    """A Ray Tune job, or the one that its folder holds.

    Args:
        trainable: run for each trial; reports METRIC and ``step``.
        state: folder of Ray Tune's state.
        points: to try; None where ``searcher`` finds them.
        searcher: finds points.
        samples: how many points it finds.
        slots: trials at a time.
        scheduler: of :func:`make_scheduler`.
        stopper: stops trials for reasons of its own.
        callbacks: told what happens.
        restarts: of a trial whose process dies or raises.
        reuse: give the process of a trial that has ended to the next one.
    """
    if tune.Tuner.can_restore(str(state)):
        return tune.Tuner.restore(
            str(state), trainable, resume_unfinished=True, restart_errored=True
        )
    return tune.Tuner(
        trainable,
        param_space={POINT: tune.grid_search(points)} if points is not None else None,
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode="max",
            scheduler=scheduler,
            search_alg=searcher,
            num_samples=1 if points is not None else samples,
            max_concurrent_trials=slots,
            reuse_actors=reuse,
        ),
        run_config=tune.RunConfig(
            name=state.name,
            storage_path=str(state.parent),
            callbacks=callbacks,
            failure_config=tune.FailureConfig(max_failures=restarts),
            stop=stopper,
            verbose=0,
        ),
    )
