"""Extract face groups from videos: Ray Data over paths, one task a video.

    python pipelines/extract.py SOURCE... --out DATA

No frame travels between operators: a task decodes, detects, crops and writes one video, and
hands back its ledger row. What is done already is not done again.
"""

import argparse
import dataclasses
import json
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from pipelines import download
from pipelines.sources import resolve
from s2vgan import extraction, groups
from s2vgan.errors import S2VError, SourceError
from s2vgan.groups import DatasetInfo, GroupSpec, LedgerRow

RETRIES: Final = 3  # of a video whose worker died; Ray Data's own default is to try for ever


def extract_one(source: str, data: str, spec: GroupSpec) -> LedgerRow:
    """One video; whatever happens, the job goes on.

    Returns:
        Its ledger row. One that could not be written (a full disk) says failed, and the next
        run tries again.
    """
    try:
        return extraction.extract_video(source, data, spec)
    except Exception as error:
        return extraction.failed(source, spec, f"{type(error).__name__}: {error}")


def run(
    sources: Sequence[str],
    data: str | Path,
    spec: GroupSpec,
    workers: int | None = None,
    *,
    videos: str | Path = "videos",
) -> DatasetInfo:
    """Extract all sources into a dataset, and print a summary.

    Args:
        sources: video files, folders, globs, ``s3://`` URLs, .txt lists of these and of links.
        data: folder or URL of the dataset.
        spec: what a group holds.
        workers: videos at a time; None for one per core, 0 for this process without Ray.
        videos: folder for downloads.

    Raises:
        SourceError: if there is no source, or none gave a group.
        DatasetError: if the dataset is of another spec.
    """
    data = str(data) if "://" in str(data) else str(Path(data).absolute())
    extraction.check_spec(data, spec)
    found = resolve(sources)
    rows: list[LedgerRow] = []
    for name in found.missing:
        path = str(Path(name).absolute())
        rows.append(_record_failure(path, data, spec, "no such file; check the path."))
    paths = list(found.videos)
    for link, result in download.fetch_all(found.links, videos).items():
        if isinstance(result, SourceError):
            rows.append(_record_failure(link, data, spec, str(result)))
        else:
            paths.append(str(result.absolute()))
            extraction.forget_failure(link, data)

    todo: dict[str, str] = {}  # by content: a copy is the same video
    for path in dict.fromkeys(paths):
        content = extraction.content_of(path)
        done = None if content is None else extraction.finished(content, data, spec)
        if content is not None:
            extraction.forget_failure(path, data)
        if done is None:
            todo.setdefault(content or path, path)
        else:
            rows.append(done)
    fresh = _with_progress(_rows([*todo.values()], data, spec, workers), len(todo))
    before = {row.video_id: row for row in rows}
    now = {row.video_id: row for row in fresh if row.video_id not in before}
    print(summary([*before.values()], [*now.values()]))

    everything = [*before.values(), *now.values()]
    good = sum(row.groups for row in everything if row.status == "ok")
    if good or groups.has_dataset(data):
        info = groups.write_dataset(data, spec)
    if not good:
        raise SourceError(f"no source gave a group: {_worst(everything)}")
    return info


def _record_failure(source: str, data: str, spec: GroupSpec, reason: str) -> LedgerRow:
    row = extraction.failed(source, spec, reason)
    groups.write_ledger(data, row)
    return row


def _worst(rows: Sequence[LedgerRow]) -> str:
    """The commonest reasons, each with some of its sources."""
    names: dict[str, list[str]] = {}
    for row in rows:
        name = row.source if "://" in row.source else Path(row.source).name
        names.setdefault(row.reason.rstrip("."), []).append(name)
    worst = sorted(names.items(), key=lambda item: -len(item[1]))[:3]
    return "; ".join(
        f"{', '.join(some[:3])}{', ...' if some[3:] else ''}: {reason}" for reason, some in worst
    )


def _rows(
    todo: Sequence[str], data: str, spec: GroupSpec, workers: int | None
) -> Iterator[LedgerRow]:
    """The ledger rows of the videos, as they are done."""
    if workers == 0:
        yield from (extract_one(source, data, spec) for source in todo)
    elif todo:
        yield from _ray_rows(todo, data, spec, workers)


