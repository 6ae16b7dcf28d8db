"""What every bench prints last: one JSON object with its figures and the machine."""

import json
import os
import platform


def report(bench: str, figures: dict[str, float]) -> None:
    """Print the bench's last line."""
    machine = {
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "python": platform.python_version(),
    }
    rounded = {name: float(f"{value:.4g}") for name, value in figures.items()}
    print(json.dumps({"bench": bench, "figures": rounded, "machine": machine}))
