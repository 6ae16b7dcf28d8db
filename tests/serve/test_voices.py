import asyncio
import hashlib
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import load_file, save_file

from s2vgan import artifact, tracking
from s2vgan.engine import Engine
from s2vgan.errors import RunError
from s2vgan.models import TalkingFace
from serve.api import build
from serve.problems import Refusal
from serve.service import Service
from serve.voices import Voice, Voices
from tests.serve.sounds import free_port, refusal, sound


class House:
    """A store with a registered model, and a service that follows its champion."""

    def __init__(self, folder: Path, run: Path) -> None:
        self.folder, self.run = folder, run
        self.uri = f"sqlite:///{folder}/mlflow.db"
        self._client = mlflow.MlflowClient(self.uri, self.uri)
        location = (folder / "artifacts").as_uri()
        self._experiment = self._client.create_experiment("s2vgan", location)
        self.register(run / artifact.FOLDER)
        first = Voice.load(tracking.CHAMPION, self.uri)
        self.voices = Voices(tracking.CHAMPION, self.uri, first, kept=2)

    def register(self, model: Path, alias: str = tracking.ALIAS) -> str:
        run_id = self._client.create_run(self._experiment).info.run_id
        return tracking.register(model, run_id, {}, alias=alias, uri=self.uri)

    def another(self, name: str) -> Path:
        """A model folder of other weights."""
        torch.manual_seed(len(name))
        known = artifact.load(self.run)
        folder = self.folder / name / "model"
        folder.parent.mkdir(parents=True)
        artifact.save(
            folder,
            TalkingFace(known.config.model, known.spec),
            known.config,
            name=name,
            dataset="d" * 64,
            step=1,
            readings={},
        )
        return folder


@pytest.fixture
def house(run_folder: Path, tmp_path: Path) -> House:
    return House(tmp_path, run_folder)


@pytest.fixture
def client(house: House) -> Iterator[TestClient]:
    with TestClient(build(Service(house.voices))) as client:
        yield client


def test_a_new_champion_takes_over_while_requests_run(house: House, client: TestClient) -> None:
    assert client.get("/v1/model").json()["version"] == "1"
    ended = threading.Event()

    def ask() -> list[int]:
        statuses = []
        while not ended.is_set():
            answer = client.post("/v1/speak?size=32", content=sound(1))
            statuses.append(answer.status_code if len(answer.content) > 1000 else 0)
        return statuses

    with ThreadPoolExecutor(2) as pool:
        asking = [pool.submit(ask) for _ in range(2)]
        house.register(house.another("second"))
        assert client.portal is not None
        client.portal.call(house.voices.refresh)
        card = client.get("/v1/model").json()
        after = client.post("/v1/speak", content=sound(0.5))
        ended.set()
        statuses = [status for one in asking for status in one.result()]
    assert card["version"] == "2" and card["reference"] == "models:/s2vgan/2"
    assert after.status_code == 200 and statuses and set(statuses) == {200}


def spoiled(folder: Path) -> Path:
    """The model with weights that are no numbers, and hashes that are right."""
    weights = load_file(folder / artifact.WEIGHTS)
    name = next(key for key, value in weights.items() if value.is_floating_point())
    weights[name] = torch.full_like(weights[name], torch.nan)
    save_file(weights, folder / artifact.WEIGHTS)
    manifest = folder / artifact.MANIFEST
    told = json.loads(manifest.read_text())
    told["files"][artifact.WEIGHTS] = hashlib.sha256(
        (folder / artifact.WEIGHTS).read_bytes()
    ).hexdigest()
    manifest.write_text(json.dumps(told))
    return folder


def test_a_bad_champion_never_speaks_and_the_old_one_stays(
    house: House, client: TestClient
) -> None:
    with pytest.raises(RunError, match="no number"):
        Voice.load(str(spoiled(house.another("nan"))))
    torn = house.another("torn")
    (torn / artifact.WEIGHTS).write_bytes(b"torn")
    assert client.portal is not None
    for bad in (house.folder / "nan" / "model", torn):
        house.register(bad)
        client.portal.call(house.voices.refresh)
        assert client.get("/v1/model").json()["version"] == "1"
        assert client.post("/v1/speak", content=sound(0.5)).status_code == 200
    version = house.register(house.another("good"))
    client.portal.call(house.voices.refresh)
    assert client.get("/v1/model").json()["version"] == version


