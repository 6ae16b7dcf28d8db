from typing import Any

import pytest

from pipelines.progress import Progress
from pipelines.stages import Stages
from s2vgan.extraction import Job
from s2vgan.known import Options
from s2vgan.ledger import LedgerRow
from s2vgan.source import Source


def test_the_line_tells_videos_and_groups(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(2) as bar:
        bar.groups(1234)
        bar.groups(6)
        bar.video()
    last = capsys.readouterr().err.split("\r")[-1]
    assert "1/2" in last and "1240 groups, " in last and "groups/s" in last


def test_nothing_to_do_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(0) as bar:
        bar.groups(0)
    assert capsys.readouterr().err == ""


def test_a_long_video_counts_span_by_span(monkeypatch: pytest.MonkeyPatch) -> None:
    row = LedgerRow("x", "ok", "long.mp4", groups=6)
    job = Job("long.mp4", row, ((0, 3), (3, 6), (6, None)))
    parts: list[dict[str, Any]] = [{"groups": 4}, {"status": "failed", "reason": ""}, {"groups": 2}]
    monkeypatch.setattr(Stages, "begin", lambda self, video: job)
    monkeypatch.setattr(Stages, "part", lambda self, job, number: parts[number])
    monkeypatch.setattr(Stages, "join", lambda self, job, parts: row)
    seen: list[int] = []
    stages = Stages("data", Options(), "videos", policy=None)  # type: ignore[arg-type]
    assert list(stages.all([Source("long.mp4")], seen.append)) == [row]
    assert seen == [4, 0, 2]
