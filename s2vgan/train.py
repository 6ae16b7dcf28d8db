"""Training: the loop that every worker runs, and the launcher that starts it on Ray Train."""

import contextlib
import dataclasses
import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
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
from s2vgan.book import CHECKPOINTS, RunBook
from s2vgan.checkpoints import load_checkpoint
from s2vgan.config import Config
from s2vgan.dataset import GroupDataset
from s2vgan.errors import ConfigError, DatasetError, RunError, S2VError
from s2vgan.files import write_text
from s2vgan.interrupt import STOP, deferred, supervise
from s2vgan.ledger import DatasetInfo, read_dataset
from s2vgan.loading import Loader
from s2vgan.models import build_face
from s2vgan.people import with_references
from s2vgan.progress import TrainingProgress
from s2vgan.runlog import METRICS, RUN_FILE, read_run, unwritten, update_run
from s2vgan.tracking import Delivery, is_delivered, tracking_uri
from s2vgan.training import TrainState, fit_face, pretrain_audio, train_step
from s2vgan.validation import validation_rows

LOG_EVERY = 10  # steps between lines of the log; the workers also agree here how to go on
GO_ON, FINISH, BREAK_OFF = range(3)  # what they agree on
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

    Where the run's folder holds a STOP file, the run ends early, with a checkpoint.

    Args:
        launch: the same on every worker.
        device: of this worker.
        rank: of this worker; 0 alone writes, validates and tracks.
        world: number of workers, whose process group is initialised if more than one.
        report: called by all workers at each evaluation; it may wait for the others.

    Raises:
        S2VError: on one worker, if the dataset, the checkpoints or the folder are unusable; the
            others return.
    """
    config = launch.config
    with _together(device, world) as all_well:
        dataset = GroupDataset.load(launch.data)
        training, held_out = dataset.split(config.train.held_out)
        if config.model.identity:
            dataset = with_references(dataset, training)
        try:
            sampler = Sampler.over(dataset, training, config.train)
        except DatasetError as error:
            raise DatasetError(f"{launch.data}: {error}") from error
        state = TrainState.create(config, dataset.spec, device, rank, world)
        resumed = any(launch.checkpoints.glob("step_*.pt"))
        damaged = []
        if resumed:
            damaged = load_checkpoint(state, launch.checkpoints, dataset.info.sha256)
    if not all_well:
        return  # another worker cannot start, and says why
    book = None
    with _together(device, world) as all_well:
        if rank == 0:
            checked = validation_rows(dataset, held_out)
            book = RunBook(
                launch.folder, launch.name, launch.data, dataset, checked, state,
                launch.tracking, launch.parent, damaged,
            )  # fmt: skip
    if not all_well:
        return
    started = time.monotonic() - state.seconds
    desk = _Desk(book, launch, state)
    try:
        word = GO_ON
        if not resumed:
            fit_face(state, dataset, training)
            for number, values in enumerate(pretrain_audio(state, dataset, training)):
                if number % LOG_EVERY == 0:
                    desk.log(time.monotonic() - started, values)
                    word = _agreed(desk.word(), device, world)
                    if word == BREAK_OFF:
                        break
        if world > 1:
            state.distribute()
        if word == GO_ON:
            word = _agreed(desk.word(), device, world)
        if word == FINISH:
            desk.evaluate()  # a run that was killed between its last step and its model
        loader = Loader(dataset, sampler, config, device, rank, world)
        batches = loader.batches(state.step)
        while word == GO_ON:
            losses = train_step(state, next(batches))
            state.seconds = time.monotonic() - started
            if state.step % LOG_EVERY == 0 or state.step >= config.train.steps:
                values = {name: value.item() for name, value in losses.items()}
                desk.log(state.seconds, values, loader.waited)
                word = _agreed(desk.word(), device, world)
            elif world == 1 and desk.is_stopped():
                word = BREAK_OFF
            if word == FINISH or (word == GO_ON and state.step % config.train.evaluate_every == 0):
                readings = desk.evaluate()
                if report:
                    report({"step": state.step, **readings})
        batches.close()
        desk.end(word)
    except BaseException as error:
        if book:
            with contextlib.suppress(S2VError):  # the first error is the one to tell
                book.close("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise


@dataclass
class _Desk:
    """Where rank 0 keeps its book, and what it says; on other ranks nothing happens.

    An error in the book is kept until all workers know of it: if one gave up alone, the others
    would wait for it.
    """

    book: RunBook | None
    launch: Launch
    state: TrainState
    error: S2VError | None = None

    def log(self, seconds: float, values: dict[str, float], waited: float = 0.0) -> None:
        """See :meth:`RunBook.log`."""
        if self.book:
            with self._kept():
                self.book.log(seconds, values, waited)

    def evaluate(self) -> dict[str, float]:
        """See :meth:`RunBook.evaluate`; empty on other ranks."""
        if self.book:
            with self._kept():
                return self.book.evaluate()
        return {}

    def is_stopped(self) -> bool:
        """Whether somebody asks for the end."""
        return (self.launch.folder / STOP).exists()

    def word(self) -> int:
        """How to go on; what rank 0 says counts."""
        train, state = self.launch.config.train, self.state
        if self.error or self.is_stopped():
            return BREAK_OFF
        spent = train.minutes > 0 and state.seconds >= 60 * train.minutes
        return FINISH if spent or state.step >= train.steps else GO_ON

    def end(self, word: int) -> None:
        """Close the book after the last step; one that was broken off gets a checkpoint.

        Raises:
            S2VError: that was kept.
        """
        if self.error:
            raise self.error
        if self.book and word == BREAK_OFF and self.state.step:
            self.book.save()
        if self.book:
            self.book.close("KILLED" if word == BREAK_OFF else "FINISHED")

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except S2VError as error:
            self.error = error


@contextlib.contextmanager
def _together(device: torch.device, world: int) -> Iterator[list[bool]]:
    """Go on only if no worker failed inside: one that gives up alone leaves the others waiting.

    Yields:
        A list that is empty afterwards where another worker failed.
    """
    all_well = [True]
    error: S2VError | None = None
    try:
        yield all_well
    except S2VError as raised:
        error = raised
    failed = torch.tensor([float(error is not None)], device=device)
    if world > 1:
        distributed.all_reduce(failed, distributed.ReduceOp.MAX)
    if failed.item():
        all_well.clear()
    if error:
        raise error


def _agreed(word: int, device: torch.device, world: int) -> int:
    """Rank 0's word: clocks differ, and a worker that stops alone leaves the others waiting."""
    if world == 1:
        return word
    said = torch.tensor([word], device=device)
    distributed.broadcast(said, src=0)
    return int(said.item())


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
    name = name or folder.name
    if workers:
        cluster.connect()
    try:
        with TrainingProgress(folder, config), deferred(folder) as asked:
            if workers:
                trainer = make_trainer(config, data, folder, workers, name=name)
                supervise(lambda: fit(trainer, folder), asked)
            else:
                device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
                launch = Launch(config, _absolute(data), str(folder), name, tracking_uri())
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
        if run.get("step", -1) > 0:
            print(f"Stopped at step {run['step']}; the same command with --resume goes on.")
        raise KeyboardInterrupt
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
