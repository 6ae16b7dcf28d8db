"""The arithmetic of the watermark's bench."""

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """bench/watermark.py as a module."""
    monkeypatch.syspath_prepend(str(BENCH))
    yield importlib.import_module("watermark")
    sys.modules.pop("watermark")


def test_the_upper_bound_of_a_share_is_exact(bench: Any) -> None:
    """None of n: 1 - 0.05^(1/n), for which 3/n is the rule of three."""
    assert bench.upper_bound(0, 14800) == pytest.approx(1 - 0.05 ** (1 / 14800))
    assert bench.upper_bound(0, 14800) == pytest.approx(3 / 14800, rel=0.01)
    share = bench.upper_bound(2, 50)
    tail = sum(c * share**k * (1 - share) ** (50 - k) for k, c in enumerate((1, 50, 1225)))
    assert tail == pytest.approx(0.05)
