"""From a sweep to the service: a running endpoint takes the winner over while it is asked."""

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from s2vgan import artifact, tracking
from s2vgan.config import Config
from tests.integration.test_chaos import eventually
from tests.integration.test_serve import free_port
from tests.serve.sounds import opened, sound
from tune.settings import Sweep
from tune.space import LR_D, LR_G, Choices, Space
from tune.sweep import run

PATIENCE = 120  # seconds of a busy machine
PAUSE = 0.3  # between a client's requests: the trials need the cores as well


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store of its own."""
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return uri


@pytest.fixture
def endpoint(ray_cluster: None, run_folder: Path, store: str) -> Iterator[str]:
    """A service that follows the champion, which is a model of random weights at first."""
    from ray import serve

    from serve.app import Settings, app

    tracker = tracking.Tracker()
    run_id = tracker.start("first", {})
    assert run_id is not None
    tracking.register(run_folder / artifact.FOLDER, run_id, {})
    port = free_port()
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(app(Settings(model=tracking.CHAMPION, mlflow=store)))
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweep_puts_its_winner_behind_a_running_endpoint(
    endpoint: str, toy_data: Path, store: str, tmp_path: Path
) -> None:
    train = {"batch": 4, "steps": 8, "minutes": 0, "evaluate_every": 4, "pretrain_steps": 2}
    config = Config.from_dict({"model": {"width": 4}, "train": train})
    space = Space({LR_G: Choices((1e-4,)), LR_D: Choices((1e-4,))})
    ended = threading.Event()
    answers: list[tuple[int, str]] = []

    def ask(request: Callable[[], httpx.Response], told: Callable[[httpx.Response], str]) -> None:
        while not ended.is_set():
            answer = request()
            answers.append((answer.status_code, told(answer) if answer.is_success else ""))
            ended.wait(PAUSE)

    def model() -> dict[str, Any]:
        return dict(httpx.get(f"{endpoint}/v1/model", timeout=PATIENCE).json())

    assert model()["version"] == "1"
    with ThreadPoolExecutor(2) as clients:
        speaking = clients.submit(
            ask,
            lambda: httpx.post(f"{endpoint}/v1/speak", content=sound(0.5), timeout=PATIENCE),
            maker,
        )
        looking = clients.submit(
            ask,
            lambda: httpx.get(f"{endpoint}/v1/model", timeout=PATIENCE),
            lambda answer: str(answer.json()["version"]),
        )
        try:
            _, promotion = run(Sweep(config, str(toy_data), space), tmp_path / "sweep")
            assert (promotion.version, promotion.crowned) == ("2", True), promotion.sentence
            lineage = tracking.trace(tracking.CHAMPION, store)
            wanted = {(200, "2"), (200, lineage.mlflow_run)}  # it is named, and speaks
            eventually(lambda: wanted <= set(answers), PATIENCE)
        finally:
            ended.set()
        speaking.result()
        looking.result()

    assert {status for status, _ in answers} == {200}
    assert {text for _, text in answers} == {"1", "2", "first", lineage.mlflow_run}
    versions = [text for _, text in answers if text in ("1", "2")]
    assert versions == sorted(versions), "never back to the old one"
    now = model()
    assert now["mlflow_run"] == lineage.mlflow_run and now["dataset"] == lineage.dataset
    assert lineage.run == promotion.winner and lineage.sweep == "sweep"
    assert len(lineage.sources) == 2


def maker(answer: httpx.Response) -> str:
    """The MLflow run of the model that made a movie, as the movie's own tags tell it."""
    with opened(answer.content) as movie:
        found = re.search(r"MLflow run ([0-9a-f]+)", movie.metadata["comment"])
    return found[1] if found else "first"
