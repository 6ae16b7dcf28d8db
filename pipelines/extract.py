"""Extract face groups from videos: Ray Data over paths, one task a video.

    python pipelines/extract.py SOURCE... --out DATA

No frame travels between operators: a task decodes, detects, crops and writes one video, or one
span of a long one, and hands back what it counted. What is done already is not done again.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, get_args

from tqdm import tqdm

from pipelines import download
from pipelines.download import Policy
from pipelines.sources import resolve
from pipelines.stages import Stages
from s2vgan import extraction, ledger, overview, source, storage
from s2vgan.errors import S2VError, SourceError
from s2vgan.extraction import Job, Options
from s2vgan.ledger import DatasetInfo, LedgerRow
from s2vgan.source import Source
from s2vgan.spec import CropMode, FaceChoice, GroupSpec

RETRIES: Final = 3  # of a video whose worker died; Ray Data's own default is to try for ever
BEGIN_CPU: Final = 0.25  # to fetch, hash and probe waits for disk and network most of the time


def run(
    sources: Sequence[str],
    data: str | Path,
    options: Options | None = None,
    workers: int | None = None,
    *,
    videos: str | Path = "videos",
    policy: Policy | None = None,
    downloads: int = 2,
    span_seconds: float = extraction.SPAN_SECONDS,
) -> DatasetInfo:
    """Extract all sources into a dataset, and print a summary.

    Args:
        sources: video files, folders, globs, ``s3://`` URLs, .txt lists of these and of links.
        data: folder or URL of the dataset.
        options: what a group holds.
        workers: videos at a time; None for one per core, 0 for this process without Ray.
        videos: folder for downloads; on a cluster, one that all its machines share.
        policy: of downloads.
        downloads: at a time.
        span_seconds: length of the spans of a long video; it changes nothing about the groups.

    Raises:
        SourceError: if there is no source, or none gave a group.
        DatasetError: if the dataset is of another spec.
    """
    options, policy = options or Options(), policy or Policy()
    data = str(data) if "://" in str(data) else str(Path(data).absolute())
    extraction.check_spec(data, options.spec)
    found = resolve(sources)
    storage.make(data)
    extraction.tidy(data, options)  # what a killed job left may fill the disk
    known = extraction.Known(data, options)
    stages = Stages(data, options, str(Path(videos).absolute()), policy, span_seconds)

    done: dict[str, LedgerRow] = {}  # by id: a copy is the same video
    todo: list[Source] = []
    for video in found.videos:
        row = known.find(video, None if video.is_link else video.location)
        if row is None:
            todo.append(video)
        else:
            extraction.forget_failure(video, data)
            done[row.video_id] = row
    todo = _without_copies(todo)
    fresh: dict[str, LedgerRow] = {}
    for name in found.missing:
        row = stages.failure(Source(str(Path(name).absolute())), "no such file; check the path.")
        fresh[row.video_id] = row
    rows = stages.all(todo) if workers == 0 else _ray_rows(todo, stages, workers, downloads)
    for row in _with_progress(rows, len(todo)):
        if row.video_id not in done:
            fresh[row.video_id] = row
    extraction.tidy(data, options)  # workers of a killed job may have ended only now
    print(overview.summary([*done.values()], [*fresh.values()]))

    everything = [*done.values(), *fresh.values()]
    good = sum(row.groups for row in everything if row.status == "ok")
    if good or ledger.has_dataset(data):
        info = ledger.write_dataset(data, options.spec)
        overview.write_card(data)
    if not good:
        raise SourceError(f"no source gave a group: {_worst(everything)}")
    return info


def _without_copies(videos: Sequence[Source]) -> list[Source]:
    """Each local video once, the first: two tasks at a time would write the same files.

    Only files of the same size are read for it.
    """
    alike: dict[tuple[int, float, float | None], list[Source]] = {}
    for video in videos:
        if "://" not in video.location:
            key = (os.path.getsize(video.location), video.start, video.end)
            alike.setdefault(key, []).append(video)
    copies: set[Source] = set()
    for some in alike.values():
        seen: set[str] = set()
        for video in some if len(some) > 1 else ():
            with contextlib.suppress(SourceError):  # its own turn will say what is wrong
                digest = source.sha256(Path(video.location))
                if digest in seen:
                    copies.add(video)
                seen.add(digest)
    return [video for video in videos if video not in copies]


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


def _ray_rows(
    todo: Sequence[Source], stages: Stages, workers: int | None, downloads: int
) -> Iterator[LedgerRow]:
    """The ledger rows of the videos, as they are done."""
    if not todo:
        return
    import ray.data  # 3 s; not paid where nothing is left to do

    from s2vgan import cluster

    cluster.connect()
    cluster.quiet_data()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = -1  # a long video makes no progress for long
    context.max_errored_blocks = -1  # a video that kills its worker does not end the job
    context.target_max_block_size = 1  # bytes: each span is a block, so that all can be shared out

    steps = _Steps(stages)
    slots = workers or cluster.extract_workers()

    def taken(videos: Sequence[tuple[int, Source]], size: int | None) -> Any:
        items = [{"number": n, "video": json.dumps(dataclasses.asdict(v))} for n, v in videos]
        return ray.data.from_items(items, override_num_blocks=len(items)).flat_map(
            steps.begin,
            num_cpus=BEGIN_CPU,
            max_retries=RETRIES,
            compute=ray.data.TaskPoolStrategy(size=size),
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # max_retries has no other way in yet
        branches = [
            taken(some, size)
            for is_link, size in ((False, slots), (True, downloads))
            if (some := [(n, v) for n, v in enumerate(todo) if v.is_link is is_link])
        ]
        spans = branches[0] if len(branches) == 1 else branches[0].union(branches[1])
        results = spans.map(
            steps.extract,
            num_cpus=1,
            max_retries=RETRIES,
            compute=ray.data.TaskPoolStrategy(size=slots),
        )

    join = ray.remote(num_cpus=1, max_retries=RETRIES)(_join)
    joins: dict[Any, int] = {}
    parts: dict[int, dict[int, str]] = {}
    unfinished = dict(enumerate(todo))
    reason = "often for want of memory; try fewer --workers"
    try:
        for result in results.iter_rows():
            number = result["number"]
            if result["row"]:
                del unfinished[number]
                yield LedgerRow(**json.loads(result["row"]))
                continue
            ready = parts.setdefault(number, {})
            ready[result["span"]] = result["part"]
            if len(ready) == len(Job.from_json(result["job"]).spans):
                ordered = [ready[span] for span in sorted(ready)]
                joins[join.remote(stages, result["job"], ordered)] = number
        for task, number in joins.items():
            row = LedgerRow(**json.loads(ray.get(task)))
            del unfinished[number]
            yield row
    except ray.exceptions.RayError as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
    for video in unfinished.values():
        yield stages.failure(video, f"a worker died ({reason}).")


class _Steps:
    """The steps as Ray Data calls them: rows of plain values in and out.

    A row that says what became of a video passes through what is left of the way.
    """

    def __init__(self, stages: Stages) -> None:
        self._stages = stages

    def begin(self, item: dict[str, Any]) -> list[dict[str, Any]]:
        taken = self._stages.begin(Source(**json.loads(item["video"])))
        blank = {"number": item["number"], "row": "", "job": "", "span": 0, "part": ""}
        if isinstance(taken, LedgerRow):
            return [blank | {"row": _to_json(taken)}]
        job = taken.to_json()
        return [blank | {"job": job, "span": span} for span in range(len(taken.spans))]

    def extract(self, item: dict[str, Any]) -> dict[str, Any]:
        if item["row"]:
            return item
        job = Job.from_json(item["job"])
        part = self._stages.part(job, item["span"])
        if len(job.spans) > 1:
            return item | {"part": json.dumps(part)}
        return item | {"row": _to_json(self._stages.join(job, [part]))}


def _join(stages: Stages, job: str, parts: Sequence[str]) -> str:
    return _to_json(stages.join(Job.from_json(job), [json.loads(part) for part in parts]))


def _to_json(row: LedgerRow) -> str:
    return json.dumps(dataclasses.asdict(row))


def _with_progress(rows: Iterator[LedgerRow], total: int) -> Iterator[LedgerRow]:
    count, started = 0, time.monotonic()
    with tqdm(total=total, unit="video", disable=total == 0) as bar:
        for row in rows:
            count += row.groups
            rate = count / (time.monotonic() - started)
            bar.set_postfix_str(f"{count} groups, {rate:.0f} groups/s")
            bar.update()
            yield row


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: use 1 or more")
    return number


def _workers(text: str) -> int | None:
    if text == "auto":
        return None
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text}: use auto, or 0 or more")
    return number


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
        choices=get_args(CropMode),
        default=defaults.crop,
        help="tracked: one steady square per segment; paper: each frame's raw Haar box",
    )
    parser.add_argument(
        "--face",
        choices=get_args(FaceChoice),
        default="largest",
        help="which face to follow where there are several",
    )
    parser.add_argument(
        "--workers",
        type=_workers,
        default="auto",
        help="videos at a time (default: auto, one per core; 0: without Ray)",
    )
    parser.add_argument(
        "--videos", default="videos", help="folder for what links give, shared by all machines"
    )
    parser.add_argument("--downloads", type=_at_least_one, default=2, help="links at a time")
    parser.add_argument(
        "--cookies", type=Path, help="cookie file (Netscape format) for links that want a login"
    )
    parser.add_argument(
        "--show", action="store_true", help="print the dataset and make its contact sheet"
    )
    given = parser.parse_args(argv)
    try:
        options = Options(GroupSpec(fps=given.fps, size=given.size, crop=given.crop), given.face)
        policy = download.Policy(cookies=given.cookies)
        info = run(
            given.sources,
            given.out,
            options,
            given.workers,
            videos=given.videos,
            policy=policy,
            downloads=given.downloads,
        )
        if given.show:
            overview.show(given.out)
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