def test_an_mlflow_that_is_gone_leaves_the_champion(house: House, client: TestClient) -> None:
    (house.folder / "mlflow.db").rename(house.folder / "elsewhere.db")
    assert client.portal is not None
    client.portal.call(house.voices.refresh)
    assert client.post("/v1/speak", content=sound(0.5)).status_code == 200


@pytest.mark.parametrize("name", ["s2vgan", "s2vgan@shadow", "s2vgan/7"])
def test_a_named_model_waits_for_an_mlflow_that_does_not_answer(
    name: str, voice: Voice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    gone = f"http://127.0.0.1:{free_port()}"
    voices = Voices(tracking.CHAMPION, gone, voice)
    with TestClient(build(Service(voices))) as client:
        for answer in (
            client.get(f"/v1/model?model={name}"),
            client.post(f"/v1/speak?model={name}", content=sound(0.2)),
        ):
            assert answer.status_code == 503 and name in refusal(answer)
            assert answer.headers["retry-after"] == "5" and gone not in answer.text


def test_models_by_name(house: House, client: TestClient) -> None:
    house.register(house.another("shadow"), alias="shadow")
    cards = {
        name: client.get(f"/v1/model?model={name}").json()["version"]
        for name in ("s2vgan", "s2vgan@champion", "s2vgan@shadow", "s2vgan/2", "s2vgan/1")
    }
    assert list(cards.values()) == ["1", "1", "2", "2", "1"]
    shown = [
        client.post(f"/v1/speak?format=frames&size=32&model={name}", content=sound(0.3)).content
        for name in ("s2vgan/1", "s2vgan/2")
    ]
    assert shown[0] != shown[1]
    for name in ("s2vgan@nobody", "s2vgan/99", "another"):
        answer = client.get(f"/v1/model?model={name}")
        assert answer.status_code == 404 and name in refusal(answer)
        assert str(house.folder) not in answer.text


NO_NAMES = [
    "../../etc/passwd",
    "/etc/passwd",
    "file:///etc/passwd",
    "models:/s2vgan/1",
    "runs:/abc/model",
    "s2vgan/../../x",
    "s2vgan@",
    ".hidden",
    "a b",
    "x" * 161,
    "s2vgan%00",
    "s2vgan\0",
    "s2vgan\n",
    "s2vgan@../../x",
    "s2vgan/..",
    "s2vgan/1/../../x",
    "..\\..\\x",
    "%2e%2e%2fx",
    "models:/s2vgan@champion",
    "~root",
    "s2vgan@champion@champion",
    "\N{FULLWIDTH LATIN SMALL LETTER S}2vgan",
    "",
]


def test_a_loaded_model_does_not_wait_for_one_that_loads(house: House) -> None:
    async def run() -> None:
        house.register(house.another("shadow"), alias="shadow")
        voice = await house.voices.get("s2vgan@shadow")
        async with house.voices._loading:
            assert await house.voices.get("s2vgan@shadow") is voice

    asyncio.run(asyncio.wait_for(run(), 60))


def test_a_name_is_no_path(client: TestClient) -> None:
    for name in NO_NAMES:
        for answer in (
            client.get("/v1/model", params={"model": name}),
            client.post("/v1/speak", params={"model": name}, content=sound(0.2)),
        ):
            assert answer.status_code == 422 and "model: use NAME" in refusal(answer), name


def test_the_least_recently_used_goes_first(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "bb", "ccc"):
        house.register(house.another(name), alias=name)
    loaded: list[str] = []
    real = Voice.load

    def load(ref: str, uri: str | None = None, engine: Engine = "torch") -> Voice:
        loaded.append(ref[-1])
        return real(ref, uri)

    monkeypatch.setattr(Voice, "load", load)

    async def ask() -> None:
        for version in (2, 3, 2, 4, 2, 3):
            await house.voices.get(f"s2vgan/{version}")
        same = await asyncio.gather(*(house.voices.get("s2vgan/4") for _ in range(5)))
        assert len({id(voice) for voice in same}) == 1

    asyncio.run(ask())
    assert loaded == ["2", "3", "4", "3", "4"]


def test_a_named_model_that_cannot_speak_says_so(house: House) -> None:
    bad = house.another("torn")
    (bad / artifact.WEIGHTS).write_bytes(b"torn")
    house.register(bad, alias="torn")
    with pytest.raises(Refusal) as refused:
        asyncio.run(house.voices.get("s2vgan@torn"))
    assert refused.value.status_code == 503
    assert "Retry-After" not in (refused.value.headers or {}), "waiting would not help"
