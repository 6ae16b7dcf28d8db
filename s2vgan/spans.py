"""One span of a video -> its groups, in one decode. Runs in a child process with limits.

A span is a number of blocks. In each block of the grid the face is followed and the crops are
planned afresh, so how a video is cut into spans never changes what comes out of it. The crops can
only be planned when the block's last face is known: until then each picture is kept as a *patch*,
the surroundings of its face.
"""

import itertools
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np

from s2vgan import groups, media
from s2vgan.crops import CropPlan, find_cuts, plan_crops, thumbnail
from s2vgan.errors import SourceError
from s2vgan.faces import FaceTracker
from s2vgan.groups import Group
from s2vgan.sandbox import progress
from s2vgan.spec import FaceChoice, GroupSpec

BLOCK_SECONDS: Final = 60
BLOCK_BYTES: Final = 256 << 20  # of patches at 4:2:0, from which larger crops get shorter blocks
MAX_GROUPS: Final = 1 << 31  # where the index ends: years after the clock's start
PROGRESS: Final = 100  # frames between two signs of life

Stretch = tuple[int, int, str]  # first group, one after the last, "kept" or why not


def patch_limit(size: int) -> int:
    """Side in pixels beyond which the face in a patch is shrunk, for crops of ``size`` pixels.

    The crop is then a shrunk patch shrunk again, which is as good as one step if the first leaves
    more pixels than the second needs.
    """
    return max(round(1.25 * size), min(2 * size, 192))


