"""Blocks, and what a span makes of pictures that come slowly or far from the clock's start."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from s2vgan import media, spans
from s2vgan.errors import SourceError
from s2vgan.extraction import extract_video
from s2vgan.known import Options
from s2vgan.spec import GroupSpec
from tests.conftest import MakeVideo
from tests.test_media import impulse


@pytest.mark.parametrize("fps", [24, 25, 30, 50, 60])
def test_blocks_are_whole_groups_that_fit_into_memory(fps: int) -> None:
    for size in (16, 64, 96, 97, 128, 256, 511, 1024):
        spec = GroupSpec(fps=fps, size=size)
        ticks = spans.block_ticks(spec)
        assert ticks % 3 == 0 and 3 <= ticks <= 60 * fps
        assert ticks * 1.5 * (media.REACH * spans.patch_limit(size)) ** 2 <= spans.BLOCK_BYTES
        span = spans.span_ticks(spec, 600)
        assert span % ticks == 0 and 0.8 * 600 * fps < span <= 600 * fps
    assert spans.block_ticks(GroupSpec(fps=fps)) == 60 * fps


@pytest.mark.parametrize(("rate", "fps"), [(30, 30), (10, 30), (24, 60)])
def test_a_slow_pan_is_no_cut_at_any_rate(
    tmp_path: Path, make_video: MakeVideo, face: np.ndarray, rate: int, fps: int
) -> None:
    """Where most pictures are shown for several ticks, nothing changes between most ticks."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 48, 3)).astype(np.uint8)
    scene = cv2.resize(noise, (768, 384), interpolation=cv2.INTER_CUBIC)
    scene[64:320, 256:512] = face
    frames = [
        (n / rate, np.ascontiguousarray(scene[:, 180 * n // rate :][:, :400]))
        for n in range(round(1.2 * rate))
    ]
    path = make_video("x.mp4", frames, impulse(1.3, 0.5, 16000), fps=rate)
    row = extract_video(str(path), tmp_path / "data", Options(GroupSpec(fps=fps)))
    assert (row.status, row.segments) == ("ok", 1), row.dropped
    assert "jump" not in row.dropped


def test_a_clock_that_an_index_cannot_count_is_refused(
    tmp_path: Path, make_video: MakeVideo, face: np.ndarray
) -> None:
    path = make_video("x.mkv", [(n / 30, face) for n in range(6)], impulse(1, 0.5, 16000))
    late = tmp_path / "late.mkv"
    with av.open(str(path)) as source, av.open(str(late), "w") as output:
        streams = {one.index: output.add_stream_from_template(one) for one in source.streams}
        for packet in source.demux():
            if packet.dts is not None and packet.pts is not None and packet.time_base:
                shift = round(1e9 / Fraction(packet.time_base))
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
    with pytest.raises(SourceError, match="clock starts at 1000000000 s; copy it"):
        spans.extract_span(
            str(late), "late", str(tmp_path), "x.parquet", GroupSpec().to_dict(), "largest", 0, None
        )
    row = extract_video(str(late), tmp_path / "data", Options())
    assert row.status == "rejected"
