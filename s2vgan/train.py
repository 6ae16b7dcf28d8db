"""Training: the loop that every worker runs, and the launcher that starts it on Ray Train."""

import dataclasses
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import ray
import ray.train
import ray.train.torch
import torch
from torch import distributed
from tqdm import tqdm

from s2vgan import artifact, cluster
from s2vgan.config import Config
from s2vgan.dataset import GroupDataset
from s2vgan.errors import ConfigError, DatasetError, RunError, S2VError
from s2vgan.groups import DatasetInfo, read_dataset
from s2vgan.models import TalkingFace
from s2vgan.runlog import RunLog, read_log
from s2vgan.tracking import Tracker, tracking_uri
from s2vgan.training import (
    Batch,
    Sampler,
    TrainState,
    fit_face,
    load_checkpoint,
    pretrain_audio,
    save_checkpoint,
    train_step,
)
from s2vgan.validation import validate, validation_rows

SHOWN_LOSSES = ("loss_d", "loss_g")
LOG_EVERY = 10  # steps between lines of the log; the workers also agree here whether to stop
RUN_FILE, ERROR_FILE = "run.json", "error.txt"
RESTARTS = 3  # of the workers after a crash; each goes on from the latest checkpoint

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Launch:
    """What every worker is told.

    Attributes:
        config: of the run.
        data: dataset folder or URL.
        out: the run's folder, on storage that all workers share.
        name: of the run.
        tracking: MLflow URI, absolute.
        parent: MLflow run of the sweep that this run belongs to.
    """

    config: Config
    data: str
    out: str
    name: str
    tracking: str
    parent: str | None = None

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.out)

    @property
    def checkpoints(self) -> Path:
        """Folder of its checkpoints."""
        return self.folder / "checkpoints"