def _ray_rows(
    todo: Sequence[str], data: str, spec: GroupSpec, workers: int | None
) -> Iterator[LedgerRow]:
    import ray.data  # 3 s; not paid where nothing is left to do

    from s2vgan import cluster

    cluster.connect()
    cluster.quiet_data()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = -1  # a long video makes no progress for long
    context.max_errored_blocks = -1  # a video that kills its worker does not end the job

    slots = workers or cluster.extract_workers()
    paths = ray.data.from_items([{"source": path} for path in todo], override_num_blocks=len(todo))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # max_retries has no other way in yet
        results = paths.map(
            _task(data, spec),
            num_cpus=1,
            max_retries=RETRIES,
            compute=ray.data.TaskPoolStrategy(size=slots and min(slots, len(todo))),
        )
    unfinished = dict.fromkeys(todo)
    reason = "often for want of memory; try fewer --workers"
    try:
        for result in results.iter_rows():
            del unfinished[result["source"]]
            yield LedgerRow(**json.loads(result["row"]))
    except ray.exceptions.RayError as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
    for source in unfinished:
        yield _record_failure(source, data, spec, f"a worker died ({reason}).")


def _task(data: str, spec: GroupSpec) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def task(item: dict[str, Any]) -> dict[str, Any]:
        row = extract_one(item["source"], data, spec)
        return {"source": item["source"], "row": json.dumps(dataclasses.asdict(row))}

    return task


def _with_progress(rows: Iterator[LedgerRow], total: int) -> list[LedgerRow]:
    collected = []
    count, started = 0, time.monotonic()
    with tqdm(total=total, unit="video", disable=total == 0) as bar:
        for row in rows:
            collected.append(row)
            count += row.groups
            rate = count / (time.monotonic() - started)
            bar.set_postfix_str(f"{count} groups, {rate:.0f} groups/s")
            bar.update()
    return collected


def summary(done: Sequence[LedgerRow], fresh: Sequence[LedgerRow]) -> str:
    """The table at the end: counts by status, dropped groups by reason, and what went wrong.

    Args:
        done: rows of videos that needed no work.
        fresh: rows of this run.
    """
    rows = [*done, *fresh]
    dropped: Counter[str] = Counter()
    for row in rows:
        dropped.update(row.dropped)
    lines = [f"{'status':<10}{'videos':>8}{'groups':>10}{'seconds':>10}"]
    for status in ("ok", "empty", "rejected", "failed"):
        some = [row for row in rows if row.status == status]
        if some:
            total, seconds = sum(row.groups for row in some), sum(row.seconds for row in some)
            lines.append(f"{status:<10}{len(some):>8}{total:>10}{seconds:>10.1f}")
    if dropped:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(dropped.items()))
        lines.append(f"dropped groups: {counts}")
    if done:
        lines.append(f"{len(done)} of the videos were done or refused before.")
    lines += [
        f"{row.status}: {row.source}: {row.reason}"
        for row in sorted(rows, key=lambda row: row.source)
        if row.status != "ok"
    ]
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line: 0 if a source gave a group, else 2."""
    parser = argparse.ArgumentParser(
        prog="extract.py",
        description="Cut the faces and the speech out of videos of people talking. Running it "
        "again does only what is missing or changed.",
    )
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="video file, folder, glob, s3:// path, or a .txt list of these and of YouTube links "
        "(one a line, # starts a comment, relative paths start at the list)",
    )
    defaults = GroupSpec()
    parser.add_argument("--out", required=True, metavar="DATA", help="folder or URL to write")
    parser.add_argument("--size", type=int, default=defaults.size, help="of a face, in pixels")
    parser.add_argument("--fps", type=int, default=defaults.fps, help="frames a second to sample")
    parser.add_argument(
        "--crop",
        choices=("tracked", "paper"),
        default=defaults.crop,
        help="tracked: one steady square per shot; paper: each frame's raw Haar box",
    )
    parser.add_argument(
        "--workers", type=int, help="videos at a time (default: one per core; 0: without Ray)"
    )
    parser.add_argument("--videos", default="videos", help="folder for what links give")
    given = parser.parse_args(argv)
    if given.workers is not None and given.workers < 0:
        parser.error(f"--workers {given.workers}: use 0 or more")
    try:
        spec = GroupSpec(fps=given.fps, size=given.size, crop=given.crop)
        info = run(given.sources, given.out, spec, given.workers, videos=given.videos)
    except S2VError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{given.out}: the extraction stopped ({error}); check --out.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on with what is missing.", file=sys.stderr)
        return 130
    print(f"{given.out}: {sum(info.groups.values())} groups of {len(info.groups)} videos.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
