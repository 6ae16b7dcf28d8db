"""The launcher of a training: what it checks first, and how it starts the loop on Ray Train."""

import contextlib
import dataclasses
import errno
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch

from s2vgan import cluster
from s2vgan.book import CHECKPOINTS
from s2vgan.config import Config
from s2vgan.errors import ConfigError, DatasetError, RunError, S2VError
from s2vgan.files import write_text
from s2vgan.interrupt import deferred, supervise
from s2vgan.ledger import DatasetInfo, read_dataset
from s2vgan.loop import Launch, Report, train_loop
from s2vgan.models import build_face
from s2vgan.progress import TrainingProgress
from s2vgan.runlog import METRICS, RUN_FILE, read_run, unwritten, update_run
from s2vgan.tracking import Delivery, is_delivered, tracking_uri

ERROR_FILE = "error.txt"
RESTARTS = 3  # of the workers after a crash; each goes on from the latest checkpoint


def _worker(settings: dict[str, Any]) -> None:
    """What Ray Train runs in each worker."""
    told = {name: value for name, value in settings.items() if name != "report"}
    launch = Launch(**told | {"config": Config.from_dict(told["config"])})
    report: Report | None = settings["report"]
    rank, world, here = 0, 1, 1
    if report is None:
        context = ray.train.get_context()  # which Ray Train refuses in local mode below Ray Tune
        rank, world = context.get_world_rank(), context.get_world_size()
        here, report = context.get_local_world_size(), lambda values: ray.train.report(values)
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        torch.set_num_threads(max(1, cluster.cores() // (here * launch.trials)))
    try:
        train_loop(launch, device, rank, world, report)
    except S2VError as error:
        # What the user must mend would fail again: no exception, which Ray would answer with
        # restarts, but a sentence that fit() raises.
        write_text(launch.folder / ERROR_FILE, str(error))


def make_trainer(
    config: Config,
    data: str | Path,
    out: str | Path,
    workers: int,
    *,
    callbacks: Sequence[Any] = (),
    report: Report | None = None,
    name: str = "",
    parent: str | None = None,
    tracking: str | None = None,
    trials: int = 1,
    consent: str = "",
) -> ray.train.torch.TorchTrainer:
    """A Ray Train job of a run; a run that has a checkpoint goes on from it.

    Args:
        config: of the run.
        data: dataset folder or URL.
        out: the run's folder.
        workers: number of workers; each has a GPU if the cluster has enough of them. 0 trains in
            the process that calls fit(), on its GPU if it has one: Ray Train's local mode, which
            restarts nothing, calls no callback and needs ``report``.
        callbacks: of Ray Train, such as Tune's.
        report: told of each evaluation by the one worker of local mode; others tell Ray Train.
        name: of the run; by default the folder's.
        parent: MLflow run of a sweep.
        tracking: MLflow URI; by default :func:`tracking_uri`.
        trials: trainings that share the cluster at a time.
        consent: who consented that the face is learned.
    """
    folder = Path(out).absolute()
    launch = Launch(
        config,
        _absolute(data),
        str(folder),
        name or folder.name,
        tracking or tracking_uri(),
        parent,
        trials,
        consent,
    )
    settings = {item.name: getattr(launch, item.name) for item in dataclasses.fields(launch)}
    scaling = ray.train.ScalingConfig(num_workers=0)
    if workers:
        gpu = cluster.has_gpus(workers * trials)
        resources = cluster.train_resources(workers, trials=trials, gpu=gpu)
        scaling = ray.train.ScalingConfig(
            num_workers=workers, use_gpu=gpu, resources_per_worker=resources
        )
    return ray.train.torch.TorchTrainer(
        _worker,
        train_loop_config=settings | {"config": config.to_dict(), "report": report},
        scaling_config=scaling,
        run_config=ray.train.RunConfig(
            name=f"attempt-{time.time_ns()}",  # Ray answers a finished name with its old result
            storage_path=str(folder / "ray"),
            callbacks=list(callbacks),
            failure_config=ray.train.FailureConfig(max_failures=RESTARTS),
        ),
    )


def train(
    config: Config,
    data: str | Path,
    out: str | Path,
    workers: int | None = None,
    *,
    resume: bool = False,
    name: str = "",
    parent: str | None = None,
    consent: str = "",
) -> Path:
    """Train a model and store it in RUN/model.

    Args:
        config: of the run.
        data: dataset folder or URL.
        out: the run's folder RUN.
        workers: Ray Train workers; 0 trains in this process, without Ray, and None is one for each
            GPU of this machine, or 2, as far as they can share a batch.
        resume: go on with the run that the folder holds.
        name: of the run; by default the folder's.
        parent: MLflow run of the sweep that the run belongs to.
        consent: who consented that the face is learned and shown, and how; it goes into the
            model's manifest and card. A resumed run keeps its own if none is given.

    Returns:
        The run's folder.

    Raises:
        S2VError: if the dataset, the folder or the configuration is unusable.
    """
    folder = Path(out).absolute()
    if workers is None:
        workers = _workers(torch.cuda.device_count() or 2, config)
    info = check(config, data, folder, workers, resume)
    folder.mkdir(parents=True, exist_ok=True)
    if not resume:  # what a start without a checkpoint left
        for file in (RUN_FILE, METRICS):
            (folder / file).unlink(missing_ok=True)
    name = name or folder.name
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if workers:
        cluster.connect()
        where = _where(workers)
        if told := cluster.shortage(workers * cluster.train_resources(workers)["CPU"]):
            print(told)
    else:
        where = f"in this process on its {device.type.replace('cuda', 'gpu').upper()}"
    minutes = f"{config.train.minutes:g} minutes and " if config.train.minutes else ""
    print(
        f"Training {folder.name} {where}: {sum(info.groups.values())} groups of "
        f"{len(info.groups)} videos, at most {minutes}{config.train.steps} steps."
    )
    try:
        with TrainingProgress(folder, config), deferred(folder) as asked:
            if workers:
                trainer = make_trainer(
                    config, data, folder, workers, name=name, parent=parent, consent=consent
                )
                supervise(lambda: fit(trainer, folder), asked)
            else:
                launch = Launch(
                    config, _absolute(data), str(folder), name, tracking_uri(), parent,
                    consent=consent,
                )  # fmt: skip
                train_loop(launch, device, 0, 1, None)
    except KeyboardInterrupt:
        if workers and read_run(folder):  # Ray's worker was killed with its book open
            update_run(folder, status="KILLED", ended=time.time_ns() // 1_000_000)
            Delivery(folder, tracking_uri()).attempt()
        raise
    finally:
        if not (folder / RUN_FILE).is_file():  # the run never began
            (folder / ERROR_FILE).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # there are other things in it
                folder.rmdir()
        elif not is_delivered(folder):
            print(
                f"MLflow was not told all of this run; when it answers, `s2vgan mlflow --deliver "
                f"{folder}` tells it."
            )
    run = read_run(folder)
    if asked.is_set() and run.get("status") != "FINISHED":
        if parent:
            print("Stopped.")  # how the sweep goes on it tells itself
        elif run.get("step", -1) > 0:
            print(f"Stopped at step {run['step']}; the same command with --resume goes on.")
        else:
            print("Stopped before the first step: there is nothing to resume; start it again.")
        raise KeyboardInterrupt
    return folder


def _workers(most: int, config: Config) -> int:
    """The largest number, up to ``most``, of workers that can share a batch, see :func:`check`."""
    sequences = config.train.batch // config.train.sequence
    if config.loss.wrong:  # takes two sequences of the same worker
        most = min(most, sequences // 2)
    return max((number for number in range(1, most + 1) if sequences % number == 0), default=1)


def _where(workers: int) -> str:
    """What so many workers of the cluster train on, as a part of a sentence."""
    if cluster.has_gpus(workers):
        return f"by {workers} workers on a GPU each"
    if cluster.has_gpus(1):
        return f"by {workers} workers on CPUs (there are GPUs, but fewer than --workers)"
    return f"by {workers} workers on CPUs"


def fit(trainer: ray.train.torch.TorchTrainer, folder: Path) -> None:
    """Run a job of :func:`make_trainer` to its end.

    Raises:
        RunError: with the sentence of a worker that could not go on.
    """
    told = folder / ERROR_FILE
    told.unlink(missing_ok=True)
    try:
        trainer.fit()
    except Exception as error:
        if told.is_file():
            raise RunError(told.read_text()) from error
        if (full := os.strerror(errno.ENOSPC)) in str(error):  # of a sentence, or of Ray's files
            raise RunError(unwritten(folder, full)) from error
        raise
    shutil.rmtree(folder / "ray", ignore_errors=True)  # our own checkpoints are the run's
    if told.is_file():
        sentence = told.read_text()
        told.unlink()
        raise RunError(sentence)


def check(
    config: Config, data: str | Path, out: str | Path, workers: int, resume: bool
) -> DatasetInfo:
    """Refuse at the start, and in the launcher, what would fail in a worker.

    Returns:
        The dataset's dataset.json.
    """
    if Path(out).exists() and not Path(out).is_dir():
        raise RunError(f"{out}: is a file; choose another --out.")
    info = read_dataset(data)
    build_face(config.model, info.spec)  # raises where no network can be made
    training = sum(count - int(count * config.train.held_out) for count in info.groups.values())
    if training < config.train.batch:
        raise DatasetError(
            f"{data}: its training time holds {training} groups, fewer than one batch of "
            f"{config.train.batch}: lower train.batch or extract more video."
        )
    sequences = config.train.batch // config.train.sequence
    stride, seconds = config.train.stride, training * info.spec.seconds
    if stride and seconds / stride + len(info.groups) < sequences:
        raise DatasetError(
            f"{data}: its training time is {seconds:.0f} s; one sequence in each {stride:g} s "
            f"(train.stride) is fewer than one batch of {sequences}: lower train.batch or extract "
            "more video."
        )
    if workers < 0 or (workers and sequences % workers):
        raise ConfigError(
            f"--workers {workers}: the batch of {sequences} sequences (train.batch / "
            "train.sequence) cannot be shared out evenly; choose another number of workers."
        )
    if config.loss.wrong and sequences == workers:
        raise ConfigError(
            f"--workers {workers}: loss.wrong takes wrong speech from another sequence of the same "
            "worker, and each would have one; choose fewer workers."
        )
    started = any((Path(out) / CHECKPOINTS).glob("step_*.pt"))
    if started and not resume:
        raise RunError(f"{out}: holds a run; go on with it by --resume, or choose another --out.")
    if resume and not started:
        raise RunError(f"{out}: no checkpoint to resume from; leave --resume out to start.")
    return info


def _absolute(data: str | Path) -> str:
    return str(data) if "://" in str(data) else str(Path(data).absolute())
