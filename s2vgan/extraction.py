"""One video -> its groups file and its ledger row. A plain function: no Ray, no torch.

The video is decoded twice: first to find the face in every frame of the grid, then, with the
crops of the whole video planned, to cut them out. So memory does not grow with the pictures of
a video, only with its sound and its boxes.
"""

import dataclasses
import hashlib
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow.fs as pafs

from s2vgan import groups, media
from s2vgan.errors import DatasetError, SourceError
from s2vgan.faces import CropPlan, FaceTracker, find_cuts, plan_crops, thumbnail
from s2vgan.groups import Group, GroupSpec, LedgerRow

EXTRACTOR: Final = "1"  # raise it when the same video gives other groups than before
_FINAL: Final = ("ok", "empty", "rejected")  # not tried again while nothing has changed


def extract_video(source: str, data: str | Path, spec: GroupSpec) -> LedgerRow:
    """Write the groups of one video and what became of it. Does nothing if that is done.

    A video that gives no group, or cannot be read, is no error but a ledger row that says why:
    ``empty`` (decoded, no complete group), ``rejected`` (nothing that can be used) or ``failed``
    (tried again next time).

    Args:
        source: path of the video, or its URL (``s3://``).
        data: the dataset's folder or URL.
        spec: what a group holds.

    Returns:
        The video's row of the ledger.

    Raises:
        DatasetError: if the dataset is of another spec, or cannot be written.
    """
    check_spec(data, spec)
    started = time.process_time()
    try:
        with _local(source) as path:
            digest = _sha256(path)
            done = finished(digest, data, spec)
            if done is not None:
                return done
            row = _extract(path, source, digest, data, spec)
    except SourceError as error:
        row = failed(source, spec, str(error))
    else:
        forget_failure(source, data)
    row = dataclasses.replace(row, cpu_seconds=round(time.process_time() - started, 3))
    groups.write_ledger(data, row)
    return row


def check_spec(data: str | Path, spec: GroupSpec) -> None:
    """Make sure that a dataset, if there is one, is of this spec.

    Raises:
        DatasetError: if it is not (it names the fields that differ), or ``data`` is a file.
    """
    filesystem, root = groups.open_url(data)
    if filesystem.get_file_info(root).type == pafs.FileType.File:
        raise DatasetError(f"{data}: is a file; give a folder.")
    if not groups.has_dataset(data):
        return
    found = groups.read_dataset(data).spec.to_dict()
    differ = [
        f"{name} {found[name]} (asked for: {value})"
        for name, value in spec.to_dict().items()
        if found[name] != value
    ]
    if differ:
        raise DatasetError(
            f"{data}: this dataset has {', '.join(differ)}; use another folder, or the same values."
        )


def content_of(source: str) -> str | None:
    """SHA-256 of a local video; None for one that lies elsewhere or cannot be read."""
    try:
        return _sha256(Path(source)) if Path(source).is_file() else None
    except (SourceError, OSError):
        return None


def finished(digest: str, data: str | Path, spec: GroupSpec) -> LedgerRow | None:
    """The row of a video that needs no work: same content, spec and extractor as before."""
    row = groups.read_ledger_row(data, _video_id(digest))
    if row is None or row.sha256 != digest or row.spec != spec.to_dict():
        return None
    if row.extractor != EXTRACTOR or row.status not in _FINAL:
        return None
    return row if row.status != "ok" or groups.has_groups(data, row.video_id) else None


def failed(source: str, spec: GroupSpec, reason: str) -> LedgerRow:
    """The row of a video whose content could not be had; its id is made from its name."""
    reason = reason.removeprefix(f"{source}: ")
    return _blank(_missing_id(source), source, spec, "failed", reason)


def forget_failure(source: str, data: str | Path) -> None:
    """Remove the row of :func:`failed`, if there is one: the content could be had this time."""
    groups.remove(data, _missing_id(source))


def _missing_id(source: str) -> str:
    return "src-" + hashlib.sha256(source.encode()).hexdigest()[:16]


def _video_id(digest: str) -> str:
    return digest[:16]


@contextmanager
def _local(source: str) -> Iterator[Path]:
    """A local file with the content of a source; one that lies elsewhere is fetched."""
    if "://" not in source:
        if not Path(source).is_file():
            raise SourceError(f"{source}: no such file; check the path.")
        yield Path(source)
        return
    with tempfile.TemporaryDirectory(prefix="s2vgan-") as folder:
        try:
            filesystem, remote = groups.open_url(source)
            path = Path(folder) / Path(remote).name
            pafs.copy_files(
                remote, str(path), source_filesystem=filesystem,
                destination_filesystem=pafs.LocalFileSystem(),
            )  # fmt: skip
        except (OSError, DatasetError) as error:
            raise SourceError(f"{source}: cannot be fetched ({error}).") from error
        yield path


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}).") from error


def _blank(
    video_id: str, source: str, spec: GroupSpec, status: groups.Status, reason: str
) -> LedgerRow:
    return LedgerRow(video_id, status, source, reason, extractor=EXTRACTOR, spec=spec.to_dict())


def _extract(path: Path, source: str, digest: str, data: str | Path, spec: GroupSpec) -> LedgerRow:
    """The row of one video at hand; where it is not ``ok``, no groups file is left."""
    blank = _blank(_video_id(digest), source, spec, "failed", "")
    row = dataclasses.replace(blank, sha256=digest)
    try:
        return _extract_groups(path, row, data, spec)
    except DatasetError:
        raise
    except SourceError as error:
        row = dataclasses.replace(row, status="rejected", reason=_about(error, path))
    except Exception as error:  # one bad video must not end a job of thousands
        reason = f"{type(error).__name__}: {_about(error, path)}"
        row = dataclasses.replace(row, reason=reason)
    groups.write_groups(data, row.video_id, [], spec)  # removes those of an earlier run
    return row


