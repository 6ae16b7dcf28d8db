"""The parts of the extraction's bench that need no measurement. It is not run here: minutes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s2vgan import groups, media, sandbox
from s2vgan.demo import Rendered
from tests.benches import loaded


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    """bench/extract.py as a module."""
    with loaded("extract") as module:
        yield module


def test_figures_are_those_that_were_asked_for(
    bench: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    targets = {key: (value.least, value.aim) for key, value in bench.TARGETS.items()}
    assert targets == {
        "speedup_720p": (25, 45),
        "speedup_sparse": (10, 20),
        "agreement": (0.99, 0.995),
        "iou": (0.85, 0.92),
        "over_decode_720p": (2.5, 1.8),
        "ray_overhead": (1.25, 1.10),
        "cpu_inflation_2": (1.10, 1.05),
        "parquet_write_gain": (5, 6),
        "parquet_read_gain": (5, 10),
    }
    figures = {"iou": 0.92, "agreement": 0.991, "ray_overhead": 1.11, "speedup_720p": 24.9, "x": 1}
    bench.report("extract", figures, bench.TARGETS | {"x": bench.Target(1)})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines[-6:-1]] == ["aim", "ok", "ok", "MISSED", "ok"]
    assert json.loads(lines[-1])["figures"] == figures


def test_cpu_of_children_counts_while_they_live_and_after(bench: Any) -> None:
    burn = (
        "import time\nwhile time.process_time() < 0.5: pass\nprint('done', flush=True)\ninput('')"
    )
    before, ours = bench.tree_cpu(), bench.tree_cpu(lambda line: "process_time" in line)
    assert ours == 0
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", burn], **pipes) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert bench.tree_cpu() - before >= 0.45
        assert bench.tree_cpu(lambda line: "process_time" in line) >= 0.45
        child.communicate("\n")
    assert bench.tree_cpu() - before >= 0.45


def test_agreement_compares_frame_by_frame(bench: Any) -> None:
    box, half = np.array([0, 0, 10, 10]), np.array([5, 0, 10, 10])
    seen = bench.Agreement([], [])
    seen.add([box, box, None, None], [box, half, box, None], Path("a"))
    assert seen.same == [True, True, False, True]
    assert seen.overlaps == pytest.approx([1, 1 / 3])
    with pytest.raises(RuntimeError, match=r"a\.mp4: OpenCV sees 1 frames, we 2"):
        seen.add([None], [None, None], Path("a.mp4"))


def test_both_tables_hold_the_same(
    bench: Any, talking_head: Rendered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("_contenders.GROUPS", 100)
    monkeypatch.setattr(groups, "CHUNK_BYTES", 40 * 3 * 64 * 64 * 3)  # 40 groups
    batches: list[np.ndarray] = []
    monkeypatch.setattr("torch.tensor", batches.append)
    tables = bench.Tables(talking_head.video, tmp_path, sandbox.direct)
    for way in (tables.write, tables.write_plain, tables.read):
        way()
    ours, batches[:] = batches[:], []
    tables.read_plain()
    assert [len(batch) for batch in ours] == [64, 64, 36, 36]
    assert [batch.dtype for batch in ours] == [np.uint8, np.int16] * 2
    assert all(np.array_equal(a, b) for a, b in zip(ours, batches, strict=True))


def test_the_rendered_head_stands_in_for_real_clips(
    bench: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("S2VGAN_CLIPS", str(tmp_path))
    clips = bench.prepare(tmp_path / "cache", 1, 1)
    assert f"{tmp_path}: no real clips here (S2VGAN_CLIPS" in capsys.readouterr().err
    assert len(clips.short) == 1 and clips.odd == ()
    probes = [media.probe(path) for path in (clips.square, clips.hd, clips.sparse)]
    sizes = [(found.width, found.height) for found in probes]
    assert sizes == [(512, 512), (1280, 720), (1280, 720)]
    assert all(box is not None for box in bench.naive(clips.hd, step=7))
    # Each 7.5 frames end without a face.
    assert [box is not None for box in bench.naive(clips.sparse, step=7)] == [True] + 4 * [False]
    made = clips.hd.stat().st_mtime_ns
    assert bench.prepare(tmp_path / "cache", 1, 1).hd.stat().st_mtime_ns == made
