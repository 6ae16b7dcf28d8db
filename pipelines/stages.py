"""What happens to one video, step by step, wherever the steps run."""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipelines import download
from pipelines.download import Policy
from s2vgan import extraction, known
from s2vgan.errors import DatasetError, SourceError
from s2vgan.extraction import Job
from s2vgan.known import Options
from s2vgan.ledger import LedgerRow
from s2vgan.sandbox import Sandbox
from s2vgan.source import Source

CPU_SECONDS: Final = 2 * 3600  # of one call; ten minutes of video take half a minute


@functools.cache
def child() -> Sandbox:
    """The child process in which this process has videos decoded."""
    return Sandbox(cpu=CPU_SECONDS)


@dataclass(frozen=True)
class Stages:
    """The steps from a source to its ledger row.

    A step never raises for what is wrong with one video: the job goes on with the others.

    Attributes:
        data: the dataset's folder or URL.
        options: what a group holds.
        videos: folder for downloads.
        policy: of downloads.
        span_seconds: length of the spans of a long video.
    """

    data: str
    options: Options
    videos: str
    policy: Policy
    span_seconds: float = extraction.SPAN_SECONDS

    def begin(self, video: Source) -> Job | LedgerRow:
        """Fetch a video if it is a link, hash it, probe it, cut it into spans."""
        try:
            path = video.location
            if video.is_link:
                path = str(download.fetch(video.location, self.videos, self.policy))
            return extraction.begin(
                video, path, self.data, self.options, child().call, self.span_seconds
            )
        except SourceError as error:
            return self.failure(video, str(error))
        except OSError as error:
            return self.failure(video, f"OSError: {error}")

    def part(self, job: Job, number: int) -> dict[str, Any]:
        """Extract one span."""
        try:
            return extraction.extract_part(job, number, self.data, self.options, child().call)
        except OSError as error:
            return {"status": "failed", "reason": f"OSError: {error}"}

    def join(self, job: Job, parts: Sequence[dict[str, Any]]) -> LedgerRow:
        """Join the spans, and write the ledger row."""
        try:
            return extraction.finish(job, parts, self.data, self.options)
        except (OSError, DatasetError) as error:  # the disk is full, or a part is gone
            row, kind = job.row, "" if isinstance(error, DatasetError) else "OSError: "
            return self.failure(Source(row.source, row.start, row.end), f"{kind}{error}")

    def failure(self, video: Source, reason: str) -> LedgerRow:
        """A row that says why; written if that is possible (the disk may be full)."""
        row = known.failed_row(video, self.options, reason)
        try:
            known.record(row, self.data)
        except OSError:
            return row
        return row

    def all(
        self, videos: Sequence[Source], count: Callable[[int], object] = lambda groups: None
    ) -> Iterator[LedgerRow]:
        """One video after another, in this process; ``count`` is told the groups of each span."""
        for video in videos:
            taken = self.begin(video)
            if isinstance(taken, LedgerRow):
                yield taken
                continue
            parts = []
            for number in range(len(taken.spans)):
                parts.append(self.part(taken, number))
                count(parts[-1].get("groups", 0))
            yield self.join(taken, parts)
