"""The extraction against the naive script, bare decoding, a plain loop and a plain Parquet table.

python bench/extract.py [--quick] [--cache FOLDER]

Things that are compared take turns in one run, so that a busy machine disturbs all alike; figures
are medians. Time is CPU seconds of this process and all that it has started, dead or alive (read
from Linux's /proc); only ``ray_overhead`` is wall time. What a worker pays once for thousands of
videos (imports, the start of its child process) is left out. Every video has sound:

- ``speedup_720p``, ``speedup_sparse``: the naive script (OpenCV decodes each frame in full colour,
  Haar 1.1/5 on all of it, the largest face cut out and resized; no sound, nothing written) over
  ours, from the file to its Parquet and ledger row; of a person who talks, at 720p, and of the same
  with 30 % of the frames without a face;
- ``over_decode_720p``: ours over PyAV that decodes the picture on one thread and does no more;
- ``agreement``, ``iou``: in how many frames the naive script and we agree whether there is a face,
  and how well the boxes overlap where both see one. Four kinds of videos count the same: native (of
  the long video every LONG_STEP-th frame is compared, of others every STEP-th; we follow the face
  through all), odd (other rates, sizes, containers, no face, two), 512x512, and 720p (every frame,
  with the sparse one);
- ``ray_overhead``: `pipelines.extract` over many short videos through a warm Ray with one worker,
  over the same functions in a plain loop;
- ``cpu_inflation_2``: CPU of Ray's workers for the same videos with two at a time, over one;
- ``parquet_write_gain``, ``parquet_read_gain``: groups of 64x64 written per CPU second, and read
  back as batches of torch tensors, over a table with FixedSizeList<uint8> frames (zstd-1 too).
"""

import argparse
import contextlib
import io
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch
from _clips import Clips, prepare
from _contenders import Agreement, Tables, decode, naive, tracked
from _report import Target, report

from pipelines import extract as pipeline
from s2vgan import extraction
from s2vgan.extraction import Call
from s2vgan.known import Options
from s2vgan.sandbox import Sandbox

SECONDS: Final = 10  # of the enlarged videos
ROUNDS: Final = 3
SHORT: Final = 48  # videos for Ray
LONG_STEP: Final = 60  # frames of the long video between two that the naive script searches
STEP: Final = 6  # the same for the other videos, but those at 720p


TARGETS: Final = {
    "speedup_720p": Target(25, 45, higher=True),
    "speedup_sparse": Target(10, 20, higher=True),
    "agreement": Target(0.99, 0.995, higher=True),
    "iou": Target(0.85, 0.92, higher=True),
    "over_decode_720p": Target(2.5, 1.8),
    "ray_overhead": Target(1.25, 1.10),
    "cpu_inflation_2": Target(1.10, 1.05),
    "parquet_write_gain": Target(5, 6, higher=True),
    "parquet_read_gain": Target(5, 10, higher=True),
}

Times = dict[str, list[float]]


def tree_cpu(chosen: Callable[[str], bool] = lambda name: True) -> float:
    """CPU seconds of this process and all that it has started, alive or waited for.

    Args:
        chosen: whether a process counts, with all that it has started, by its command line.
    """
    children: dict[int, list[int]] = {}
    seconds: dict[int, float] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):  # it has just ended
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            pid = int(entry.name)
            children.setdefault(int(fields[1]), []).append(pid)
            seconds[pid] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    # /proc counts in hundredths of a second; of this process more is known.
    ended = os.times()
    seconds[os.getpid()] = time.process_time() + ended.children_user + ended.children_system

    def total(pid: int, counts: bool) -> float:
        if not counts:
            with contextlib.suppress(OSError):
                counts = chosen(Path(f"/proc/{pid}/cmdline").read_text())
        below = sum(total(child, counts) for child in children.get(pid, []))
        return below + (seconds.get(pid, 0.0) if counts else 0.0)

    return total(os.getpid(), False)


@contextlib.contextmanager
def _cpu(times: Times, name: str) -> Iterator[None]:
    before = tree_cpu()
    yield
    times.setdefault(name, []).append(tree_cpu() - before)


