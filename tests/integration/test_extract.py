"""Extraction through Ray Data: one task a video, and nothing hangs on two cores."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import extract, parallel
from s2vgan import cluster, ledger
from s2vgan.demo import Rendered
from s2vgan.known import Options
from tests.conftest import MakeVideo
from tests.test_extraction import talk
from tests.test_media import impulse

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.ray
def test_ray_gives_the_same_dataset_as_a_loop(
    ray_cluster: None, tmp_path: Path, make_video: MakeVideo, face: np.ndarray
) -> None:
    for number in range(4):
        frames = talk(face, [n / 30 for n in range(30 + 3 * number)])
        make_video(f"in/{number}.mp4", frames, impulse(2, 0.5, 16000))
    (tmp_path / "in" / "text.mp4").write_text("I am no video.\n")
    sources = [str(tmp_path / "in")]
    with_ray = extract.run(sources, tmp_path / "ray", Options(), workers=2)
    loop = extract.run(sources, tmp_path / "loop", Options(), workers=0)
    assert with_ray == loop
    assert sorted(with_ray.groups.values()) == [10, 11, 12, 13]
    assert with_ray.videos == {"ok": 4, "rejected": 1}
    for path in (tmp_path / "ray" / "groups").iterdir():
        assert path.read_bytes() == (tmp_path / "loop" / "groups" / path.name).read_bytes()


@pytest.mark.ray
def test_a_worker_that_dies_does_not_end_the_job(
    ray_cluster: None,
    tmp_path: Path,
    make_video: MakeVideo,
    face: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Dying(parallel._Steps):
        def extract(self, item: dict[str, Any]) -> dict[str, Any]:
            return os._exit(1) if "bad" in item["job"] else super().extract(item)

    monkeypatch.setattr(parallel, "_Steps", Dying)
    monkeypatch.setattr(cluster, "extract_workers", lambda: None)  # as on a joined cluster
    for name in ("good", "bad"):
        frames = talk(face, [n / 30 for n in range(30 + len(name))])
        make_video(f"in/{name}.mp4", frames, impulse(2, 0.5, 16000))
    info = extract.run([str(tmp_path / "in")], tmp_path / "data")
    assert info.videos == {"failed": 1, "ok": 1} and sum(info.groups.values()) == 11
    assert "bad.mp4: a worker died (" in capsys.readouterr().out


@pytest.mark.ray
@pytest.mark.slow
def test_the_command(talking_head: Rendered, tmp_path: Path) -> None:
    """As a user types it, in a folder of their own."""
    command = [sys.executable, str(ROOT / "pipelines" / "extract.py"), str(talking_head.video)]
    done = subprocess.run(
        [*command, "--out", "data"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert sum(ledger.read_dataset(tmp_path / "data").groups.values()) >= 190
    assert "groups/s" in done.stderr and "warning" not in (done.stderr + done.stdout).lower()


@pytest.mark.ray
def test_copies_of_a_long_video_are_one(
    ray_cluster: None, tmp_path: Path, make_video: MakeVideo, face: np.ndarray
) -> None:
    """Several spans of 60 s side by side, and two names for the same content."""
    frames = [(n / 2, face) for n in range(2 * 130)]
    path = make_video("in/a.mkv", [*frames, (130, face)], impulse(130.1, 0.5, 16000), fps=2)
    (tmp_path / "in" / "b.mkv").write_bytes(path.read_bytes())
    info = extract.run([str(tmp_path / "in")], tmp_path / "ray", workers=2, span_seconds=60)
    assert info == extract.run([str(path)], tmp_path / "loop", workers=0)
    [row] = ledger.read_rows(tmp_path / "ray").values()
    assert row.source.endswith("a.mkv") and not list((tmp_path / "ray").glob("parts/*"))


@pytest.mark.ray
def test_a_join_that_dies_costs_its_video_alone(
    ray_cluster: None, tmp_path: Path, make_video: MakeVideo, face: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    real = parallel._join

    def dying(stages: Any, job: str, parts: Any) -> str:
        return os._exit(1) if "bad" in job else real(stages, job, parts)

    monkeypatch.setattr(parallel, "_join", dying)
    monkeypatch.setattr(parallel, "RETRIES", 0)
    for name in ("bad", "good"):
        frames = [(n / 2, face) for n in range(2 * (70 + len(name)))]
        make_video(f"in/{name}.mkv", frames, impulse(71, 0.5, 16000), fps=2)
    extract.run([str(tmp_path / "in")], tmp_path / "data", workers=2, span_seconds=60)
    rows = ledger.read_rows(tmp_path / "data").values()
    assert {Path(row.source).stem: row.status for row in rows} == {"bad": "failed", "good": "ok"}
