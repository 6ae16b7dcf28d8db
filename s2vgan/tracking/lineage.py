"""Where a model comes from: version, run, configuration, commit, dataset, and its sources."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s2vgan import ledger
from s2vgan.config import Config
from s2vgan.errors import RunError, S2VError
from s2vgan.runlog import read_run
from s2vgan.tracking.registry import MODEL, ask, resolve
from s2vgan.tracking.runs import flatten
from s2vgan.tracking.store import tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

MANIFEST, CONFIG = "manifest.json", "config.json"  # of a model folder


@dataclass(frozen=True)
class Source:
    """A video, or a part of one, that a dataset was made of.

    Attributes:
        video_id: in the dataset.
        source: path, URL or link that the user gave.
        start: s, where the extraction began.
        end: s, where it ended; None for the video's end.
        sha256: of the content.
        groups: that it gave.
    """

    video_id: str
    source: str
    start: float
    end: float | None
    sha256: str
    groups: int


@dataclass(frozen=True)
class Lineage:
    """The chain from a model back to its sources; an empty text is a link that is not known.

    Attributes:
        model: as asked for, with the version in place of an alias.
        aliases: of that version.
        run: name of the run.
        folder: of the run.
        mlflow_run: its id.
        sweep: name of the sweep it belongs to.
        config: all parameters, flat, such as ``train.lr_g``.
        git_commit: of the code.
        dataset: its identity.
        data: its folder or URL.
        sources: of the dataset.
        note: why there are no sources, in a sentence.
    """

    model: str
    aliases: tuple[str, ...] = ()
    run: str = ""
    folder: str = ""
    mlflow_run: str = ""
    sweep: str = ""
    config: dict[str, str] = field(default_factory=dict)
    git_commit: str = ""
    dataset: str = ""
    data: str = ""
    sources: tuple[Source, ...] = ()
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        default = flatten(Config().to_dict())
        changed = [
            f"{name} {value}" for name, value in self.config.items() if default.get(name) != value
        ]
        model = self.model + (f" ({', '.join(self.aliases)})" if self.aliases else "")
        lines = [
            ("model", model),
            ("run", self.run + (f", of the sweep {self.sweep}" if self.sweep else "")),
            ("", self.folder),
            ("MLflow", self.mlflow_run),
            ("config", f"conf/base.yaml{' with ' if changed else ''}{', '.join(changed)}"),
            ("commit", self.git_commit or "unknown"),
            ("dataset", self.dataset),
            ("", self.data),
            *((("sources" if number == 0 else ""), _line(source)) for number, source in
              enumerate(self.sources)),
            ("sources", self.note),
        ]  # fmt: skip
        return "\n".join(f"{name:9}{text}" for name, text in lines if text)


def trace(ref: str, uri: str | None = None, data: str | None = None) -> Lineage:
    """Follow a model back to the sources of its dataset.

    Args:
        ref: ``models:/s2vgan@champion``, ``models:/s2vgan/3``, ``runs:/<id>/model``, or a run or
            model folder.
        uri: of the store, :func:`tracking_uri` by default.
        data: where the dataset is now, if not where it was in training.

    Raises:
        RunError: if there is no such model.
    """
    uri = uri or tracking_uri()
    if ref.startswith(("models:/", "runs:/")):
        found = _registered(ref, uri)
    else:
        found = _of_folder(Path(ref))
    if data is not None:
        found = dataclasses.replace(found, data=data)
    return _with_sources(found)


def _registered(ref: str, uri: str) -> Lineage:
    exact = resolve(ref, uri)
    return ask(ref, uri, lambda client: _of_mlflow(client, exact))


def _of_mlflow(client: "MlflowClient", ref: str) -> Lineage:
    """What MLflow knows."""
    from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

    aliases: Sequence[str] = ()
    if ref.startswith("models:/"):
        name, _, number = ref.removeprefix("models:/").partition("/")
        run_id = str(client.get_model_version(name, number).run_id)
        known = client.get_registered_model(name).aliases
        aliases = sorted(alias for alias, version in known.items() if str(version) == number)
    else:
        run_id = ref.removeprefix("runs:/").partition("/")[0]
    run = client.get_run(run_id)
    tags: Mapping[str, str] = run.data.tags
    parent = tags.get(MLFLOW_PARENT_RUN_ID)
    inputs = run.inputs.dataset_inputs if run.inputs else []
    return Lineage(
        ref,
        tuple(aliases),
        run=str(run.info.run_name),
        folder=tags.get("run_folder", ""),
        mlflow_run=run_id,
        sweep=str(client.get_run(parent).info.run_name) if parent else "",
        config=dict(run.data.params),
        git_commit=tags.get("git_commit", ""),
        dataset=tags.get("dataset", ""),
        data=inputs[0].dataset.source if inputs else "",
    )


def _of_folder(folder: Path) -> Lineage:
    """Lineage of a run folder, or of the model folder in one, from its own files."""
    places = (folder, folder / "model")
    model = next((place for place in places if (place / MANIFEST).is_file()), None)
    if model is None:
        raise RunError(
            f"{folder}: no model here (no {MANIFEST}); give a run, or models:/{MODEL}/1."
        )
    manifest = json.loads((model / MANIFEST).read_text())
    about = read_run(model.parent)
    return Lineage(
        str(model.absolute()),
        run=manifest["name"],
        folder=str(model.parent.absolute()) if about else "",
        mlflow_run=manifest["mlflow_run"] or about.get("mlflow_run") or "",
        config=flatten(json.loads((model / CONFIG).read_text())),
        git_commit=manifest["git_commit"],
        dataset=manifest["dataset"],
        data=about.get("data", ""),
    )


def _with_sources(found: Lineage) -> Lineage:
    """Add the sources of the dataset where it lies, if it is (still) the one trained on."""
    if not found.data:
        return _noted(found, "it is not known where the dataset lies; give --data DATA.")
    try:
        now = ledger.read_dataset(found.data).sha256
        rows = ledger.read_rows(found.data)
    except (S2VError, OSError) as error:
        return _noted(found, f"the dataset cannot be read ({error}); give --data DATA.")
    if now != found.dataset:
        return _noted(
            found, f"{found.data} holds another dataset now ({now[:12]}); give --data DATA."
        )
    sources = tuple(
        Source(row.video_id, row.source, row.start, row.end, row.sha256, row.groups)
        for row in rows.values()
        if row.status == "ok"
    )
    return dataclasses.replace(found, sources=sources)


def _noted(found: Lineage, note: str) -> Lineage:
    return dataclasses.replace(found, note=note)


def _line(source: Source) -> str:
    part = ""
    if source.start or source.end is not None:
        part = f" from {source.start:g} s to {'its end' if source.end is None else source.end}"
    content = f", sha256 {source.sha256[:12]}" if source.sha256 else ""
    return f"{source.source}{part}, {source.groups} groups{content}"