def train_loop(
    launch: Launch, device: torch.device, rank: int, world: int, report: Report | None
) -> None:
    """Train, from the latest checkpoint if there is one, until the budget is spent.

    Args:
        launch: the same on every worker.
        device: of this worker.
        rank: of this worker; 0 alone writes, validates and tracks.
        world: number of workers, whose process group is initialised if more than one.
        report: called by all workers at each evaluation; it may wait for the others.
    """
    config = launch.config
    dataset = GroupDataset.load(launch.data)
    training, held_out = dataset.split(config.train.held_out)
    sequences = dataset.sequences(training, config.train.sequence)
    sampler = Sampler(sequences, config.train.batch // config.train.sequence, config.train.seed)
    state = TrainState.create(config, dataset.spec, device, rank, world)
    resumed = any(launch.checkpoints.glob("step_*.pt"))
    if resumed:
        for sentence in load_checkpoint(state, launch.checkpoints, dataset.info.sha256):
            print(sentence)
    started = time.monotonic() - state.seconds
    book = _Book(launch, state, dataset, validation_rows(dataset, held_out)) if rank == 0 else None
    try:
        if not resumed:
            fit_face(state, dataset, training)
            for number, values in enumerate(pretrain_audio(state, dataset, training)):
                if book and number % LOG_EVERY == 0:
                    book.log(time.monotonic() - started, values)
        if world > 1:
            state.distribute()
        done = state.step >= config.train.steps
        while not done:
            rows = sampler.rows(state.step, rank, world)
            losses = train_step(state, Batch.gather(dataset, rows, config, device))
            done = state.step >= config.train.steps
            if state.step % LOG_EVERY == 0 or done:
                state.seconds = time.monotonic() - started
                done |= _agreed(_spent(state), device, world)
                if book:
                    book.log(state.seconds, {name: value.item() for name, value in losses.items()})
            if state.step % config.train.evaluate_every == 0 or done:
                readings = book.evaluate() if book else {}
                if report:
                    report({"step": state.step, **readings})
    except BaseException:
        if book:
            book.close("FAILED")
        raise
    if book:
        book.close("FINISHED")


def _spent(state: TrainState) -> bool:
    minutes = state.config.train.minutes
    return minutes > 0 and state.seconds >= 60 * minutes


def _agreed(stop: bool, device: torch.device, world: int) -> bool:
    """Rank 0's word: clocks differ, and a worker that stops alone leaves the others waiting."""
    if world == 1:
        return stop
    word = torch.tensor([float(stop)], device=device)
    distributed.broadcast(word, src=0)
    return bool(word.item())


class _Book:
    """Rank 0's records of a run: log, MLflow, samples, checkpoints and the model."""

    def __init__(
        self, launch: Launch, state: TrainState, dataset: GroupDataset, checked: np.ndarray
    ) -> None:
        self._launch, self._state, self._dataset, self._checked = launch, state, dataset, checked
        self._log = RunLog(launch.folder, state.step)
        text = json.dumps(launch.config.to_dict(), indent=2) + "\n"
        (launch.folder / "config.json").write_text(text)
        self._losses: dict[str, float] = {}
        self._logged_step, self._logged_seconds = state.step, state.seconds
        self._tracker = Tracker(uri=launch.tracking)
        run_file = launch.folder / RUN_FILE
        run = json.loads(run_file.read_text()) if run_file.is_file() else {}
        run["mlflow_run"] = self._tracker.start(
            launch.name,
            launch.config.to_dict(),
            tags={"run_folder": launch.out, "git_commit": artifact.git_commit()},
            parent=launch.parent,
            run_id=run.get("mlflow_run"),
        )
        identity = dataset.info.sha256
        self._tracker.log_input(identity, Path(launch.data).name, launch.data)
        run |= {"name": launch.name, "data": launch.data, "dataset": identity}
        run_file.write_text(json.dumps(run, indent=2) + "\n")

    def log(self, seconds: float, values: dict[str, float]) -> None:
        """One line of losses; called every ``LOG_EVERY`` steps."""
        train = self._state.config.train
        if "loss_g" in values:
            groups = LOG_EVERY * train.batch
            before = self._losses.get("seconds", self._state.seconds)
            values = values | {
                "lr_g": train.lr_g,
                "lr_d": train.lr_d,
                "skipped": self._state.skipped,
                "groups_per_second": groups / max(seconds - before, 1e-9)
                if before < seconds
                else 0,
            }
        self._losses = values | {"seconds": seconds}
        self._log.write(self._state.step, seconds, values)
        self._tracker.log_metrics(values, self._state.step)

    def evaluate(self) -> dict[str, float]:
        """Validate on held-out time; write samples, a checkpoint and the model."""
        state, launch = self._state, self._launch
        readings: dict[str, float] = {}
        if self._checked.size:
            readings, picture = validate(state, self._dataset, self._checked)
            self._log.write(state.step, state.seconds, readings)
            self._tracker.log_metrics(readings, state.step)
            path = launch.folder / "samples" / f"step_{state.step:07d}.png"
            path.parent.mkdir(exist_ok=True)
            cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
            self._tracker.log_file(path, "samples")
        identity = self._dataset.info.sha256
        save_checkpoint(state, launch.checkpoints, identity)
        artifact.save(
            launch.folder / artifact.FOLDER,
            state.ema,
            state.config,
            name=launch.name,
            dataset=identity,
            step=state.step,
            readings=readings,
            mlflow_run=self._tracker.run_id or "",
        )
        losses = {name: value for name, value in self._losses.items() if name in SHOWN_LOSSES}
        return losses | readings

    def close(self, status: str) -> None:
        """End the MLflow run; a finished one gets the model."""
        if status == "FINISHED":
            self._tracker.log_file(self._launch.folder / artifact.FOLDER)
        self._tracker.finish(status)


def _worker(settings: dict[str, Any]) -> None:
    """What Ray Train runs in each worker."""
    launch = Launch(**settings | {"config": Config.from_dict(settings["config"])})
    context = ray.train.get_context()
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        torch.set_num_threads(max(1, (cores or 1) // context.get_local_world_size()))
    try:
        train_loop(
            launch,
            device,
            context.get_world_rank(),
            context.get_world_size(),
            lambda values: ray.train.report(values),
        )
    except S2VError as error:
        # What the user must mend fails on every worker alike, and again if it is tried again: no
        # exception, which Ray would answer with restarts, but a sentence that fit() raises.
        (launch.folder / ERROR_FILE).write_text(str(error))


def make_trainer(
    config: Config,
    data: str | Path,
    out: str | Path,
    workers: int,
    *,
    callbacks: Sequence[Any] = (),
    name: str = "",
    parent: str | None = None,
    tracking: str | None = None,
    trials: int = 1,
) -> ray.train.torch.TorchTrainer:
    """A Ray Train job of a run; a run that has a checkpoint goes on from it.

    Args:
        config: of the run.
        data: dataset folder or URL.
        out: the run's folder.
        workers: number of workers, 1 or more; each has a GPU if the cluster has enough of them.
        callbacks: of Ray Train, such as Tune's.
        name: of the run; by default the folder's.
        parent: MLflow run of a sweep.
        tracking: MLflow URI; by default :func:`tracking_uri`.
        trials: trainings that share the cluster at a time.
    """
    folder = Path(out).absolute()
    launch = Launch(
        config,
        _absolute(data),
        str(folder),
        name or folder.name,
        tracking or tracking_uri(),
        parent,
    )
    gpu = ray.cluster_resources().get("GPU", 0) >= workers * trials
    settings = {item.name: getattr(launch, item.name) for item in dataclasses.fields(launch)}
    return ray.train.torch.TorchTrainer(
        _worker,
        train_loop_config=settings | {"config": config.to_dict()},
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers,
            use_gpu=gpu,
            resources_per_worker=cluster.train_resources(workers, trials=trials, gpu=gpu),
        ),
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
    workers: int = 2,
    *,
    resume: bool = False,
    name: str = "",
) -> Path:
    """Train a model and store it in RUN/model.

    Args:
        config: of the run.
        data: dataset folder or URL.
        out: the run's folder RUN.
        workers: Ray Train workers; 0 trains in this process, without Ray.
        resume: go on with the run that the folder holds.
        name: of the run; by default the folder's.

    Returns:
        The run's folder.

    Raises:
        S2VError: if the dataset, the folder or the configuration is unusable.
    """
    folder = Path(out).absolute()
    info = check(config, data, folder, workers, resume)
    folder.mkdir(parents=True, exist_ok=True)
    print(
        f"Training {folder.name}: {sum(info.groups.values())} groups of {len(info.groups)} videos, "
        f"{workers or 'in-process, no'} workers, at most {config.train.minutes:g} minutes and "
        f"{config.train.steps} steps."
    )
    with _progress(folder, config):
        if workers == 0:
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            launch = Launch(
                config, _absolute(data), str(folder), name or folder.name, tracking_uri()
            )
            train_loop(launch, device, 0, 1, None)
        else:
            cluster.connect()
            fit(make_trainer(config, data, folder, workers, name=name), folder)
    return folder


def fit(trainer: ray.train.torch.TorchTrainer, folder: Path) -> None:
    """Run a job of :func:`make_trainer` to its end.

    Raises:
        RunError: with the sentence of a worker that could not go on.
    """
    told = folder / ERROR_FILE
    told.unlink(missing_ok=True)
    trainer.fit()
    if told.is_file():
        raise RunError(told.read_text())
    shutil.rmtree(folder / "ray", ignore_errors=True)  # our own checkpoints are the run's


def check(
    config: Config, data: str | Path, out: str | Path, workers: int, resume: bool
) -> DatasetInfo:
    """Refuse at the start, and in the launcher, what would fail in a worker.

    Returns:
        The dataset's dataset.json.
    """
    info = read_dataset(data)
    TalkingFace(config.model, info.spec)  # raises where no network can be made
    training = sum(count - int(count * config.train.held_out) for count in info.groups.values())
    if training < config.train.batch:
        raise DatasetError(
            f"{data}: its training time holds {training} groups, fewer than one batch of "
            f"{config.train.batch}: lower train.batch or extract more video."
        )
    sequences = config.train.batch // config.train.sequence
    if workers < 0 or (workers and sequences % workers):
        raise ConfigError(
            f"--workers {workers}: the batch of {sequences} sequences (train.batch / "
            "train.sequence) cannot be shared out evenly; choose another number of workers."
        )
    started = any((Path(out) / "checkpoints").glob("step_*.pt"))
    if started and not resume:
        raise RunError(f"{out}: holds a run; go on with it by --resume, or choose another --out.")
    if resume and not started:
        raise RunError(f"{out}: no checkpoint to resume from; leave --resume out to start.")
    return info


def _absolute(data: str | Path) -> str:
    return str(data) if "://" in str(data) else str(Path(data).absolute())


class _progress:
    """A live line in the launcher, read from the run's log: the same with and without Ray."""

    def __init__(self, folder: Path, config: Config) -> None:
        self._folder, self._train = folder, config.train
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _follow(self) -> None:
        timed = self._train.minutes > 0
        total = 60 * self._train.minutes if timed else self._train.steps
        form = "{l_bar}{bar}| {n:.0f}/{total:.0f} {unit} [{elapsed}<{remaining}{postfix}]"
        unit = "s of training" if timed else "steps"
        pause = 1 if sys.stderr.isatty() else 20  # a log file wants few lines
        with tqdm(total=total, unit=unit, bar_format=form) as bar:
            while True:
                ended = self._ended.wait(pause)
                lines = read_log(self._folder)
                if lines:
                    last = lines[-1]
                    shown = {key: value for line in lines[-3:] for key, value in line.items()}
                    names = (
                        "loss_d",
                        "loss_g",
                        "groups_per_second",
                        "val/mouth_r",
                        "pretrain_audio",
                    )
                    known = [f"{name} {shown[name]:.3g}" for name in names if name in shown]
                    bar.set_postfix_str(f"step {last['step']}, {', '.join(known)}", refresh=False)
                    bar.n = min(last["seconds"] if timed else last["step"], total)
                bar.refresh()
                if ended:
                    return
