import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s2vgan import extraction, groups, ledger, sandbox, spans
from s2vgan.errors import SourceError
from s2vgan.extraction import extract_video
from s2vgan.ledger import LedgerRow
from s2vgan.source import Source
from tests.conftest import MakeVideo
from tests.test_extraction import OPTIONS, SPEC, rows_of, talk
from tests.test_media import impulse


@pytest.fixture
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 2 s instead of a minute, so that short videos have several."""
    monkeypatch.setattr(spans, "BLOCK_SECONDS", 2)


def without_times(row: LedgerRow) -> LedgerRow:
    return dataclasses.replace(row, cpu_seconds=0)


@pytest.mark.parametrize("name", ["x.mp4", "x.mkv", "x.avi"])
def test_how_a_video_is_cut_into_spans_changes_nothing(
    tmp_path: Path, make_video: MakeVideo, face: np.ndarray, short_blocks: None, name: str
) -> None:
    """Picture and sound, a gap without a face and one without a picture lie across the borders."""
    random = np.random.default_rng(0)
    blank = np.full_like(face, 90)
    frames = [
        (n / 30, blank if 170 <= n < 190 else np.roll(face, n // 4, axis=1))
        for n in range(330)
        if not 235 <= n < 250
    ]
    path = make_video(name, frames, random.normal(0, 0.1, 11 * 16000))
    rows, files = [], []
    for seconds in (600, 2, 4):
        data = tmp_path / f"every{seconds}"
        rows.append(without_times(extract_video(str(path), data, OPTIONS, span_seconds=seconds)))
        files.append((data / "groups" / f"{rows[-1].video_id}.parquet").read_bytes())
        assert not list(data.glob("parts/*"))
    assert rows[0] == rows[1] == rows[2] and rows[0].status == "ok"
    assert files[0] == files[1] == files[2]
    assert rows[0].segments >= 6 and set(rows[0].dropped) >= {"no_face", "no_picture"}
    lengths = {why: 0 for _, _, why in rows[0].timeline}
    for first, stop, why in rows[0].timeline:
        lengths[why] += stop - first
    assert lengths.pop("kept") == rows[0].groups and lengths == rows[0].dropped
    borders = [first for first, _, _ in rows[0].timeline] + [rows[0].timeline[-1][1]]
    assert borders == sorted(set(borders)) and (borders[0], borders[-1]) == (0, 110)


@pytest.mark.parametrize(
    ("start", "seconds", "part", "borders"),
    [
        (0, 1500, (0, None), [0, 600, 1200, None]),
        (0, 600, (0, None), [0, None]),
        (0, 601, (0, None), [0, 600, None]),
        (-0.1, 0, (0, None), [0, None]),
        (72_000.5, 1000, (0, None), [0, 72_600, None]),  # from the air, 20 hours after its start
        (0, 1500, (590, 1210), [590, 600, 1200, 1210]),
        (0, 1500, (600, 1200), [600, 1200]),
        (0, 1500, (2000, 3000), [2000, 3000]),
    ],
)
def test_the_borders_of_spans(
    start: float, seconds: float, part: tuple[float, float | None], borders: list[int | None]
) -> None:
    found = {"start": start, "seconds": seconds, "seekable": True}
    ticks = [None if border is None else 30 * border for border in borders]
    planned = extraction._plan_spans(Source("x.mp4", *part), found, SPEC, 600)
    assert planned == tuple(zip(ticks, ticks[1:], strict=False))
    whole = extraction._plan_spans(Source("x.mp4", *part), found | {"seekable": False}, SPEC, 600)
    assert whole == ((ticks[0], ticks[-1]),)


def test_no_segment_crosses_a_block(
    tmp_path: Path, make_video: MakeVideo, face: np.ndarray, short_blocks: None
) -> None:
    path = make_video("x.mp4", talk(face, [n / 30 for n in range(150)]), impulse(5.1, 0.5, 16000))
    row = extract_video(str(path), tmp_path / "data", OPTIONS)
    _, _, segments, indices = rows_of(tmp_path / "data", row)
    assert indices == list(range(50)) and segments == [index // 20 for index in indices]


def test_parts_that_are_there_are_not_extracted_again(
    tmp_path: Path,
    make_video: MakeVideo,
    face: np.ndarray,
    short_blocks: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An interrupted long video goes on with the spans that are missing."""
    path = make_video("x.mp4", talk(face, [n / 30 for n in range(180)]), impulse(6.1, 0.5, 16000))
    whole = extract_video(str(path), tmp_path / "whole", OPTIONS)
    data, asked = tmp_path / "data", []
    real = spans.extract_span

    def failing(*arguments: Any) -> dict[str, Any]:
        asked.append(arguments[-2])
        if arguments[-2] == 60 and asked.count(60) == 1:
            raise RuntimeError("killed")
        return real(*arguments)

    monkeypatch.setattr(spans, "extract_span", failing)
    row = extract_video(str(path), data, OPTIONS, span_seconds=2)
    assert (row.status, row.reason) == ("failed", "RuntimeError: killed")
    assert asked == [0, 60, 120, 180] and not list((data / "groups").glob("*"))
    again = extract_video(str(path), data, OPTIONS, span_seconds=2)
    assert asked == [0, 60, 120, 180, 60]
    assert without_times(again) == without_times(whole)
    file = f"{row.video_id}.parquet"
    assert (data / "groups" / file).read_bytes() == (tmp_path / "whole/groups" / file).read_bytes()
    assert not (data / "parts" / row.video_id).exists()


