"""The registered model: its versions, its champion, and how to get one."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlparse

from s2vgan.errors import NoModelError, OutageError, RunError
from s2vgan.tracking.store import connect, database_of, first_line, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

MODEL = "s2vgan"
ALIAS = "champion"
CHAMPION = f"models:/{MODEL}@{ALIAS}"

_SCHEMES = ("models:/", "runs:/")

T = TypeVar("T")


def register(
    model_dir: str | Path,
    run_id: str,
    metrics: Mapping[str, float],
    alias: str | None = ALIAS,
    name: str = MODEL,
    uri: str | None = None,
) -> str:
    """Make an artifact folder a version of a registered model, and point an alias at it, if any.

    Args:
        model_dir: folder with model.safetensors, config.json, manifest.json and MODEL_CARD.md.
        run_id: MLflow run that trained it; the folder is stored there as ``model``.
        metrics: kept as tags of the version.
        alias: afterwards names this version; None leaves the aliases as they are.
        name: of the registered model; made if there is none.
        uri: of the store, :func:`tracking_uri` by default.

    Returns:
        The version.

    Raises:
        RunError: if the folder is missing, or MLflow refuses.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    folder = Path(model_dir)
    if not (folder / "manifest.json").is_file():
        raise RunError(f"{folder}: no model here to register (no manifest.json); train one first.")
    uri = uri or tracking_uri()
    try:
        client = connect(uri)
        client.log_artifacts(run_id, str(folder), "model")
        try:
            client.create_registered_model(name, description="Speech to a talking face.")
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        card = folder / "MODEL_CARD.md"
        version = client.create_model_version(
            name,
            f"{client.get_run(run_id).info.artifact_uri}/model",
            run_id,
            tags={key: f"{value:.6g}" for key, value in metrics.items()},
            description=card.read_text() if card.is_file() else None,
        )
        if alias is not None:
            client.set_registered_model_alias(name, alias, version.version)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise RunError(
            f"the model in {folder} cannot be registered at {uri} ({first_line(error)}); "
            "see that MLflow is running and MLFLOW_TRACKING_URI is right, and try again."
        ) from error
    return str(version.version)


def crown(version: str, uri: str | None = None) -> None:
    """Point the alias champion at a version of the registered model.

    Raises:
        RunError: if there is no such version, or MLflow fails.
    """

    def point(client: "MlflowClient") -> str:
        client.set_registered_model_alias(MODEL, ALIAS, version)
        return version

    ask(f"models:/{MODEL}/{version}", uri, point)


def find_champion(uri: str | None = None) -> str | None:
    """The champion with its version, ``models:/s2vgan/3``; None where there is no champion yet.

    Raises:
        RunError: if MLflow fails.
    """
    version = _answer(
        CHAMPION,
        uri or tracking_uri(),
        lambda client: str(client.get_model_version_by_alias(MODEL, ALIAS).version),
    )
    return None if version is None else f"models:/{MODEL}/{version}"


def resolve(ref: str, uri: str | None = None) -> str:
    """A reference with an alias as one with a version: models:/s2vgan@champion -> models:/s2vgan/3.

    A folder is made absolute; any other reference is returned as it is.

    Args:
        ref: as in :func:`fetch_model`.
        uri: of the store, :func:`tracking_uri` by default.

    Raises:
        NoModelError: if there is no such model or alias.
        OutageError: if MLflow fails.
    """
    if not ref.startswith(_SCHEMES):
        return str(Path(ref).absolute())
    name, at, alias = ref.removeprefix("models:/").partition("@")
    if not ref.startswith("models:/") or not at:
        return ref

    def version_of(client: "MlflowClient") -> str:
        return str(client.get_model_version_by_alias(name, alias).version)

    return f"models:/{name}/{ask(ref, uri, version_of)}"


@contextmanager
def fetch_model(ref: str, uri: str | None = None) -> Iterator[Path]:
    """Folder of a model on this machine, to load it from inside the ``with``.

    What had to be downloaded is deleted at its end.

    Args:
        ref: ``models:/s2vgan@champion``, ``models:/s2vgan/3``, ``runs:/<id>/model``, or a run or
            model folder.
        uri: of the store, :func:`tracking_uri` by default.

    Yields:
        The folder.

    Raises:
        NoModelError: if there is no such registered model.
        OutageError: if it cannot be had.
        RunError: if the folder holds no model.
    """
    from s2vgan import artifact  # brings torch, which the rest of this module does without

    if not ref.startswith(_SCHEMES):
        yield artifact.find(ref)
        return
    store = uri or tracking_uri()
    exact = resolve(ref, store)

    with ExitStack() as held:

        def download(client: "MlflowClient") -> str:
            import mlflow.artifacts

            source = exact
            if exact.startswith("models:/"):
                name, _, version = exact.removeprefix("models:/").partition("/")
                source = client.get_model_version_download_uri(name, version)
            place = source
            if source.startswith("runs:/"):
                run_id = source.removeprefix("runs:/").partition("/")[0]
                place = client.get_run(run_id).info.artifact_uri or ""
            copy = None  # a local store answers with its own folder
            if urlparse(place).scheme not in ("", "file"):
                copy = held.enter_context(tempfile.TemporaryDirectory(prefix="s2vgan-"))
            return str(
                mlflow.artifacts.download_artifacts(source, dst_path=copy, tracking_uri=store)
            )

        yield artifact.find(ask(ref, store, download))


def ask(ref: str, uri: str | None, question: "Callable[[MlflowClient], T]") -> T:
    """Ask MLflow for a model, with a sentence for every way in which there is none.

    Args:
        ref: of the model, for the sentence.
        uri: of the store, :func:`tracking_uri` by default.
        question: put to a client of the store.

    Returns:
        The answer.

    Raises:
        NoModelError: if there is no such model.
        OutageError: if MLflow fails.
    """
    uri = uri or tracking_uri()
    answer = _answer(ref, uri, question)
    if answer is None:
        raise NoModelError(
            f"{ref}: no such model in MLflow at {uri}; `python tune/sweep.py` registers a "
            "champion, or give a run folder instead."
        )
    return answer


def _answer(ref: str, uri: str, question: "Callable[[MlflowClient], T]") -> T | None:
    """Ask MLflow for a model; None if there is none."""
    database = database_of(uri)
    if database is not None and not database.is_file():
        return None  # and do not make an empty database by asking

    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return question(connect(uri))
    except (MlflowException, SQLAlchemyError) as error:  # the latter of a damaged database
        known = error.error_code if isinstance(error, MlflowException) else ""
        if known in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise OutageError(f"{ref}: MLflow at {uri} failed ({first_line(error)}).") from error
    except OSError as error:
        raise OutageError(f"{ref}: its files cannot be fetched ({first_line(error)}).") from error
