"""What a sweep costs beside its training, and what it saves. On the CPU.

python bench/sweep.py [--quick] [--cache FOLDER] [--only FIGURE]

- ``asha_steps``: steps that ASHA trains, as a share of the full grid's, where both find the same
  winner: 16 points of a synthetic landscape (bench/_landscape.py) through Ray Tune, the mean of
  some orders. An order in which ASHA takes another winner ends the bench;
- ``wall_over_ideal``: wall time of 8 short trials (no early stopping) over the sum of their own
  training times divided by the trials at a time, Ray's start not counted. A trial's own time is
  what its log says: the seconds of its steps and pre-training, without imports and start of
  workers, so that these count as overhead;
- ``restart_loss``: seconds of training that are done twice when the driver is killed half-way and
  the same command is given again, as a share of those that were done by then. Half of the trials
  have ended at that moment, and one of those that run is about to write its first checkpoint.

``--quick`` takes fewer orders and shorter trials: a look, no claim.
"""

import argparse
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from _landscape import TRAIN, readings, shuffled, total
from _report import Target, report

from s2vgan import demo, extraction, ledger
from s2vgan.known import Options
from s2vgan.loop import LOG_EVERY
from s2vgan.runlog import read_log
from s2vgan.spec import GroupSpec
from tune import console
from tune.search import METRIC, make_scheduler, make_tuner
from tune.space import trial_name

ROOT: Final = Path(__file__).resolve().parents[1]
Log = list[dict[str, Any]]

TARGETS: Final = {
    "asha_steps": Target(0.55),
    "wall_over_ideal": Target(1.25),
    "restart_loss": Target(0.15),
}


def landscape_trial(config: dict[str, Any]) -> None:
    """Reports what a training of the synthetic landscape would."""
    from ray import tune

    for result in readings(config["point"], 0):
        tune.report(result)
        time.sleep(0.01)


def asha_steps(folder: Path, orders: int) -> float:
    """Mean share of the grid's steps over some orders of the points."""
    from ray import tune

    from s2vgan import cluster

    console.quiet()
    os.environ["PYTHONPATH"] = f"{ROOT}:{ROOT / 'bench'}"  # of Ray's workers
    cluster.connect()
    shares = []
    for seed in range(orders):
        points = shuffled(seed)
        final = {trial_name(point): [*readings(point, 0)][-1][METRIC] for point in points}
        results = make_tuner(
            tune.with_resources(landscape_trial, {"CPU": 1}),
            folder / f"order{seed}",
            points=points,
            searcher=None,
            samples=1,
            slots=2,
            scheduler=make_scheduler("asha", TRAIN),
            stopper=None,
            callbacks=[],
            reuse=True,
        ).fit()
        found = [results[number].metrics or {} for number in range(len(results))]
        best = max(found, key=lambda last: last[METRIC])["config"]["point"]
        winner = max(final, key=lambda name: final[name])
        if trial_name(best) != winner:
            raise SystemExit(f"order {seed}: ASHA found {best}, the grid {winner}")
        shares.append(sum(last["step"] for last in found) / total(points))
        print(f"order {seed}: {shares[-1]:.3f} of the grid's steps, the same winner")
    return float(np.mean(shares))


def rendered(folder: Path) -> Path:
    """A dataset of a minute of the talking head."""
    video = demo.render(folder / "head.mp4", seconds=60).video
    extraction.extract_video(str(video), folder / "data", Options())
    ledger.write_dataset(folder / "data", GroupSpec())
    return folder / "data"


