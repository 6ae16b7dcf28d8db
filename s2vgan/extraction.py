"""One video -> its groups file and its ledger row. Plain functions: no Ray, no torch.

A video is taken up (:func:`begin`: fetched, hashed, probed, cut into spans), its spans are
extracted (:func:`extract_part`), in any order and place, and joined (:func:`finish`).
:func:`extract_video` does it in one go. What is decoded is decoded by ``call``, which may be a
child process with limits (:class:`s2vgan.sandbox.Sandbox`).
"""

import contextlib
import dataclasses
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from s2vgan import groups, known, ledger, media, source, spans, storage
from s2vgan.errors import DatasetError, S2VError, SourceError
from s2vgan.groups import Group
from s2vgan.known import Options
from s2vgan.ledger import LedgerRow, Status
from s2vgan.sandbox import direct
from s2vgan.source import Source
from s2vgan.spec import GroupSpec

SPAN_SECONDS: Final = 600  # one task; shorter spans read the sound before them more often

Call = Callable[..., Any]  # (function's name, arguments) -> result, all plain JSON values


@dataclass(frozen=True)
class Job:
    """A video that was taken up.

    Attributes:
        path: the file that holds it: local, or a URL.
        row: its ledger row, as far as it is known.
        spans: first tick of each part, and the tick before which it ends; None for the video's end.
    """

    path: str
    row: LedgerRow
    spans: tuple[tuple[int, int | None], ...]

    def to_json(self) -> str:
        """The job as text, for another process."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Job":
        """The job that :meth:`to_json` wrote."""
        found = json.loads(text)
        ends = tuple((first, stop) for first, stop in found["spans"])
        return cls(found["path"], LedgerRow(**found["row"]), ends)

    def file(self, number: int) -> str:
        """Name of the groups file of a part; of a video of one part, it is the video's."""
        if len(self.spans) == 1:
            return f"groups/{self.row.video_id}.parquet"
        return f"{known.parts_folder(self.row)}/{self.spans[number][0]}.parquet"


def extract_video(
    video: str | Source,
    data: str | Path,
    options: Options,
    call: Call = direct,
    *,
    span_seconds: float = SPAN_SECONDS,
) -> LedgerRow:
    """Write the groups of one video and what became of it. Does nothing if that is done.

    A video that gives no group, or cannot be read, is no error but a ledger row that says why:
    ``empty`` (decoded, no complete group), ``rejected`` (nothing that can be used) or ``failed``
    (tried again next time).

    Args:
        video: path or URL (``s3://``) of the video, or a part of one.
        data: the dataset's folder or URL.
        options: what a group holds.
        call: where to decode.
        span_seconds: length of a span; it changes nothing about the groups.

    Returns:
        The video's row of the ledger.

    Raises:
        DatasetError: if the dataset is of another spec.
        OSError: if the dataset cannot be written.
    """
    known.check_spec(data, options.spec)
    some = Source(video) if isinstance(video, str) else video
    taken = begin(some, some.location, data, options, call, span_seconds)
    if isinstance(taken, LedgerRow):
        return taken
    parts = [extract_part(taken, number, data, options, call) for number in range(len(taken.spans))]
    return finish(taken, parts, data, options)


def begin(
    video: Source,
    path: str,
    data: str | Path,
    options: Options,
    call: Call = direct,
    span_seconds: float = SPAN_SECONDS,
) -> Job | LedgerRow:
    """Take up a video: hash it, probe it, cut it into spans.

    Args:
        video: as the user named it.
        path: the file or URL that holds it: that of the source, or what was downloaded.
        data: the dataset's folder or URL.
        options: what a group holds.
        call: where to decode.
        span_seconds: length of a span of a video that can be cut.

    Returns:
        A job, or the row if there is nothing to do: done before, or unfit.
    """
    try:
        with source.local(path) as file:
            taken = _take_up(video, path, file, data, options, call)
    except SourceError as error:
        return known.record(known.failed_row(video, options, str(error)), data)
    if isinstance(taken, LedgerRow):
        return taken
    row, found = taken
    return Job(path, row, _plan_spans(video, found, options.spec, span_seconds))


