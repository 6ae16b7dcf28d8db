"""The parts of the service's bench that need no service. It is not run here: minutes, and Ray."""

import json
import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from s2vgan import artifact
from tests.benches import BENCH, loaded


@pytest.fixture(scope="module")
def clients() -> Iterator[Any]:
    """bench/_clients.py as a module."""
    with loaded("_clients") as module:
        yield module


@pytest.fixture(scope="module")
def service() -> Iterator[Any]:
    """bench/_service.py as a module."""
    with loaded("_service") as module:
        yield module


def test_a_group_needs_its_look_ahead(clients: Any) -> None:
    """0.2 s for the first, which are 10 messages of 20 ms, and 5 more for each that follows."""
    assert clients.closing_chunks(4) == [9, 14, 19, 24]


def test_groups_are_late_by_when_they_were_due(clients: Any) -> None:
    stream = clients.Stream(
        due=[1.0, 1.1, 1.2, 1.3], sent=[1.0, 1.19, 1.2, 1.3], arrived=[1.099, 1.201, 1.25]
    )
    assert stream.delays() == pytest.approx([0.099, 0.011, 0.05])
    assert stream.late() == 2, "one came late since it was sent late, one never"


def test_the_outage_is_counted_by_when_requests_began(clients: Any) -> None:
    asked = [
        clients.Asked(0.0, 1.0, 0),  # over before
        clients.Asked(1.5, 2.5, 0),
        clients.Asked(1.6, 2.6, 200),  # was in flight, and proves nothing
        clients.Asked(2.6, 2.7, 503),
        clients.Asked(2.8, 3.0, 500),
        clients.Asked(3.0, 7.5, 200),
        clients.Asked(6.0, 7.0, 200),
    ]
    assert clients.Outage.of(asked, 2.0) == clients.Outage(
        seconds=5.0, in_flight=2, failed_in_flight=1, refused=1, failed_beyond=1
    )
    assert clients.Outage.of(asked[:4], 2.0).seconds == float("inf")


def test_the_service_is_asked_to_speak_with_the_default_model(service: Any, tmp_path: Path) -> None:
    model = artifact.load(service.save_model(tmp_path / "run"))
    assert model.spec.size == 64 and model.config.model.kind == "gru"


def test_own_processes_are_found_and_their_memory_read(service: Any) -> None:
    mine = os.getpid()
    assert mine in service.descendants(os.getppid())
    assert not service.born(2**22 + 1) and service.born(mine)
    before = service.memory(mine)
    with mmap.mmap(-1, 30_000_000) as kept:  # pages of its own, whatever was freed before
        kept.write(bytes(30_000_000))
        assert 20 < service.memory(mine) - before < 90


def test_figures_are_those_that_were_asked_for() -> None:
    """In a process of its own: bench/serve.py has the name of a package."""
    told = "{name: [target.least, target.aim] for name, target in serve.TARGETS.items()}"
    told = f"import json, serve; print(json.dumps({told}))"
    done = subprocess.run(
        [sys.executable, "-c", told], cwd=BENCH, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == {
        "first_frame_p50_ms": [40, 15],
        "first_frame_p99_ms": [120, 50],
        "live_streams": [8, 24],
        "added_p50_ms": [4, 2],
        "ten_seconds_s": [1.0, 0.4],
        "growth_mb": [30, 10],
        "failures_beyond": [0, 0],
    }
