"""Where MLflow keeps things, and how to ask it."""

import contextlib
import logging
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SQLITE = "sqlite:///"
_LOCK_SECONDS = 10.0


def tracking_uri() -> str:
    """Where runs are logged: MLFLOW_TRACKING_URI, by default ``sqlite:///<here>/mlflow.db``.

    A relative SQLite path is made absolute, so that it means the same in a Ray worker, whose
    working directory is another: ask in the launcher, and hand the answer on.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}mlflow.db"
    database = database_of(uri)
    return uri if database is None else f"{_SQLITE}{database}"


def database_of(uri: str) -> Path | None:
    """The absolute path of a SQLite store's file; None for any other store."""
    path = uri.removeprefix(_SQLITE)
    return Path(path).absolute() if path != uri and path != ":memory:" else None


def connect(uri: str) -> "MlflowClient":
    """A client of the store; a SQLite store that is not there is made."""
    # A server that does not answer must cost a training seconds, not MLflow's minutes.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    database = database_of(uri)
    if database is not None:
        # MLflow would try to open a database in a missing folder for a minute and a half.
        database.parent.mkdir(parents=True, exist_ok=True)

    from mlflow import MlflowClient

    for name in ("mlflow.store.db.utils", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def require_unlocked(uri: str) -> None:
    """Wait up to ten seconds for whoever writes to a SQLite store; MLflow would for minutes.

    Raises:
        sqlite3.Error: if the store is still locked then, or cannot be written.
    """
    database = database_of(uri)
    if database is not None and database.is_file():
        with contextlib.closing(sqlite3.connect(database, timeout=_LOCK_SECONDS)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()


def first_line(error: BaseException) -> str:
    """What a sentence can quote of an error."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
