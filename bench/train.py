"""How fast training goes, what it waits for, and what a larger dataset costs. On the CPU.

python bench/train.py [--quick] [--cache FOLDER]

A few seconds of the rendered talking head are extracted at 64x64 and repeated under new ids. Things
that are compared take turns in one run, so that a busy machine disturbs all alike; figures are of
medians of wall time, with a torch thread per core (OMP_NUM_THREADS sets another number):

- ``step_gain``: groups per second of our training over those of a plain PyTorch loop (one PNG per
  frame and one WAV per group through a DataLoader, fp32, contiguous tensors). Both train the
  networks of conf/paper.yaml by its losses and batches; ours with ``train.amp: auto``;
- ``data_wait``: share of the time of training steps spent waiting for the next batch (to be read,
  and converted on its device), with conf/base.yaml and the large dataset;
- ``worker_gb``: largest resident memory of a whole `s2vgan train --workers 0` on 5 minutes of
  groups: imports, decoding, pre-training, steps, validation, checkpoint and model;
- ``growth_100x``: time per group of training (conf/base.yaml) on 100,000 groups over that on 1,000.
  Reading batches alone is printed as well, and the memory that decoding 100,000 groups takes.

``--quick`` repeats to 10,000 groups and takes fewer rounds: a look, no claim.
"""

import argparse
import dataclasses
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

import torch
import yaml
from _plain import plain_step, write_files
from _report import Target, report

from s2vgan import demo, extraction, groups, ledger
from s2vgan.batches import Reading, Sampler
from s2vgan.config import Config
from s2vgan.dataset import GroupDataset
from s2vgan.groups import Group
from s2vgan.known import Options
from s2vgan.ledger import LedgerRow
from s2vgan.loading import Loader
from s2vgan.spec import GroupSpec
from s2vgan.training import TrainState, fit_face, train_step

CONF: Final = Path(__file__).resolve().parents[1] / "conf"
SMALL, MINUTES_5, LARGE, QUICK = 1_000, 3_000, 100_000, 10_000  # groups
CPU: Final = torch.device("cpu")


TARGETS: Final = {
    "step_gain": Target(2, 4, higher=True),
    "data_wait": Target(0.05),
    "worker_gb": Target(3),
    "growth_100x": Target(1.10),
}


def recipe(name: str, **train: Any) -> Config:
    """conf/NAME.yaml with some keys of ``train``."""
    values = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    values["train"] |= train
    return Config.from_dict(values)


def rendered(folder: Path) -> list[Group]:
    """The groups of a few seconds of the talking head."""
    video = demo.render(folder / "head.mp4", seconds=10).video
    row = extraction.extract_video(str(video), folder / "head", Options())
    file = f"groups/{row.video_id}.parquet"
    return list(groups.iterate_groups(folder / "head", file, GroupSpec()))


def repeat(folder: Path, some: list[Group], count: int, videos: int) -> Path:
    """A dataset of ``count`` groups in videos of one length: one file under many ids."""
    spec, length = GroupSpec(), count // videos
    rows = (
        dataclasses.replace(group, segment=index // 600, index=index)
        for index, group in enumerate(islice(cycle(some), length))
    )
    written = groups.write_groups(folder, "0000", rows, spec)
    for number in range(videos):
        name = f"{number:04d}"
        if number:
            os.link(folder / "groups" / "0000.parquet", folder / "groups" / f"{name}.parquet")
        row = LedgerRow(
            name, "ok", "rendered", groups=length, groups_sha256=written.sha256,
            groups_size=written.size, spec=spec.to_dict(),
        )  # fmt: skip
        ledger.write_row(folder, row)
    ledger.write_dataset(folder, spec)
    return folder


def in_process(work: Callable[..., None], *arguments: Any) -> tuple[float, float]:
    """Run a function in a fresh process; its seconds, and its largest resident memory in GB."""
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, fresh) as pool:
        return pool.submit(_measured, work, *arguments).result()


