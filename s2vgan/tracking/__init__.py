"""MLflow: runs, the registered model and its champion. Nothing else imports mlflow.

Importing mlflow takes seconds, so it is imported where it is used; reading
:func:`tracking_uri` costs nothing. Everything goes through ``MlflowClient`` with an explicit URI:
no process-wide state, so that a driver, a worker and a test can each have their own store.
"""

from s2vgan.tracking.delivery import Delivery, deliver, is_delivered
from s2vgan.tracking.lineage import Lineage, trace
from s2vgan.tracking.registry import (
    ALIAS,
    CHAMPION,
    MODEL,
    crown,
    fetch_model,
    find_champion,
    register,
    resolve,
)
from s2vgan.tracking.runs import EXPERIMENT, Tracker
from s2vgan.tracking.store import tracking_uri
from s2vgan.tracking.ui import serve_ui

__all__ = [
    "ALIAS",
    "CHAMPION",
    "EXPERIMENT",
    "MODEL",
    "Delivery",
    "Lineage",
    "Tracker",
    "crown",
    "deliver",
    "fetch_model",
    "find_champion",
    "is_delivered",
    "register",
    "resolve",
    "serve_ui",
    "trace",
    "tracking_uri",
]
