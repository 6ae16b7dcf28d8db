"""Training: the loop that every worker runs, and the launcher that starts it on Ray Train."""

import dataclasses
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from torch import distributed

from s2vgan import cluster
from s2vgan.batches import Sampler
from s2vgan.book import CHECKPOINTS, RUN_FILE, RunBook, read_run
from s2vgan.checkpoints import load_checkpoint
from s2vgan.config import Config
from s2vgan.dataset import GroupDataset
from s2vgan.errors import ConfigError, DatasetError, RunError, S2VError
from s2vgan.files import write_text
from s2vgan.ledger import DatasetInfo, read_dataset
from s2vgan.loading import Loader
from s2vgan.models import build_face
from s2vgan.people import with_references
from s2vgan.progress import TrainingProgress
from s2vgan.runlog import METRICS
from s2vgan.tracking import Tracker, tracking_uri
from s2vgan.training import TrainState, fit_face, pretrain_audio, train_step
from s2vgan.validation import validation_rows

LOG_EVERY = 10  # steps between lines of the log; the workers also agree here whether to stop
ERROR_FILE = "error.txt"
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
        trials: trainings that share each machine's cores at a time.
    """

    config: Config
    data: str
    out: str
    name: str
    tracking: str
    parent: str | None = None
    trials: int = 1

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.out)

    @property
    def checkpoints(self) -> Path:
        """Folder of its checkpoints."""
        return self.folder / CHECKPOINTS


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
    try:
        dataset = GroupDataset.load(launch.data)
        training, held_out = dataset.split(config.train.held_out)
        if config.model.identity:
            dataset = with_references(dataset, training)
        sampler = Sampler.over(dataset, training, config.train)
        state = TrainState.create(config, dataset.spec, device, rank, world)
        resumed = any(launch.checkpoints.glob("step_*.pt"))
        if resumed:
            for sentence in load_checkpoint(state, launch.checkpoints, dataset.info.sha256):
                print(sentence)
    except S2VError:
        _anybody(True, device, world)
        raise
    if _anybody(False, device, world):
        return  # another worker cannot start, and says why
    started = time.monotonic() - state.seconds
    book = None
    if rank == 0:
        checked = validation_rows(dataset, held_out)
        tracker = Tracker(uri=launch.tracking)
        book = RunBook(
            launch.folder, launch.name, launch.data, dataset, checked, state, tracker, launch.parent
        )
    try:
        if not resumed:
            fit_face(state, dataset, training)
            for number, values in enumerate(pretrain_audio(state, dataset, training)):
                if book and number % LOG_EVERY == 0:
                    book.log(time.monotonic() - started, values)
        if world > 1:
            state.distribute()
        done = state.step >= config.train.steps or _agreed(_spent(state), device, world)
        if done and book:
            book.evaluate()  # a run that was killed between its last step and its model
        loader = Loader(dataset, sampler, config, device, rank, world)
        batches = loader.batches(state.step)
        while not done:
            losses = train_step(state, next(batches))
            state.seconds = time.monotonic() - started
            done = state.step >= config.train.steps
            if state.step % LOG_EVERY == 0 or done:
                done |= _agreed(_spent(state), device, world)
                if book:
                    book.log(state.seconds, {name: value.item() for name, value in losses.items()})
            if state.step % config.train.evaluate_every == 0 or done:
                readings = book.evaluate() if book else {}
                if report:
                    report({"step": state.step, **readings})
        batches.close()
    except BaseException as error:
        if book:
            book.close("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    if book:
        book.close("FINISHED")


def _spent(state: TrainState) -> bool:
    minutes = state.config.train.minutes
    return minutes > 0 and state.seconds >= 60 * minutes


def _anybody(problem: bool, device: torch.device, world: int) -> bool:
    """Whether any worker has a problem: one that gives up alone leaves the others waiting."""
    if world == 1:
        return problem
    word = torch.tensor([float(problem)], device=device)
    distributed.all_reduce(word, distributed.ReduceOp.MAX)
    return bool(word.item())


def _agreed(stop: bool, device: torch.device, world: int) -> bool:
    """Rank 0's word: clocks differ, and a worker that stops alone leaves the others waiting."""
    if world == 1:
        return stop
    word = torch.tensor([float(stop)], device=device)
    distributed.broadcast(word, src=0)
    return bool(word.item())


def _worker(settings: dict[str, Any]) -> None:
    """What Ray Train runs in each worker."""
    launch = Launch(**settings | {"config": Config.from_dict(settings["config"])})
    context = ray.train.get_context()
    device = ray.train.torch.get_device()
    if device.type == "cpu":
        share = context.get_local_world_size() * launch.trials
        torch.set_num_threads(max(1, cluster.cores() // share))
    try:
        train_loop(
            launch,
            device,
            context.get_world_rank(),
            context.get_world_size(),
            lambda values: ray.train.report(values),
        )
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
        trials,
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
    if not resume:  # what a start without a checkpoint left
        for file in (RUN_FILE, METRICS):
            (folder / file).unlink(missing_ok=True)
    print(
        f"Training {folder.name}: {sum(info.groups.values())} groups of {len(info.groups)} videos, "
        f"{workers or 'in-process, no'} workers, at most {config.train.minutes:g} minutes and "
        f"{config.train.steps} steps."
    )
    with TrainingProgress(folder, config):
        if workers == 0:
            device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
            launch = Launch(
                config, _absolute(data), str(folder), name or folder.name, tracking_uri()
            )
            train_loop(launch, device, 0, 1, None)
        else:
            cluster.connect()
            try:
                fit(make_trainer(config, data, folder, workers, name=name), folder)
            except KeyboardInterrupt:  # Ray has killed the worker that keeps the MLflow run
                if mlflow_run := read_run(folder).get("mlflow_run"):
                    tracker = Tracker()
                    tracker.start(name or folder.name, {}, run_id=mlflow_run)
                    tracker.finish("KILLED")
                raise
    return folder


def fit(trainer: ray.train.torch.TorchTrainer, folder: Path) -> None:
    """Run a job of :func:`make_trainer` to its end.

    Raises:
        RunError: with the sentence of a worker that could not go on.
    """
    told = folder / ERROR_FILE
    told.unlink(missing_ok=True)
    try:
        trainer.fit()
    except SystemExit as ended:  # what Ray makes of Ctrl-C
        raise KeyboardInterrupt from ended
    except Exception as error:
        if told.is_file():
            raise RunError(told.read_text()) from error
        raise
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
