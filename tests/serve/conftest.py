from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from serve.api import build
from serve.limits import Limits
from serve.voices import Voice
from tests.serve.sounds import service_of


@pytest.fixture(scope="session")
def voice(run_folder: Path) -> Voice:
    return Voice.load(str(run_folder))


@pytest.fixture(scope="module")
def client(voice: Voice) -> Iterator[TestClient]:
    service = service_of(voice, Limits(body=200_000, seconds=5))
    with TestClient(build(service)) as client:
        yield client