def _take_up(
    video: Source, path: str, file: Path, data: str | Path, options: Options, call: Call
) -> tuple[LedgerRow, dict[str, Any]] | LedgerRow:
    """A row to complete and what the probe found; or the row if there is nothing to do."""
    size, modified = known.stat(path)  # before its content, so that a change from now on is seen
    digest = source.sha256(file)
    row = LedgerRow(
        known.video_id(digest, video), "failed", video.location, sha256=digest, size=size,
        modified=modified, start=video.start, end=video.end, face=options.face,
        extractor=known.EXTRACTOR, spec=options.spec.to_dict(),
    )  # fmt: skip
    known.forget_failure(video, data)
    before = known.done_before(row.video_id, data, options)
    if before is not None:
        return known.renewed(before, video, modified, data)
    try:
        found = call("s2vgan.spans:inspect", str(file.absolute()))
    except SourceError as error:
        return _give_up(row, path, data, options, "rejected", _about(error, file))
    except Exception as error:  # one bad video must not end a job of thousands
        return _give_up(row, path, data, options, "failed", _about(error, file))
    return dataclasses.replace(row, fps=found["fps"], cpu_seconds=found["cpu_seconds"]), found


def _plan_spans(
    video: Source, found: dict[str, Any], spec: GroupSpec, seconds: float
) -> tuple[tuple[int, int | None], ...]:
    """First tick and stop of each span: whole groups that lie in the part that is wanted."""
    size, rate = spec.frames_per_group, spec.fps / spec.frames_per_group
    first = math.ceil(round(video.start * rate, 6)) * size
    stop = None if video.end is None else max(first, math.floor(round(video.end * rate, 6)) * size)
    if not found["seekable"]:
        return ((first, stop),)
    unit = spans.span_ticks(spec, seconds)
    start, end = found["start"] * spec.fps, (found["start"] + found["seconds"]) * spec.fps
    end = min(math.inf if stop is None else stop, end)
    low = math.ceil(max(first + 1, start) / unit) * unit
    borders = list(range(low, math.ceil(end), unit))
    return tuple(zip([first, *borders], [*borders, stop], strict=True))


def extract_part(
    job: Job, number: int, data: str | Path, options: Options, call: Call = direct
) -> dict[str, Any]:
    """Extract one span of a video, unless that was done when the job was interrupted.

    Returns:
        What :func:`s2vgan.spans.extract_span` found; or ``status`` and ``reason`` if it could not.
    """
    first, stop = job.spans[number]
    name = f"{known.parts_folder(job.row)}/{first}.json"
    asked = [known.EXTRACTOR, options.spec.to_dict(), options.face, stop]
    if len(job.spans) > 1 and storage.exists(data, name):
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError):  # gone, or torn
            done = dict(json.loads(storage.read(data, name)))
            length = storage.size(data, job.file(number))
            if (done["asked"], done["groups_size"]) == (asked, length):
                return done
    try:
        with source.local(job.path) as file:
            found = _decode(job, number, file, data, options, call)
    except SourceError as error:
        return {"status": "failed", "reason": str(error).removeprefix(f"{job.path}: ")}
    if len(job.spans) > 1 and "status" not in found:
        storage.write(data, name, json.dumps(found | {"asked": asked}).encode())
    return found


def _decode(
    job: Job, number: int, file: Path, data: str | Path, options: Options, call: Call
) -> dict[str, Any]:
    first, stop = job.spans[number]
    try:
        found = call(
            "s2vgan.spans:extract_span", str(file.absolute()), job.row.video_id, str(data),
            job.file(number), options.spec.to_dict(), options.face, first, stop,
        )  # fmt: skip
    except SourceError as error:
        return {"status": "rejected", "reason": _about(error, file)}
    except Exception as error:  # one bad video must not end a job of thousands
        return {"status": "failed", "reason": _about(error, file)}
    return dict(found)