Damage = Callable[[Path], object]


@pytest.mark.parametrize(
    ("name", "damage", "status"),
    [
        ("60.parquet", lambda path: path.unlink(), "failed"),
        ("60.parquet", lambda path: path.write_bytes(path.read_bytes()[:-9] + bytes(9)), "failed"),
        ("60.json", lambda path: path.write_text("{"), "ok"),
        ("60.json", lambda path: path.write_text("{}"), "ok"),
    ],
)
def test_a_damaged_part_is_made_anew(
    tmp_path: Path,
    make_video: MakeVideo,
    face: np.ndarray,
    short_blocks: None,
    name: str,
    damage: Damage,
    status: str,
) -> None:
    """Groups that are damaged when they are joined fail the video, once; a record does not."""
    path = make_video("x.mp4", talk(face, [n / 30 for n in range(150)]), impulse(5.1, 0.5, 16000))
    data, whole = tmp_path / "data", extract_video(str(path), tmp_path / "whole", OPTIONS)
    job = extraction.begin(Source(str(path)), str(path), data, OPTIONS, span_seconds=2)
    assert isinstance(job, extraction.Job)
    parts = [extraction.extract_part(job, n, data, OPTIONS) for n in range(len(job.spans))]
    damage(data / "parts" / job.row.video_id / name)
    if name == "60.json":
        parts[1] = extraction.extract_part(job, 1, data, OPTIONS)
    row = extraction.finish(job, parts, data, OPTIONS)
    assert row.status == status and ("damaged or gone" in row.reason) == (status == "failed")
    if status == "failed":
        assert not list(data.glob("groups/*")) and ledger.read_row(data, row.video_id) == row
        row = extract_video(str(path), data, OPTIONS, span_seconds=2)
    assert without_times(row) == without_times(whole)
    assert not list(data.glob("parts/*"))


def test_the_limit_on_length_is_for_all_spans_together(
    tmp_path: Path, make_video: MakeVideo, face: np.ndarray
) -> None:
    path = make_video("x.mp4", talk(face, [n / 30 for n in range(6)]), impulse(1, 0.5, 16000))
    job = extraction.begin(Source(str(path)), str(path), tmp_path, OPTIONS)
    assert isinstance(job, extraction.Job)
    hour = 3600 * 30
    found = extraction.extract_part(job, 0, tmp_path, OPTIONS)
    spanned = dataclasses.replace(job, spans=((0, 3 * hour), (3 * hour, None)))
    parts = [found | {"ticks": (0, 3 * hour)}, found | {"ticks": (3 * hour, 5 * hour)}]
    row = extraction.finish(spanned, parts, tmp_path, OPTIONS)
    assert (row.status, row.reason) == ("rejected", "longer than 14400 s: cut it first.")


@pytest.mark.parametrize("step", ["inspect", "extract_span"])
def test_a_file_that_changes_while_it_is_read_is_tried_again(
    tmp_path: Path, make_video: MakeVideo, face: np.ndarray, step: str
) -> None:
    """Else groups of one content would have the id of another, and would never be renewed."""
    path = make_video("x.mp4", talk(face, [n / 30 for n in range(30)]), impulse(1.1, 0.5, 16000))
    content, data = path.read_bytes(), tmp_path / "data"

    def copied(function: str, *arguments: Any) -> Any:
        if function.endswith(step):
            path.write_bytes(content)  # the rest has arrived
        return sandbox.direct(function, *arguments)

    path.write_bytes(content[:-1] if step == "extract_span" else content[:5000])
    row = extract_video(str(path), data, OPTIONS, copied)
    assert (row.status, row.video_id[:4]) == ("failed", "src-") and "changed" in row.reason
    assert not list(data.glob("groups/*")) and list(ledger.read_rows(data)) == [row.video_id]
    row = extract_video(str(path), data, OPTIONS)
    assert row.status == "ok" and list(ledger.read_rows(data)) == [row.video_id]


def test_a_failure_does_not_undo_what_another_job_did(
    tmp_path: Path, make_video: MakeVideo, face: np.ndarray
) -> None:
    path = make_video("x.mp4", talk(face, [n / 30 for n in range(30)]), impulse(1.1, 0.5, 16000))
    done = []

    def overtaken(function: str, *arguments: Any) -> Any:
        done.append(extract_video(str(path), tmp_path / "data", OPTIONS))
        raise SourceError("its process was killed")

    assert extract_video(str(path), tmp_path / "data", OPTIONS, overtaken) == done[0]
    assert done[0].status == "ok" and groups.size_of(tmp_path / "data", done[0].video_id)
