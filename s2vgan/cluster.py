"""Ray: which cluster, how many logical CPUs a local one gets, and what each stage may take.

A stage that reserves every logical CPU leaves none for Ray Data, and the job hangs for ever. So
a local Ray gets more logical CPUs than the machine has cores, and all stages together reserve at
most half of them; the operating system shares the real cores. This module owns that decision.
"""

import logging
import os
import warnings
from typing import Final

import ray

from s2vgan.errors import ServiceError

LOGICAL_PER_CORE: Final = 4
LEAST_LOGICAL: Final = 8
RESERVABLE: Final = 0.5  # share of the logical CPUs that workers may reserve; the rest is Ray's
TRIAL_CPU: Final = 0.1  # what a trial's own function takes, beside its workers
OBJECT_STORE: Final = 512 << 20  # bytes; paths and metrics travel through Ray, never frames


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def connect() -> None:
    """Join the cluster that RAY_ADDRESS names, or start a local one; once per process."""
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "0")
    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level=logging.WARNING, log_to_driver=False)
    else:
        start_local()


def start_local() -> None:
    """Start a Ray on this machine alone, quietly."""
    # That a local cluster asks for a token is news to nobody here.
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    ray.init(
        address="local",
        num_cpus=max(LEAST_LOGICAL, LOGICAL_PER_CORE * cores()),
        object_store_memory=OBJECT_STORE,
        include_dashboard=False,
        logging_level=logging.WARNING,
        log_to_driver=False,
    )


def quiet_data() -> None:
    """Keep Ray Data's reports and tracebacks in its log file; call it after ``import ray.data``."""
    # It warns of every job with fewer videos than workers.
    warnings.filterwarnings("ignore", "The maximum number of concurrent tasks", UserWarning)
    for handler in logging.getLogger("ray.data").handlers:
        if handler.name == "console":
            handler.setLevel(logging.CRITICAL)


def is_local() -> bool:
    """Whether the connected cluster is the one that :func:`start_local` started."""
    return not os.environ.get("RAY_ADDRESS")


def extract_workers() -> int | None:
    """Videos to extract at a time: one per core of this machine, or None for as many as fit.

    A joined cluster grows with the work, so that its CPUs of now (none, before its first worker
    node has started) say nothing.
    """
    return cores() if is_local() else None


def train_resources(workers: int, *, trials: int = 1, gpu: bool = False) -> dict[str, float]:
    """What each training worker reserves.

    Args:
        workers: of one training.
        trials: trainings at a time.
        gpu: whether each worker trains on a GPU of its own.

    Returns:
        Ray resources: at most 1 CPU each, less where all workers would not fit.
    """
    share = _reservable() / max(1, workers * trials)
    resources = {"CPU": min(1.0, int(share * 100) / 100)}
    return resources | {"GPU": 1.0} if gpu else resources


def has_gpus(count: int) -> bool:
    """Whether the cluster has so many GPUs."""
    return float(ray.cluster_resources().get("GPU", 0.0)) >= count


def shortage(cpus: float) -> str:
    """A sentence for who would wait without knowing why; empty if so many CPUs are free now.

    A local Ray has room for all that this module gives.
    """
    free = float(ray.available_resources().get("CPU", 0.0))
    if is_local() or free >= cpus:
        return ""
    return (
        f"{free:g} of the cluster's {_cpus():g} CPUs are free, and {cpus:g} are needed: this waits "
        "until other work on the cluster has ended or nodes are added."
    )


def trial_slots(workers: int) -> int:
    """Trials of so many workers that may run at a time: as many as have a GPU or a core each.

    Raises:
        ServiceError: if not even one has; it would train for ever, or wait for ever.
    """
    gpus = int(ray.cluster_resources().get("GPU", 0.0))
    cpus = cores() if is_local() else int(_reservable())
    slots = (gpus if gpus >= workers else cpus) // workers
    if not slots:
        raise ServiceError(
            f"a trial of {workers} workers needs {workers} cores or GPUs, and there are {cpus} "
            f"cores for trials and {gpus} GPUs: lower --workers, or add nodes to the cluster first."
        )
    return slots


def _cpus() -> float:
    return float(ray.cluster_resources().get("CPU", 1.0))


def _reservable() -> float:
    return _cpus() * RESERVABLE
