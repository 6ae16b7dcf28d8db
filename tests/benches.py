"""The benches as modules, for tests of their parts that need no measurement."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench"


@contextmanager
def loaded(name: str) -> Iterator[Any]:
    """bench/NAME.py, for as long as it is used: some have the name of a package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCH))
        yield importlib.import_module(name)
    del sys.modules[name]
