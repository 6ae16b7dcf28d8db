"""The steps of many videos side by side, through Ray Data.

    links -> begin --+
    files -> begin --+-> extract span -> join the spans of a long video

Rows hold paths and counts. A worker that dies costs its video, after a few tries, not the job.
"""

import contextlib
import dataclasses
import json
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any, Final

from pipelines.stages import Stages
from s2vgan.extraction import Job
from s2vgan.ledger import LedgerRow
from s2vgan.source import Source

RETRIES: Final = 3  # of a video whose worker died; Ray Data's own default is to try for ever
BEGIN_CPU: Final = 0.25  # to fetch, hash and probe waits for disk and network most of the time


def ray_rows(
    todo: Sequence[Source],
    stages: Stages,
    workers: int | None,
    downloads: int,
    count: Callable[[int], object] = lambda groups: None,
) -> Iterator[LedgerRow]:
    """The ledger rows of the videos, as they are done.

    Args:
        todo: the videos.
        stages: what happens to each.
        workers: videos, or spans of long ones, at a time; None for one per core.
        downloads: links at a time.
        count: is told the number of groups of each span.
    """
    if not todo:
        return
    with unbroken():
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

    def joined(wait: bool) -> Iterator[LedgerRow]:
        """The long videos that have been joined; all of them, if that is waited for."""
        while joins:
            ready, _ = ray.wait(list(joins), timeout=None if wait else 0)
            if not ready:
                return
            number = joins.pop(ready[0])
            with contextlib.suppress(ray.exceptions.RayError):  # it stays unfinished
                row = LedgerRow(**json.loads(ray.get(ready[0])))
                del unfinished[number]
                yield row

    try:
        for result in results.iter_rows():
            yield from joined(wait=False)
            number = result["number"]
            count(result["groups"])
            if result["row"]:
                del unfinished[number]
                yield LedgerRow(**json.loads(result["row"]))
                continue
            ready = parts.setdefault(number, {})
            ready[result["span"]] = result["part"]
            if len(ready) == len(Job.from_json(result["job"]).spans):
                del parts[number]
                ordered = [ready[span] for span in sorted(ready)]
                joins[join.remote(stages, result["job"], ordered)] = number
    except ray.exceptions.RayError as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
    yield from joined(wait=True)
    for video in unfinished.values():
        yield stages.failure(video, f"a worker died ({reason}).")


@contextlib.contextmanager
def unbroken() -> Iterator[None]:
    """Have Ctrl-C wait until the block is done; a second one does not wait.

    One that meets Ray while it starts can be lost there, and leave a lock behind for which all
    would wait in the end, or crash the process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def wait(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    before = signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt


class _Steps:
    """The steps as Ray Data calls them: rows of plain values in and out.

    A row that says what became of a video passes through what is left of the way.
    """

    def __init__(self, stages: Stages) -> None:
        self._stages = stages

    def begin(self, item: dict[str, Any]) -> list[dict[str, Any]]:
        taken = self._stages.begin(Source(**json.loads(item["video"])))
        blank = {"number": item["number"], "row": "", "job": "", "span": 0, "part": "", "groups": 0}
        if isinstance(taken, LedgerRow):
            return [blank | {"row": _to_json(taken)}]
        job = taken.to_json()
        return [blank | {"job": job, "span": span} for span in range(len(taken.spans))]

    def extract(self, item: dict[str, Any]) -> dict[str, Any]:
        if item["row"]:
            return item
        job = Job.from_json(item["job"])
        part = self._stages.part(job, item["span"])
        item = item | {"groups": part.get("groups", 0)}
        if len(job.spans) > 1:
            return item | {"part": json.dumps(part)}
        return item | {"row": _to_json(self._stages.join(job, [part]))}


def _join(stages: Stages, job: str, parts: Sequence[str]) -> str:
    return _to_json(stages.join(Job.from_json(job), [json.loads(part) for part in parts]))


def _to_json(row: LedgerRow) -> str:
    return json.dumps(dataclasses.asdict(row))