def _extract_groups(path: Path, row: LedgerRow, data: str | Path, spec: GroupSpec) -> LedgerRow:
    """Write the groups of a video, and complete its row."""
    found = media.probe(path)
    track = media.read_track(path, spec.sample_rate)
    faces = _find_faces(path, spec.fps)
    plan = plan_crops(faces.boxes, faces.found, faces.cuts, spec.crop, found.width, found.height)
    kept, dropped = _choose(faces, plan, track, spec)
    groups.write_groups(data, row.video_id, _cut(path, faces, plan, kept, track, spec), spec)
    row = dataclasses.replace(
        row,
        fps=round(found.fps, 3),
        seconds=round(faces.seconds, 3),
        frames=int(faces.shown.sum()),
        face_frames=int(faces.found.sum()),
        groups=len(kept),
        segments=len({segment for segment, _ in kept}),
        dropped=dict(sorted(dropped.items())),
    )
    if kept:
        return dataclasses.replace(row, status="ok")
    return dataclasses.replace(row, status="empty", reason=_why_empty(row))


def _about(error: Exception, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")


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


@dataclass(frozen=True)
class _Faces:
    """The faces of a video on the grid, one row a tick from tick ``first`` on.

    ``shown``: there is a picture; ``found``: there is a face in it; ``boxes``: (n, 4); ``cuts``:
    a new shot starts.
    """

    first: int
    shown: np.ndarray
    found: np.ndarray
    boxes: np.ndarray
    cuts: np.ndarray
    seconds: float


def _find_faces(path: Path, fps: int) -> _Faces:
    tracker = FaceTracker()
    ticks: list[int] = []
    seen: list[tuple[np.ndarray | None, np.ndarray]] = []  # box and thumbnail of each tick
    last: media.Picture | None = None
    start = 0.0
    for tick, picture in media.on_grid(path, fps):
        if picture is not last:
            start = picture.time if last is None else start
            if picture.end - start > media.MAX_SECONDS:
                raise SourceError(f"{path}: longer than {media.MAX_SECONDS} s: cut it first.")
            last, now = picture, (tracker.update(picture.luma), thumbnail(picture.luma))
        ticks.append(tick)
        seen.append(now)
    first = ticks[0] if ticks else 0
    rows = np.asarray(ticks, np.int64) - first
    length = int(rows[-1]) + 1 if ticks else 0
    shown, found = np.zeros(length, bool), np.zeros(length, bool)
    boxes, cuts = np.zeros((length, 4), np.int64), np.zeros(length, bool)
    if last is None:
        return _Faces(first, shown, found, boxes, cuts, 0.0)
    shown[rows] = True
    cuts[rows] = find_cuts(np.stack([tiny for _, tiny in seen]))
    for row, (box, _) in zip(rows, seen, strict=True):
        if box is not None:
            found[row], boxes[row] = True, box
    return _Faces(first, shown, found, boxes, cuts, last.end - start)


def _choose(
    faces: _Faces, plan: CropPlan, track: media.Track, spec: GroupSpec
) -> tuple[list[tuple[int, int]], Counter[str]]:
    """Segment and index of the groups that are complete, and how many are not, by reason."""
    size = spec.frames_per_group
    kept: list[tuple[int, int]] = []
    dropped: Counter[str] = Counter()
    segment, last_index, last_shot = -1, -1, -1
    end = faces.first + len(faces.shown)
    for index in range(faces.first // size, -(-end // size)):
        low = index * size - faces.first
        rows = slice(max(0, low), low + size)
        samples = spec.samples_per_group
        if low < 0 or low + size > len(faces.shown) or not faces.shown[rows].all():
            dropped["no_picture"] += 1
        elif not faces.found[rows].all():
            dropped["no_face"] += 1
        elif len(set(plan.shots[rows])) > 1:
            dropped["jump"] += 1
        elif track.window(index * samples, samples) is None:
            dropped["no_audio"] += 1
        else:
            shot = int(plan.shots[low])
            segment += index != last_index + 1 or shot != last_shot or segment < 0
            last_index, last_shot = index, shot
            kept.append((segment, index))
    return kept, dropped


def _cut(
    path: Path,
    faces: _Faces,
    plan: CropPlan,
    kept: list[tuple[int, int]],
    track: media.Track,
    spec: GroupSpec,
) -> Iterator[Group]:
    """The groups, cut out in a second pass over the video."""
    size, samples = spec.frames_per_group, spec.samples_per_group
    wanted = iter(kept)
    segment, index = next(wanted, (-1, -1))
    frames: list[np.ndarray] = []
    for tick, picture in media.on_grid(path, spec.fps):
        if index < 0:
            return
        if tick < index * size:
            continue
        row = tick - faces.first
        frames.append(picture.crop(plan.boxes[row], spec.size))
        if len(frames) == size:
            audio = track.window(index * samples, samples)
            assert audio is not None
            boxes = plan.boxes[row - size + 1 : row + 1]
            yield Group(segment, index, np.stack(frames), audio, boxes)
            segment, index = next(wanted, (-1, -1))
            frames = []
    if index >= 0:
        raise OSError(f"{path}: decodes differently the second time; check the disk.")
