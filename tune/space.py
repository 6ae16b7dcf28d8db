"""What a sweep tries: fields of the configuration, and the points that they span.

A field is tried at given values (``1e-4,4e-4``) or in a range whose logarithm is evenly drawn from
(``1e-5..1e-3``). Every combination runs with each kind of model, so that the kinds can be compared
with everything else equal.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

import numpy as np

from s2vgan.config import Config, LossConfig, ModelConfig, TrainConfig
from s2vgan.errors import ConfigError

KIND = "model.kind"
LR_G, LR_D = "train.lr_g", "train.lr_d"
SECTIONS = {"model": ModelConfig, "loss": LossConfig, "train": TrainConfig}

Point = dict[str, Any]


@dataclass(frozen=True)
class Choices:
    """Values to try."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return ",".join(str(value) for value in self.values)

    def draw(self, random: np.random.Generator) -> Any:
        """One of them."""
        return self.values[int(random.integers(len(self.values)))]


@dataclass(frozen=True)
class LogRange:
    """Numbers from ``low`` to ``high``, evenly in their logarithm (so 1e-5..1e-4 as 1e-4..1e-3)."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:g}..{self.high:g}"

    def draw(self, random: np.random.Generator) -> float:
        """A number of three digits: it is part of a trial's name."""
        drawn = math.exp(random.uniform(math.log(self.low), math.log(self.high)))
        return float(f"{drawn:.3g}")


Dimension = Choices | LogRange


@dataclass(frozen=True)
class Space:
    """What is tried.

    Attributes:
        dimensions: by the name of a field, such as ``train.lr_g``.
        kinds: of models; every combination runs with each.
    """

    dimensions: dict[str, Dimension]
    kinds: tuple[str, ...] = ("gru", "no_gru")

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        texts = {name: str(dimension) for name, dimension in self.dimensions.items()}
        return texts | {KIND: ",".join(self.kinds)}

    @property
    def ranges(self) -> list[str]:
        """Fields that are tried in a range."""
        return [name for name, found in self.dimensions.items() if isinstance(found, LogRange)]

    def grid(self) -> list[Point]:
        """Every combination of the values, the kinds side by side.

        Raises:
            ConfigError: if a field has a range, which has no end of values.
        """
        if self.ranges:
            raise ConfigError(
                f"{', '.join(self.ranges)}: a grid needs values, such as 1e-4,4e-4, and not a "
                "range; give values, or --search random."
            )
        values = [found.values for found in self.dimensions.values() if isinstance(found, Choices)]
        return self._with_kinds(itertools.product(*values))

    def draws(self, count: int, seed: int) -> list[Point]:
        """So many combinations drawn at random, the same for a seed, each with every kind."""
        random = np.random.default_rng(seed)
        drawn: dict[tuple[Any, ...], None] = {}  # a set in order
        for _ in range(100 * count):
            if len(drawn) < count:
                drawn[tuple(found.draw(random) for found in self.dimensions.values())] = None
        return self._with_kinds(drawn)

    def _with_kinds(self, combinations: Any) -> list[Point]:
        return [
            {KIND: kind, **dict(zip(self.dimensions, values, strict=True))}
            for values in combinations
            for kind in self.kinds
        ]


def dimension(name: str, texts: str | Sequence[str]) -> Dimension:
    """What the user wrote for a field.

    Args:
        name: of the field, such as ``loss.gan``.
        texts: one range or some values, ``0.01,0.02`` or apart.

    Raises:
        ConfigError: if there is no such field, or a value is none of its kind.
    """
    section, _, key = name.partition(".")
    hints = get_type_hints(SECTIONS[section]) if section in SECTIONS else {}
    if key not in hints or name == KIND:
        raise ConfigError(
            f"{name}: no field that a sweep can vary; give one of `s2vgan train --help`, such as "
            "loss.gan=0.01,0.02, and kinds of models by --kinds."
        )
    parts = [texts] if isinstance(texts, str) else list(texts)
    words = [word.strip() for part in parts for word in part.split(",") if word.strip()]
    if len(words) == 1 and ".." in words[0]:
        low, high = (_value(name, end, float) for end in words[0].split("..", 1))
        if hints[key] is not float or not 0 < low < high:
            raise ConfigError(
                f"{name}={words[0]}: a range needs a fractional number's field and two ends above "
                "0 that rise; give values instead, such as 16,32."
            )
        return LogRange(low, high)
    values = tuple(_value(name, word, hints[key]) for word in words)
    if not values or len(set(values)) < len(values):
        raise ConfigError(f"{name}={','.join(words)}: give at least one value, and each once.")
    return Choices(values)


def _value(name: str, word: str, kind: Any) -> Any:
    if kind is bool:
        if word.lower() not in ("true", "false"):
            raise ConfigError(f"{name}={word}: must be true or false.")
        return word.lower() == "true"
    if kind not in (int, float):
        return word  # one of some names, which the configuration knows
    try:
        return kind(word)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise ConfigError(f"{name}={word}: must be {what}.") from None


def trial_config(base: Config, point: Mapping[str, Any]) -> Config:
    """Configuration of a trial: the base with the point's fields.

    Raises:
        ConfigError: if a value is out of range, or two contradict.
    """
    sections: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    for name, value in point.items():
        section, _, key = name.partition(".")
        sections[section][key] = value
    return Config(
        dataclasses.replace(base.model, **sections["model"]),
        dataclasses.replace(base.loss, **sections["loss"]),
        dataclasses.replace(base.train, **sections["train"]),
    )


def trial_name(point: Mapping[str, Any]) -> str:
    """Name of a trial's run: what it tries, so that a restarted trial finds its own folder."""
    parts = [str(point[KIND])]
    for name, value in point.items():
        if name != KIND:
            short = {LR_G: "g", LR_D: "d"}.get(name, name.partition(".")[2])
            parts.append(f"{short}{value:g}" if isinstance(value, float) else f"{short}{value}")
    return "_".join(parts)