def block_ticks(spec: GroupSpec) -> int:
    """Ticks of the grid in one block: whole groups, a minute or what fits into memory."""
    pixels = (media.REACH * patch_limit(spec.size)) ** 2
    ticks = min(BLOCK_SECONDS * spec.fps, int(BLOCK_BYTES / (1.5 * pixels)))
    return max(1, ticks // spec.frames_per_group) * spec.frames_per_group


def span_ticks(spec: GroupSpec, seconds: float) -> int:
    """Ticks of the grid in one span of about so many seconds: whole blocks."""
    block = block_ticks(spec)
    return max(1, round(seconds * spec.fps) // block) * block


def inspect(path: str) -> dict[str, Any]:
    """What :func:`s2vgan.media.probe` finds, as plain JSON values.

    Raises:
        SourceError: if the video is unfit.
    """
    started = time.process_time()
    found = media.probe(path)
    return {
        "fps": round(found.fps, 3),
        "start": found.start,
        "seconds": found.seconds,
        "seekable": found.seekable,
        "cpu_seconds": time.process_time() - started,
    }


def extract_span(
    path: str,
    video_id: str,
    data: str,
    file: str,
    spec: dict[str, Any],
    face: FaceChoice,
    first: int,
    stop: int | None,
) -> dict[str, Any]:
    """Write the groups of one span.

    Args:
        path: of the video.
        video_id: of the video.
        data: the dataset's folder or URL.
        file: to write, below ``data``; with no group none is left.
        spec: of the groups, as plain JSON values.
        face: which face to follow where there are several.
        first: tick at which the span begins, a multiple of the frames in a group.
        stop: tick before which it ends; None for the end of the video.

    Returns:
        Plain JSON values: ``ticks`` (first and one after the last that has a picture, or None),
        ``frames``, ``face_frames``, ``false_starts``, ``box_jumps``, ``segments``, ``timeline``,
        ``groups``, ``groups_sha256``, ``groups_size``, ``cpu_seconds``.

    Raises:
        SourceError: if the video turns out to be unfit.
        OSError: if the file cannot be written.
    """
    started = time.process_time()
    span = _Span(path, GroupSpec(**spec), face, first, stop)
    written = groups.write_groups(data, video_id, span.groups(), span.spec, file=file)
    return {
        "ticks": span.ticks,
        "frames": span.frames,
        "face_frames": span.face_frames,
        "false_starts": span.false_starts,
        "box_jumps": span.box_jumps,
        "segments": span.segments,
        "timeline": span.timeline,
        "groups": written.groups,
        "groups_sha256": written.sha256,
        "groups_size": written.size,
        "cpu_seconds": time.process_time() - started,
    }


class _Span:
    """The groups of a span, and what was counted while they were made."""

    def __init__(
        self, path: str, spec: GroupSpec, face: FaceChoice, first: int, stop: int | None
    ) -> None:
        self.path, self.spec, self.face, self.first, self.stop = path, spec, face, first, stop
        self.ticks: tuple[int, int] | None = None
        self.frames = self.face_frames = self.false_starts = self.box_jumps = self.segments = 0
        self.timeline: list[Stretch] = []

    def groups(self) -> Iterator[Group]:
        fps, size = self.spec.fps, block_ticks(self.spec)
        end = float("inf") if self.stop is None else self.stop / fps
        track = media.read_track(self.path, self.spec.sample_rate, self.first / fps, end)
        ticks = media.on_grid(self.path, fps, self.first, self.stop)
        for number, some in itertools.groupby(ticks, lambda item: item[0] // size):
            yield from self._block(number * size, some, track)

    def _block(
        self, start: int, ticks: Iterable[tuple[int, media.Picture]], track: media.Track
    ) -> Iterator[Group]:
        """The groups of the block that starts at a tick."""
        length = block_ticks(self.spec)
        shown, found = np.zeros(length, bool), np.zeros(length, bool)
        boxes, cuts = np.zeros((length, 4), np.int64), np.zeros(length, bool)
        patches: dict[int, media.Patch] = {}
        # One for each picture, not for each tick: where most pictures are shown twice or longer,
        # nothing changes from tick to tick, and each motion would be a cut.
        thumbnails: dict[int, np.ndarray] = {}
        tracker, limit = FaceTracker(self.face), patch_limit(self.spec.size)
        last: media.Picture | None = None
        for tick, picture in ticks:
            row = tick - start
            if picture is not last:
                last, luma = picture, picture.luma
                box, thumbnails[row] = tracker.update(luma), thumbnail(luma)
                patch = None if box is None else picture.patch(box, limit)
            self._count(tick, box is not None)
            shown[row] = True
            if box is not None and patch is not None:
                found[row], boxes[row], patches[row] = True, box, patch
        assert last is not None
        cuts[list(thumbnails)] = find_cuts(np.stack(list(thumbnails.values())))
        plan = plan_crops(boxes, found, cuts, self.spec.crop, last.width, last.height)
        self.false_starts += tracker.false_starts
        self.box_jumps += plan.jumps
        yield from self._complete(start, shown, found, plan, patches, track)

    def _count(self, tick: int, has_face: bool) -> None:
        first = tick if self.ticks is None else self.ticks[0]
        if tick - first > media.MAX_SECONDS * self.spec.fps:
            raise SourceError(f"{self.path}: longer than {media.MAX_SECONDS} s: cut it first.")
        if tick >= MAX_GROUPS * self.spec.frames_per_group:
            raise SourceError(
                f"{self.path}: its clock starts at {first / self.spec.fps:.0f} s; copy it into a "
                "new file whose clock starts at 0."
            )
        self.ticks = (first, tick + 1)
        self.frames += 1
        self.face_frames += has_face
        if self.frames % PROGRESS == 0:
            progress(frames=self.frames)

    def _complete(
        self,
        start: int,
        shown: np.ndarray,
        found: np.ndarray,
        plan: CropPlan,
        patches: dict[int, media.Patch],
        track: media.Track,
    ) -> Iterator[Group]:
        """The complete groups of a block; why the others are not goes into the timeline."""
        size, samples = self.spec.frames_per_group, self.spec.samples_per_group
        shot = -1  # of the group before, -1 where that was dropped
        for low in range(0, len(shown), size):
            index = (start + low) // size
            rows = range(low, low + size)
            audio = track.window(index * samples, samples)
            shots = set(plan.shots[low : low + size].tolist())
            if not shown[low : low + size].all():
                why = "no_picture"
            elif not found[low : low + size].all():
                why = "no_face"
            elif len(shots) > 1 or not all(patches[row].covers(plan.boxes[row]) for row in rows):
                why = "jump"
            elif audio is None:
                why = "no_audio"
            else:
                why = "kept"
            self._note(index, why)
            if why != "kept" or audio is None:
                shot = -1
                continue
            self.segments += shot not in shots
            (shot,) = shots
            frames = [patches[row].crop(plan.boxes[row], self.spec.size) for row in rows]
            boxes = plan.boxes[low : low + size]
            yield Group(self.segments - 1, index, np.stack(frames), audio, boxes)

    def _note(self, index: int, why: str) -> None:
        if self.timeline and self.timeline[-1][1:] == (index, why):
            self.timeline[-1] = (self.timeline[-1][0], index + 1, why)
        else:
            self.timeline.append((index, index + 1, why))


def join_timelines(timelines: Iterable[Iterable[Stretch]], first: int, stop: int) -> list[Stretch]:
    """The timelines of a video's spans as one, from group ``first`` to before ``stop``.

    Where there was no picture for a whole block, no span says anything.
    """
    whole: list[Stretch] = []
    at = first
    for low, high, why in itertools.chain(*timelines):
        low, high = max(low, first), min(high, stop)
        for part in ((at, low, "no_picture"), (low, high, why)):
            if part[0] >= part[1]:
                continue
            if whole and whole[-1][2] == part[2]:
                whole[-1] = (whole[-1][0], part[1], part[2])
            else:
                whole.append(part)
        at = max(at, high)
    return whole
