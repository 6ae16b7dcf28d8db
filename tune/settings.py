"""The settings of a sweep, and the command line that gives them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace

from s2vgan.cli import config_of
from s2vgan.config import Config, LossConfig, ModelConfig, TrainConfig
from s2vgan.errors import ConfigError
from tune.promotion import Winner
from tune.search import Scheduling, Search
from tune.space import LR_D, LR_G, Point, Space, dimension

KINDS = ("gru", "no_gru")


@dataclass(frozen=True)
class Sweep:
    """What is tried, on what, how, and for how long.

    Attributes:
        config: of every trial, but for the fields of the space; its budget is one trial's.
        data: dataset folder or URL, absolute.
        space: what is tried.
        search: grid: every combination; random: ``samples`` draws; optuna: as many suggestions.
        samples: combinations to draw; each runs with every kind.
        scheduler: asha stops the worse trials at rungs; fifo lets all use up their budget.
        seed: of the draws, 0 to 2^32 - 1.
        workers: Ray Train workers of one trial.
        consent: who consented that the face is learned and shown, and how.
    """

    config: Config
    data: str
    space: Space
    search: Search = "grid"
    samples: int = 4
    scheduler: Scheduling = "asha"
    seed: int = 0
    workers: int = 1
    consent: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**32:  # as Optuna takes it
            raise ConfigError(f"--seed {self.seed}: use 0 to {2**32 - 1}.")

    @property
    def points(self) -> list[Point] | None:
        """To try; None where the search finds them as it goes."""
        if self.search == "optuna":
            return None
        return self.space.grid() if self.search == "grid" else self._draws()

    @property
    def probes(self) -> list[Point]:
        """Points whose configuration can be checked before anything starts."""
        return self.points or self._draws()

    @property
    def total(self) -> int:
        """Number of trials."""
        return self.samples * len(self.space.kinds) if self.points is None else len(self.points)

    def _draws(self) -> list[Point]:
        return self.space.draws(self.samples, self.seed)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "config": self.config.to_dict(),
            "data": self.data,
            "space": self.space.to_dict(),
            "search": self.search,
            "samples": self.samples,
            "scheduler": self.scheduler,
            "seed": self.seed,
            "workers": self.workers,
            "consent": self.consent,
        }


def make_parser() -> ArgumentParser:
    """The command line of tune/sweep.py."""
    parser = ArgumentParser(
        prog="tune/sweep.py",
        description="Try learning rates of G and D, with and without GRU, and any other field; "
        "register the best model, and make it the champion if it beats the present one. The same "
        "command goes on with a sweep that was interrupted.",
    )
    parser.add_argument("--data", type=str, required=True, help="dataset folder or URL")
    parser.add_argument("--out", type=Path, required=True, help="folder of the sweep")
    parser.add_argument(
        "--config", action=ActionConfigFile, help="YAML file; of several the later wins"
    )
    tried = "values (1e-4 4e-4), or one range (1e-5..1e-3)"
    rates = ["1e-4", "4e-4"]
    parser.add_argument("--lr-g", type=str, nargs="+", default=rates, help=f"of G: {tried}")
    parser.add_argument("--lr-d", type=str, nargs="+", default=rates, help=f"of D: {tried}")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="of models")
    parser.add_argument(
        "--vary",
        type=str,
        nargs="+",
        default=[],
        metavar="FIELD=VALUES",
        help="further fields, such as loss.gan=0.01,0.02 or train.ema=0.99..0.999",
    )
    parser.add_argument(
        "--search",
        choices=get_args(Search),
        default=Sweep.search,
        help="grid: every combination; random: draws; optuna: suggestions that learn",
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=Sweep.samples,
        help="draws or suggestions; each with all kinds",
    )
    parser.add_argument(
        "--scheduler",
        choices=get_args(Scheduling),
        default=Sweep.scheduler,
        help="asha stops the worse trials early; fifo lets each use up its budget",
    )
    parser.add_argument("--seed", type=int, default=Sweep.seed, help="of the draws")
    parser.add_argument("--workers", type=int, default=1, help="Ray Train workers of one trial")
    parser.add_argument(
        "--consent",
        type=str,
        default="",
        help="who agreed that their face is learned and shown, and how; told by the models' cards",
    )
    parser.add_argument("--minutes", type=float, help="budget of one trial")
    parser.add_argument("--steps", type=int, help="budget of one trial")
    parser.add_argument(
        "--winner",
        choices=get_args(Winner),
        default="as-is",
        help="register its model as it is, or train it anew for longer",
    )
    parser.add_argument(
        "--retrain-times", type=float, default=3.0, help="budget of that, in budgets of one trial"
    )
    parser.add_argument(
        "--force", action="store_true", help="make it champion even if the present one is better"
    )
    parser.add_class_arguments(ModelConfig, "model")
    parser.add_class_arguments(LossConfig, "loss")
    parser.add_class_arguments(TrainConfig, "train")
    return parser


def sweep_of(arguments: Namespace) -> Sweep:
    """The sweep in parsed arguments.

    Raises:
        ConfigError: if a field or a value is none, or two contradict.
    """
    fields = {LR_G: dimension(LR_G, arguments.lr_g), LR_D: dimension(LR_D, arguments.lr_d)}
    for text in arguments.vary:
        name, equals, values = text.partition("=")
        if not equals or name in fields:
            raise ConfigError(
                f"--vary {text}: give each field once, as FIELD=VALUES; the learning rates have "
                "--lr-g and --lr-d."
            )
        fields[name] = dimension(name, values)
    if len(set(arguments.kinds)) < len(arguments.kinds):
        raise ConfigError("a kind is given twice; give each once.")
    data = arguments.data
    return Sweep(
        config_of(arguments),
        data if "://" in data else str(Path(data).absolute()),
        Space(fields, tuple(arguments.kinds)),
        arguments.search,
        arguments.samples,
        arguments.scheduler,
        arguments.seed,
        arguments.workers,
        arguments.consent,
    )