def cpu_figures(
    clips: Clips, folder: Path, rounds: int, seen: Agreement, call: Call
) -> dict[str, float]:
    """What is told by CPU time without Ray. Notes what both saw at 720p.

    Args:
        clips: to run on.
        folder: for what is written.
        rounds: how often the naive script runs; the others run four times as often.
        seen: where to note the faces.
        call: where to decode.
    """
    times = Times()
    tables = Tables(clips.square, folder, call)  # and the child process is warm

    def ours(path: Path, name: str) -> None:
        data = folder / "data"
        with _cpu(times, name):
            row = extraction.extract_video(str(path), data, Options(), call)
        assert row.status == "ok", row.reason
        shutil.rmtree(data)

    for number in range(rounds):
        for name, path in (("720p", clips.hd), ("sparse", clips.sparse)):
            with _cpu(times, f"naive {name}"):
                boxes = naive(path)
            if number == 0:
                seen.add(boxes, tracked(path), path)
            for _ in range(2):
                with _cpu(times, "decode"):
                    decode(clips.hd)
                ours(clips.hd, "720p")
                ours(clips.sparse, "sparse")
                for task in (tables.write, tables.write_plain, tables.read, tables.read_plain):
                    with _cpu(times, task.__name__):
                        task()
    took = _show(times, "CPU s")
    return {
        "speedup_720p": took["naive 720p"] / took["720p"],
        "speedup_sparse": took["naive sparse"] / took["sparse"],
        "over_decode_720p": took["720p"] / took["decode"],
        "parquet_write_gain": took["write_plain"] / took["write"],
        "parquet_read_gain": took["read_plain"] / took["read"],
    }


def face_figures(clips: Clips, at_720p: Agreement) -> dict[str, float]:
    """How far our faces are those of the naive script."""
    native = [(clips.talk, LONG_STEP), *((path, STEP) for path in clips.short[::4])]
    kinds = {
        "native": native,
        "odd": [(path, STEP) for path in clips.odd],
        "512x512": [(clips.square, STEP)],
    }
    seen = {"720p": at_720p} | {name: Agreement([], []) for name, some in kinds.items() if some}
    for name, some in kinds.items():
        for path, step in some:
            seen[name].add(naive(path, step), tracked(path, step), path)
    for name, kind in seen.items():
        print(
            f"{name:12} {len(kind.same):5} frames: agreement {np.mean(kind.same):.4f}, "
            f"IoU {np.mean(kind.overlaps):.3f}"
        )
    return {
        "agreement": statistics.fmean(np.mean(kind.same) for kind in seen.values()),
        "iou": statistics.fmean(np.mean(kind.overlaps) for kind in seen.values()),
    }


def ray_figures(clips: Clips, folder: Path, rounds: int) -> dict[str, float]:
    """What Ray adds, and what a second worker costs the first."""
    wall, cpu = Times(), Times()
    sources = [str(path) for path in clips.short]

    def run(name: str, workers: int) -> None:
        data = folder / "data"
        started, before = time.perf_counter(), tree_cpu(lambda name: name.startswith("ray::"))
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            pipeline.run(sources, data, Options(), workers)
        wall.setdefault(name, []).append(time.perf_counter() - started)
        after = tree_cpu(lambda name: name.startswith("ray::"))
        cpu.setdefault(name, []).append(after - before)
        shutil.rmtree(data)

    for workers in (2, 1, 0):  # starts Ray and the child processes, which import what they need
        run("warming", workers)
    for _ in range(rounds):
        for name, workers in (("loop", 0), ("1 worker", 1), ("2 workers", 2)):
            run(name, workers)
    _show(wall, "wall s")
    _show({name: cpu[name] for name in ("1 worker", "2 workers")}, "CPU s of the workers")

    def ratio(times: Times, above: str, below: str) -> float:
        """By the round: neighbours in time are disturbed alike."""
        pairs = zip(times[above], times[below], strict=True)
        return statistics.median(one / other for one, other in pairs)

    return {
        "ray_overhead": ratio(wall, "1 worker", "loop"),
        "cpu_inflation_2": ratio(cpu, "2 workers", "1 worker"),
    }


def _show(times: Times, unit: str) -> dict[str, float]:
    """Print what was measured; the medians."""
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, values in times.items():
        each = " ".join(f"{value:.2f}" for value in values)
        print(f"{name:12} {medians[name]:8.3f} {unit} ({each})")
    return medians


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the extraction.")
    parser.add_argument(
        "--quick", action="store_true", help="one round, shorter videos: a rehearsal"
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(tempfile.gettempdir()) / "s2vgan-bench",
        help="folder for the enlarged videos",
    )
    given = parser.parse_args()
    seconds, rounds, short = (4, 1, 12) if given.quick else (SECONDS, ROUNDS, SHORT)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    clips = prepare(given.cache, seconds, short)
    print(f"clips: {clips.where}")
    seen = Agreement([], [])
    with tempfile.TemporaryDirectory(prefix="s2vgan-bench-") as name:
        with Sandbox() as child:
            figures = cpu_figures(clips, Path(name), rounds, seen, child.call)
        figures |= face_figures(clips, seen)
        figures |= ray_figures(clips, Path(name), rounds)
    figures = {key: figures[key] for key in TARGETS}
    report("extract", figures, TARGETS)


if __name__ == "__main__":
    main()
