"""What a bench prints at its end: a table beside what is wanted, and one JSON object."""

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """What a figure must reach, and should; it should reach no more if no aim is given."""

    least: float
    aim: float | None = None
    higher: bool = False  # is better

    def verdict(self, value: float) -> str:
        """``aim`` reached, ``ok`` (what it must be), or ``MISSED``."""
        sign = 1 if self.higher else -1
        if self.aim is not None and sign * value >= sign * self.aim:
            return "aim"
        return "ok" if sign * value >= sign * self.least else "MISSED"


def report(bench: str, figures: dict[str, float], targets: Mapping[str, Target] = {}) -> None:
    """Print the figures beside their targets, and the bench's last line."""
    print(f"\n{'figure':24}{'value':>10}{'must be':>10}{'aim':>8}")
    for name, value in figures.items():
        row = f"{name:24}{value:10.4g}"
        if target := targets.get(name):
            sign = "" if target.higher else "<"
            aim = "" if target.aim is None else f"{sign}{target.aim:g}"
            row += f"{f'{sign}{target.least:g}':>10}{aim:>8}  {target.verdict(value)}"
        print(row)
    machine = {
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "python": platform.python_version(),
    }
    rounded = {name: float(f"{value:.4g}") for name, value in figures.items()}
    print(json.dumps({"bench": bench, "figures": rounded, "machine": machine}))
