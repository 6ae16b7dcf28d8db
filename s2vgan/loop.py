"""The loop of training that every worker runs, without Ray."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from s2vgan.batches import Sampler
from s2vgan.book import CHECKPOINTS, RunBook
from s2vgan.checkpoints import load_checkpoint
from s2vgan.config import Config
from s2vgan.dataset import GroupDataset
from s2vgan.errors import DatasetError, RunError, S2VError
from s2vgan.interrupt import STOP
from s2vgan.loading import Loader
from s2vgan.people import with_references
from s2vgan.training import TrainState, fit_face, pretrain_audio, train_step
from s2vgan.validation import validation_rows

LOG_EVERY = 10  # steps between lines of the log; the workers also agree here how to go on
GO_ON, FINISH, BREAK_OFF = range(3)  # what they agree on

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
        consent: who consented that the face is learned; empty keeps what the run was told before.
    """

    config: Config
    data: str
    out: str
    name: str
    tracking: str
    parent: str | None = None
    trials: int = 1
    consent: str = ""

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
    with _together(device, world) as all_well:
        _begin_together(launch.folder, state.step if resumed else None, rank, device, world)
    if not all_well:
        return
    book = None
    with _together(device, world) as all_well:
        if rank == 0:
            checked = validation_rows(dataset, held_out)
            book = RunBook(
                launch.folder, launch.name, launch.data, dataset, checked, state,
                launch.tracking, launch.parent, damaged, launch.consent,
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
        if word == FINISH and not desk.is_evaluated():
            desk.evaluate()  # a run that was killed between its last step and its model
        loader = Loader(dataset, sampler, config, state.device, rank, world)  # has an index
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
                # Ray Tune ends a trial by a SystemExit out of its report.
                stopped = isinstance(error, KeyboardInterrupt | SystemExit)
                book.close("KILLED" if stopped else "FAILED")
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

    def is_evaluated(self) -> bool:
        """See :meth:`RunBook.is_evaluated`; true on other ranks, which have nothing to do."""
        return self.book is None or self.book.is_evaluated()

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


def _begin_together(
    folder: Path, step: int | None, rank: int, device: torch.device, world: int
) -> None:
    """Make sure that all workers begin where rank 0 does, at a step or (None) at the beginning.

    Raises:
        RunError: if this one does not: each reads the checkpoints by itself.
    """
    own = -1 if step is None else step
    first = _agreed(own, device, world)
    if own != first:
        found, others = (f"step {n}" if n >= 0 else "no checkpoint" for n in (own, first))
        raise RunError(
            f"{folder}: worker {rank} finds {found} there, and worker 0 {others}; choose an --out "
            "on storage that all machines share."
        )


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
