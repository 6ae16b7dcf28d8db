"""The models that speak: the one by default, which follows its alias, and others by name."""

import asyncio
import logging
import re
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from s2vgan import artifact, tracking
from s2vgan.engine import Engine, fitting, load_onnx
from s2vgan.errors import NoModelError, OutageError, RunError, S2VError
from s2vgan.provenance import Origin
from s2vgan.synthesis import Synthesizer
from serve.problems import Refusal

KEPT = 4  # models in memory beside the one by default
POLL_SECONDS = 10.0  # between two looks at the alias
RETRY_SECONDS = 300.0  # until a version that could not speak is tried again

# No path, no address: a client names registered models alone. As OpenAPI writes it, with anchors.
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}(@[A-Za-z0-9_-]{1,64}|/[0-9]{1,9})?$"
_NAME = re.compile(NAME_PATTERN)
# What a request may say in `model`. The pattern is told, not checked: Voices does, with a sentence.
ModelName = Annotated[str, Field(json_schema_extra={"pattern": NAME_PATTERN})]
_log = logging.getLogger("s2vgan.serve")


@dataclass(frozen=True)
class Voice:
    """A loaded model and where it came from.

    Attributes:
        synthesizer: speaks.
        reference: such as ``models:/s2vgan/3`` or the run's folder.
        engine: that makes its frames.
    """

    synthesizer: Synthesizer
    reference: str
    engine: Engine

    @classmethod
    def load(cls, ref: str, uri: str | None = None, engine: Engine = "torch") -> "Voice":
        """Fetch and load a model, and let it speak once: the first time costs more.

        Args:
            ref: of the model.
            uri: of the MLflow store.
            engine: to speak with, if it serves this model.

        Raises:
            RunError: if there is no such model, or its weights are no numbers.
            DatasetError: if ONNX Runtime's graph cannot be kept.
        """
        exact = tracking.resolve(ref, uri)
        with tracking.fetch_model(exact, uri) as folder:
            model = artifact.load(folder, "cuda" if torch.cuda.is_available() else "cpu")
            if not all(torch.isfinite(value).all() for value in model.face.state_dict().values()):
                raise RunError(f"{exact}: its weights hold what is no number; train it again.")
            engine = fitting(model, engine)
            onnx = load_onnx(folder, model) if engine == "onnx" else None
        synthesizer = Synthesizer(model, onnx)
        synthesizer.speak(np.zeros(synthesizer.spec.sample_rate, np.float32))
        return cls(synthesizer, exact, engine)

    @property
    def origin(self) -> Origin:
        """What is told of the model in what it makes."""
        return Origin.of(self.synthesizer.manifest, self.reference)

    def card(self) -> dict[str, Any]:
        """What ``/v1/model`` says."""
        manifest = self.synthesizer.manifest
        registered = self.reference.startswith("models:/")
        name, _, version = self.reference.removeprefix("models:/").partition("/")
        return {
            "name": name if registered else manifest["name"],
            "version": version if registered else None,
            "reference": self.reference,
            "spec": self.synthesizer.spec.to_dict(),
            "mlflow_run": manifest["mlflow_run"] or None,
            "dataset": manifest["dataset"],
            "sha256": manifest["files"]["model.safetensors"],
            "kind": self.synthesizer.config.model.kind,
            "engine": self.engine,
            "step": manifest["step"],
            "created": manifest["created"],
            "consent": self.origin.consented,
        }


def _refusal(name: str, error: S2VError) -> Refusal:
    """What a client is told of a model that cannot be had; the log knows more."""
    fields = {"model": name, "detail": str(error)}
    if isinstance(error, NoModelError):
        _log.info("no such model", extra={"fields": fields})
        return Refusal(404, f"no registered model {name}; leave model out for the default.")
    _log.warning("unusable model", extra={"fields": fields})
    if isinstance(error, OutageError):
        return Refusal(503, f"model {name} cannot be looked up now; try again in a moment.", 5)
    return Refusal(503, f"model {name} cannot speak; leave model out for the default.")


class Voices:
    """The models of a replica.

    A new version that its alias names is loaded and tried beside the old one, and takes its place
    for the requests that come after; those that run keep the old one. If it cannot speak, the old
    one stays.

    Args:
        default: reference of the model that speaks if none is named.
        uri: of the MLflow store.
        first: that model, loaded.
        kept: others that are kept in memory; beyond them the least recently used one is dropped.
        engine: that all of them speak with, where it serves them.
    """

    def __init__(
        self,
        default: str,
        uri: str | None,
        first: Voice,
        kept: int = KEPT,
        engine: Engine = "torch",
    ) -> None:
        self._default, self._uri, self._kept, self._engine = default, uri, kept, engine
        self.champion = first
        self._others: OrderedDict[str, Voice] = OrderedDict()
        self._loading = asyncio.Lock()
        self._refused: str | None = None  # the version that could not speak
        self._retry_at = 0.0

    async def get(self, name: str | None) -> Voice:
        """The model of a name such as ``s2vgan``, ``s2vgan@champion`` or ``s2vgan/3``.

        Raises:
            Refusal: 422 for what is no name, 404 if there is no such model, 503 if it cannot speak
                or MLflow does not answer.
        """
        if name is None:
            return self.champion
        parts = _NAME.fullmatch(name)
        if parts is None:
            raise Refusal(422, "model: use NAME, NAME@ALIAS or NAME/VERSION of a registered model.")
        exact = name if parts[1] else f"{name}@{tracking.ALIAS}"
        try:
            found = await asyncio.to_thread(tracking.resolve, f"models:/{exact}", self._uri)
            if found == self.champion.reference:
                return self.champion
            if found not in self._others:  # who asks for one that is there waits for no others
                await self._load(found)
        except S2VError as error:
            raise _refusal(name, error) from None
        self._others.move_to_end(found)
        return self._others[found]

    async def _load(self, ref: str) -> None:
        async with self._loading:
            if ref in self._others:  # by whoever asked for it meanwhile
                return
            self._others[ref] = await asyncio.to_thread(Voice.load, ref, self._uri, self._engine)
            if len(self._others) > self._kept:
                self._others.popitem(last=False)

    async def follow(self, seconds: float = POLL_SECONDS) -> None:
        """Look at the alias again and again, until cancelled."""
        while True:
            await asyncio.sleep(seconds)
            await self.refresh()

    async def refresh(self) -> None:
        """Take the version that the alias names now, if it is another one and can speak."""
        exact = self._default
        try:
            exact = await asyncio.to_thread(tracking.resolve, self._default, self._uri)
            if exact == self.champion.reference:
                return
            if exact == self._refused and time.monotonic() < self._retry_at:
                return
            self.champion = await asyncio.to_thread(Voice.load, exact, self._uri, self._engine)
            _log.info("new model", extra={"fields": {"model": exact}})
        except Exception as error:  # whatever is wrong with it, or with MLflow, the old one speaks
            self._refused, self._retry_at = exact, time.monotonic() + RETRY_SECONDS
            _log.warning(
                "the old model stays",
                extra={"fields": {"model": exact, "detail": str(error)}},
            )