def finish(
    job: Job, parts: Sequence[dict[str, Any]], data: str | Path, options: Options
) -> LedgerRow:
    """Join the parts of a video to its groups file, and write its ledger row.

    Args:
        job: the video.
        parts: what :func:`extract_part` returned for each of its spans, in their order.
        data: the dataset's folder or URL.
        options: what a group holds.
    """
    before = known.done_before(job.row.video_id, data, options)
    if before is not None:
        return before  # a copy of the video, in another task, was faster
    spec, row = options.spec, job.row

    def give_up(status: Status, reason: str) -> LedgerRow:
        return _give_up(row, job.path, data, options, status, reason)

    for part in parts:
        if "status" in part:
            return give_up(part["status"], part["reason"])
    if _has_changed(job.path, row):
        return give_up("failed", "")
    seen = [part["ticks"] for part in parts if part["ticks"]]
    first, stop = (seen[0][0], seen[-1][1]) if seen else (0, 0)
    size = spec.frames_per_group
    if stop - first > media.MAX_SECONDS * spec.fps + 1:  # each span by itself may be shorter
        return give_up("rejected", f"longer than {media.MAX_SECONDS} s: cut it first.")
    timeline = spans.join_timelines(
        (part["timeline"] for part in parts), first // size, -(-stop // size)
    )
    if len(parts) == 1:
        digest, length = parts[0]["groups_sha256"], parts[0]["groups_size"]
    else:
        try:
            written = groups.write_groups(data, row.video_id, _joined(job, parts, data, spec), spec)
        except (DatasetError, KeyError, ValueError):  # next time, all parts are made anew
            storage.remove_folder(data, known.parts_folder(row))
            return give_up("failed", "a part of it in parts/ is damaged or gone; extract it again.")
        digest, length = written.sha256, written.size
    dropped: Counter[str] = Counter()
    for low, high, why in timeline:
        dropped[why] += high - low
    row = dataclasses.replace(
        row,
        seconds=round((stop - first) / spec.fps, 3),
        groups=dropped.pop("kept", 0),
        dropped=dict(sorted(dropped.items())),
        timeline=tuple(timeline),
        groups_sha256=digest,
        groups_size=length,
        cpu_seconds=round(row.cpu_seconds + sum(part["cpu_seconds"] for part in parts), 3),
        **{
            name: sum(part[name] for part in parts)
            for name in ("frames", "face_frames", "false_starts", "box_jumps", "segments")
        },
    )
    if row.groups:
        return known.record(dataclasses.replace(row, status="ok"), data)
    return known.record(dataclasses.replace(row, status="empty", reason=_why_empty(row)), data)


def _joined(
    job: Job, parts: Sequence[dict[str, Any]], data: str | Path, spec: GroupSpec
) -> Iterator[Group]:
    before = 0  # segments of the parts so far
    for number, part in enumerate(parts):
        if part["groups"]:
            for group in groups.iterate_groups(data, job.file(number), spec):
                yield dataclasses.replace(group, segment=group.segment + before)
        before += part["segments"]


def _has_changed(path: str, row: LedgerRow) -> bool:
    """Whether a file is no longer what was hashed: still being copied, replaced or gone."""
    return (row.size, row.modified) != known.stat(path)


def _give_up(
    row: LedgerRow, path: str, data: str | Path, options: Options, status: Status, reason: str
) -> LedgerRow:
    """Record why a video gave nothing; groups of an earlier run go."""
    before = known.done_before(row.video_id, data, options)
    if before is not None:
        return before  # another job was faster, and took the parts away
    if _has_changed(path, row):  # nobody knows what was decoded, so its id is of no content
        ledger.remove(data, row.video_id)
        storage.remove_folder(data, known.parts_folder(row))
        changed = known.failed_row(Source(row.source, row.start, row.end), options, _CHANGED)
        return known.record(changed, data)
    storage.remove(data, f"groups/{row.video_id}.parquet")
    return known.record(dataclasses.replace(row, status=status, reason=reason), data)


def _about(error: Exception, path: Path) -> str:
    """The error in the ledger's words, without the name of a file that may be temporary."""
    text = str(error).removeprefix(f"{path.absolute()}: ").removeprefix(f"{path}: ")
    return text if isinstance(error, S2VError) else f"{type(error).__name__}: {text}"


_CHANGED: Final = "the file changed while it was read; extract again when it is complete."
_REASONS: Final = {
    "no_face": "no frontal face was found for the length of a group",
    "no_audio": "the sound does not cover a group",
    "no_picture": "the picture is shorter than a group",
    "jump": "the face never stays in place for the length of a group",
}


def _why_empty(row: LedgerRow) -> str:
    if not row.dropped:
        return "the video is shorter than a group"
    return _REASONS[max(row.dropped, key=lambda name: row.dropped[name])]