def _measured(work: Callable[..., None], *arguments: Any) -> tuple[float, float]:
    started = time.perf_counter()
    work(*arguments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return time.perf_counter() - started, peak / 1e9


def decode(data: Path) -> None:
    GroupDataset.load(data)


def worker(data: Path, out: Path) -> None:
    from s2vgan.train import train  # Ray and MLflow, which a worker has too

    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{out}.db"
    train(recipe("base", steps=4, evaluate_every=4, pretrain_steps=10), data, out, workers=0)


class Ours:
    """Our training on one dataset.

    Attributes:
        loader: of its batches.
        batch: groups a step.
    """

    def __init__(self, data: Path, config: Config) -> None:
        self.batch = config.train.batch
        dataset = GroupDataset.load(data)
        rows = dataset.split(config.train.held_out)[0]
        self._state = TrainState.create(config, dataset.spec)
        fit_face(self._state, dataset, rows)
        self._dataset, self._config = dataset, config
        self._sampler = Sampler.over(dataset, rows, config.train)
        self.loader = Loader(dataset, self._sampler, config, CPU)
        self._batches = self.loader.batches(0)
        self._read = 0

    def step(self) -> None:
        """One step of training."""
        train_step(self._state, next(self._batches))

    def read(self) -> None:
        """Read the batches of 50 steps, without training."""
        for step in range(self._read, self._read + 50):
            Reading.of(self._dataset, self._sampler.rows(step, 0, 1), self._config, CPU)
        self._read += 50

    def close(self) -> None:
        """End the reading."""
        self._batches.close()


def rounds(count: int, **contenders: Callable[[], object]) -> dict[str, float]:
    """Median seconds of contenders that take turns, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(count + 1):
        for name, run in contenders.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def measure(folder: Path, quick: bool) -> dict[str, float]:
    """All figures; what else was seen is printed."""
    large = QUICK if quick else LARGE
    some = rendered(folder)
    data = {
        count: repeat(folder / str(count), some, count, videos)
        for count, videos in ((SMALL, 1), (MINUTES_5, 1), (large, large // 2000))
    }
    seconds, decode_gb = in_process(decode, data[large])
    print(f"decoding {large} groups: {large / seconds:.0f} groups/s, {decode_gb:.2f} GB at most")
    _, worker_gb = in_process(worker, data[MINUTES_5], folder / "run")

    spec = write_files(data[SMALL], "0000", folder / "files")
    paper = Ours(data[SMALL], recipe("paper", amp="auto"))
    plain = plain_step(folder / "files", spec, recipe("paper"))
    speed = rounds(3 if quick else 8, ours=paper.step, plain=plain)
    paper.close()
    for name, value in speed.items():
        print(f"conf/paper.yaml, {name}: {paper.batch / value:.1f} groups/s")

    few, many = (Ours(data[count], recipe("base")) for count in (SMALL, large))
    growth = rounds(10 if quick else 40, few=few.step, many=many.step)
    before, started = many.loader.waited, time.perf_counter()
    for _ in range(10 if quick else 30):
        many.step()
    data_wait = (many.loader.waited - before) / (time.perf_counter() - started)
    few.close()
    many.close()
    reading = rounds(8, few=few.read, many=many.read)
    print(f"conf/base.yaml: {many.batch / growth['few']:.1f} groups/s")
    print(
        f"reading alone: {50 * many.batch / reading['few']:.0f} groups/s of {SMALL}, "
        f"{50 * many.batch / reading['many']:.0f} of {large}"
    )
    return {
        "step_gain": speed["plain"] / speed["ours"],
        "data_wait": data_wait,
        "worker_gb": worker_gb,
        "growth_100x": growth["many"] / growth["few"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="10,000 groups and fewer rounds")
    parser.add_argument("--cache", type=Path, help="where to work; about 7 GB, removed at the end")
    arguments = parser.parse_args()
    print(f"{torch.get_num_threads()} torch threads")
    with tempfile.TemporaryDirectory(prefix="s2vgan-bench-", dir=arguments.cache) as folder:
        os.environ["S2VGAN_CACHE"] = f"{folder}/cache"
        figures = measure(Path(folder), arguments.quick)
    report("train", figures, TARGETS)


if __name__ == "__main__":
    main()