class Command:
    """``tune/sweep.py`` over 8 short trials, as a user starts it."""

    def __init__(self, data: Path, out: Path, steps: int) -> None:
        self.out, self.every = out, steps // 4
        self.environment = os.environ | {
            "MLFLOW_TRACKING_URI": f"sqlite:///{out}.db",
            "PYTHONPATH": str(ROOT),
        }
        self.words = [
            sys.executable, str(ROOT / "tune" / "sweep.py"), "--data", str(data),
            "--out", str(out), "--config", str(ROOT / "conf" / "demo.yaml"), "--steps", str(steps),
            "--train.evaluate_every", str(self.every), "--train.pretrain_steps", "50",
            "--scheduler", "fifo",
        ]  # fmt: skip
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> Iterator[str]:
        """Start it in a group of its own, and hand on its lines as it prints them."""
        self._process = subprocess.Popen(
            self.words, env=self.environment, stdout=subprocess.PIPE, text=True,
            start_new_session=True, bufsize=1,
        )  # fmt: skip
        assert self._process.stdout is not None
        for line in self._process.stdout:
            print(line, end="", flush=True)
            yield line

    def finish(self) -> None:
        """Wait for its end, which must be a good one."""
        if self._process is None or self._process.wait():
            raise SystemExit("the sweep failed")

    def kill(self) -> None:
        """Kill it and all that it started, at once."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def logs(self) -> dict[str, Log]:
        """Each trial's log, by the trial's name."""
        return {run.name: read_log(run) for run in (self.out / "trials").glob("*")}


def seconds(log: Log) -> float:
    """Of training, that a log tells of."""
    return float(log[-1]["seconds"]) if log else 0.0


def kept(before: Log, after: Log) -> Log:
    """What is left of a log in a later one; a trial that goes on cuts off what it does again."""
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(before, after, strict=False))
    return [line for line, _ in same]


def wall_over_ideal(data: Path, folder: Path, steps: int) -> float:
    """Wall time between the start of the first and the end of the last trial over the ideal."""
    command = Command(data, folder / "whole", steps)
    slots, begun, ended = 1, 0.0, 0.0
    for line in command.start():
        if " at a time" in line:
            slots, begun = int(line.split(", ")[1].split()[0]), time.perf_counter()
        if line.startswith("[8/8]"):
            ended = time.perf_counter()
    command.finish()
    ideal = sum(map(seconds, command.logs().values())) / slots
    print(f"{ended - begun:.0f} s for {ideal:.0f} s of training in each of {slots} slots")
    return (ended - begun) / ideal


def restart_loss(data: Path, folder: Path, steps: int) -> float:
    """Kill the driver half-way, and give the same command again.

    Half of the trials have ended then, and one that runs is about to write its first checkpoint:
    the worst moment.
    """
    command = Command(data, folder / "killed", steps)
    next(line for line in command.start() if line.startswith("[4/8]"))
    due = command.every - LOG_EVERY
    done = {name for name, log in command.logs().items() if log and log[-1]["step"] >= due}
    while not any(
        log and due <= log[-1]["step"] < command.every
        for name, log in command.logs().items()
        if name not in done
    ):
        time.sleep(0.05)
    command.kill()
    before = command.logs()
    for _ in command.start():
        pass
    command.finish()
    after = command.logs()
    lost = sum(seconds(log) - seconds(kept(log, after[name])) for name, log in before.items())
    worked = sum(map(seconds, before.values()))
    print(f"{lost:.1f} s of {worked:.0f} s of training were lost")
    return lost / worked


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="fewer orders, shorter trials")
    parser.add_argument("--cache", type=Path, help="where to work; removed at the end")
    parser.add_argument("--only", choices=list(TARGETS), help="one figure")
    arguments = parser.parse_args()
    wanted = [arguments.only] if arguments.only else list(TARGETS)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="s2vgan-bench-", dir=arguments.cache) as name:
        folder = Path(name)
        os.environ["S2VGAN_CACHE"] = f"{folder}/cache"
        steps = 120 if arguments.quick else 240
        data = rendered(folder) if set(wanted) - {"asha_steps"} else folder
        if "wall_over_ideal" in wanted:
            figures["wall_over_ideal"] = wall_over_ideal(data, folder, steps)
        if "restart_loss" in wanted:
            figures["restart_loss"] = restart_loss(data, folder, steps)
        if "asha_steps" in wanted:
            figures["asha_steps"] = asha_steps(folder, 1 if arguments.quick else 5)
    report("sweep", figures, TARGETS)


if __name__ == "__main__":
    main()
