"""The next batch is read while the present one is trained on."""

import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import torch

from s2vgan.batches import Batch, Reading, Sampler
from s2vgan.config import Config
from s2vgan.dataset import GroupDataset


class Loader:
    """Batches of one rank, step after step; which one a step gets depends on the step alone.

    Attributes:
        waited: seconds that training has waited for batches so far.
    """

    def __init__(
        self,
        dataset: GroupDataset,
        sampler: Sampler,
        config: Config,
        device: torch.device,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """Say what to read; nothing is read yet.

        Args:
            dataset: to read from.
            sampler: of its rows.
            config: of the run.
            device: where the batches are wanted.
            rank: of this process.
            world: number of processes.
        """
        self._dataset, self._sampler, self._config = dataset, sampler, config
        self._device, self._rank, self._world = device, rank, world
        self.waited = 0.0

    def batches(self, step: int) -> Generator[Batch, None, None]:
        """The batches of ``step`` and of all that follow it; ``close()`` ends the reading."""
        with ThreadPoolExecutor(1, "batches") as thread:
            coming = thread.submit(self._read, step)
            while True:
                started = time.perf_counter()
                reading = coming.result()
                step += 1
                coming = thread.submit(self._read, step)
                batch = reading.batch(self._device)
                self.waited += time.perf_counter() - started
                yield batch

    def _read(self, step: int) -> Reading:
        if self._device.type == "cuda":  # a thread's own setting; pinning asks for it
            torch.cuda.set_device(self._device)
        rows = self._sampler.rows(step, self._rank, self._world)
        return Reading.of(self._dataset, rows, self._config, self._device)
