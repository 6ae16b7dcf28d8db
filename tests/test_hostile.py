"""Files that nobody should trust: each ends in a sentence, at little cost."""

import contextlib
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import extract, stages
from s2vgan import ledger
from s2vgan.errors import S2VError, SandboxError, SourceError
from s2vgan.sandbox import MEBIBYTE, Sandbox
from tests import hostile
from tests.conftest import MakeVideo
from tests.test_extraction import talk
from tests.test_media import impulse

LIMIT = 500_000_000  # bytes that the child may take in all
SECRET = "root:x:0:0"


@cache
def valid(container: str) -> bytes:
    codecs = {"avi": ("mpeg4", "pcm_s16le"), "mpeg": ("mpeg2video", "mp2")}
    return hostile.encode(container, *codecs.get(container, ()))


def motion_jpeg() -> bytes:
    return hostile.encode("avi", "mjpeg", "pcm_s16le")


def peak(child: Sandbox) -> int:
    """Most bytes that the child has had in memory; 0 if it is dead."""
    try:
        status = Path(f"/proc/{child.pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return 0 if found is None else 1024 * int(found[1])


class Measured(Sandbox):
    """Knows the peak of children that it has closed."""

    peak = 0

    def close(self) -> None:
        self.peak = max(self.peak, peak(self))
        super().close()


@pytest.fixture(scope="module")
def child() -> Iterator[Sandbox]:
    with Sandbox(silence=60, cpu=30, modules=["tests"]) as found:
        yield found


@pytest.fixture
def listener() -> Iterator[Callable[[], int]]:
    """A local HTTP port; how many have connected to it."""
    connected: list[object] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connected.append(server.accept())
                except OSError:
                    return

        threading.Thread(target=serve, daemon=True).start()
        yield lambda: server.getsockname()[1] if not connected else -1
        assert not connected
        server.shutdown(socket.SHUT_RDWR)


GIANTS = {
    "sps_100k.mp4": lambda: hostile.with_h264_size(valid("mp4"), 100_000, 100_000),
    "sps_100k.mkv": lambda: hostile.with_h264_size(valid("matroska"), 100_000, 100_000),
    "sps_100k.ts": lambda: hostile.with_h264_size(valid("mpegts"), 100_000, 100_000),
    "sps_16k.mp4": lambda: hostile.with_h264_size(valid("mp4"), 16_000, 16_000),
    "sps_16k.mkv": lambda: hostile.with_h264_size(valid("matroska"), 16_000, 16_000),
    "sps_16k.ts": lambda: hostile.with_h264_size(valid("mpegts"), 16_000, 16_000),
    "jpeg_65k.avi": lambda: hostile.with_jpeg_size(motion_jpeg(), 65_500, 65_500),
    "jpeg_20k.avi": lambda: hostile.with_jpeg_size(motion_jpeg(), 20_000, 20_000),
    "mpeg2_16k.mpg": lambda: hostile.with_mpeg2_size(valid("mpeg")),
    "mpeg4_8k.avi": lambda: hostile.with_mpeg4_size(valid("avi"), 8191, 8191),
    "png_15k.avi": lambda: hostile.packets("png", "avi", [hostile.png(15_000, 15_000)] * 3),
    "png_15k.mov": lambda: hostile.packets("png", "mov", [hostile.png(15_000, 15_000)] * 3),
}


@pytest.mark.parametrize("name", GIANTS)
def test_a_giant_picture_is_refused_before_there_is_memory_for_it(
    child: Sandbox, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(GIANTS[name]())
    with pytest.raises(SourceError, match=r"claims .* pixels|no frame of its picture"):
        child.call("tests.hostile:look", str(path))
    assert peak(child) < LIMIT / 2


GROWING = {
    "late.ts": lambda: valid("mpegts") + hostile.with_h264_size(valid("mpegts"), 16_000, 16_000),
    "late.avi": lambda: hostile.packets(
        "png", "avi", [hostile.png(64, 64)] * 20 + [hostile.png(15_000, 15_000)]
    ),
}


@pytest.mark.parametrize("name", GROWING)
def test_a_picture_that_becomes_a_giant_is_left_out(
    child: Sandbox, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(GROWING[name]())
    assert child.call("tests.hostile:look", str(path))[0] >= 20
    assert peak(child) < LIMIT / 2


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_ten_hours_are_refused(child: Sandbox, tmp_path: Path, container: str) -> None:
    path = tmp_path / "x"
    if container == "mp4":
        path.write_bytes(hostile.encode("mp4", step=1500.0))
    else:
        path.write_bytes(hostile.with_hours(valid("matroska"), 10))
    with pytest.raises(SourceError, match="claims 36000 s|claims 3750. s"):
        child.call("tests.hostile:look", str(path))


PLAYLISTS = {
    "m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{url}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile {url}\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "xspf": '<?xml version="1.0"?><playlist version="1" xmlns="http://xspf.org/ns/0/">'
    "<trackList><track><location>{url}</location></track></trackList></playlist>",
    "mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
    'mediaPresentationDuration="PT9S"><Period><AdaptationSet mimeType="video/mp4">'
    '<Representation id="1" bandwidth="1"><BaseURL>{url}</BaseURL><SegmentBase/>'
    "</Representation></AdaptationSet></Period></MPD>",
}


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("kind", [*PLAYLISTS, "rmra"])
@pytest.mark.parametrize("target", ["http", "file"])
def test_a_playlist_leads_nowhere(
    child: Sandbox, listener: Callable[[], int], tmp_path: Path, kind: str, suffix: str, target: str
) -> None:
    port = listener()
    (tmp_path / "secret.ts").write_bytes(valid("mpegts"))
    url = {"http": f"http://127.0.0.1:{port}/x.ts", "file": f"file://{tmp_path}/secret.ts"}[target]
    if (kind, target) == ("concat", "file"):
        url = "secret.ts"  # all that FFmpeg's own caution lets a list name
    path = tmp_path / f"x.{suffix}"
    if kind == "rmra":
        path.write_bytes(hostile.reference_movie(url.encode()))
    else:
        path.write_text(PLAYLISTS[kind].format(url=url, port=port))
    with pytest.raises(SourceError, match=f"x.{suffix}: (not a video|has no picture)"):
        child.call("tests.hostile:look", str(path))


@pytest.mark.parametrize("target", ["http", "file"])
def test_an_mp4_whose_samples_are_elsewhere_gives_none(
    child: Sandbox, listener: Callable[[], int], tmp_path: Path, target: str
) -> None:
    """The samples that it points to are valid, at the same places of a file beside it."""
    (tmp_path / "secret.mp4").write_bytes(valid("mp4"))
    url = {"http": f"http://127.0.0.1:{listener()}/x.mp4", "file": f"file://{tmp_path}/secret.mp4"}
    path = tmp_path / "x.mp4"
    whole = hostile.with_reference(valid("mp4"), url[target].encode())
    start = whole.find(b"mdat") + 4
    end = whole.find(b"moov") - 4
    path.write_bytes(whole[:start] + bytes(end - start) + whole[end:])
    with pytest.raises(SourceError, match="no frame of its picture|not a video"):
        child.call("tests.hostile:look", str(path))


NO_VIDEOS = {
    "zip.mp4": b"PK\3\4" + bytes(3000),
    "elf.mp4": b"\x7fELF\2\1\1" + bytes(3000),
    "text.mkv": b"I am no video.\n" * 100,
    "one.mp4": b"\0",
    "zeros.avi": bytes(100_000),
    "ones.mpg": b"\xff" * 100_000,
}


@pytest.mark.parametrize("name", NO_VIDEOS)
def test_other_files_are_named_so(child: Sandbox, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(NO_VIDEOS[name])
    with pytest.raises(SourceError, match=f"{name}: (not a video|has no picture)"):
        child.call("tests.hostile:look", str(path))


def test_what_is_no_file_is_not_opened(child: Sandbox, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.mp4")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "zero.mp4").symlink_to("/dev/zero")
    (tmp_path / "lost.mp4").symlink_to(tmp_path / "nothing")
    for path in [*tmp_path.iterdir(), Path("/dev/null")]:
        with pytest.raises(SourceError, match=f"{path.name}: no such file"):
            child.call("tests.hostile:look", str(path))


@pytest.mark.parametrize(
    "name",
    ["new\nline.mp4", "ünïcödé 話す.mp4", "concat:a.mp4", "-i.mp4", "b%05d.mp4", "\udcff.mp4"],
)
def test_any_name_is_a_name(child: Sandbox, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(valid("mp4"))
    (tmp_path / "link.mp4").symlink_to(path)
    assert child.call("tests.hostile:look", str(path)) == [30, 16000]
    assert child.call("tests.hostile:look", str(tmp_path / "link.mp4")) == [30, 16000]


def test_a_name_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("concat:a.mp4", "subfile,,start,0,end,9,,:a.mp4", "http:a.mp4"):
        Path(name).write_bytes(valid("mp4"))
        assert hostile.look(name) == [30, 16000]


def test_an_attached_file_stays_where_it_is(child: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "in" / "x.mkv"
    path.parent.mkdir()
    path.write_bytes(hostile.with_attachment(valid("matroska"), "../out.txt"))
    assert child.call("tests.hostile:look", str(path))[0] == 30
    assert [*tmp_path.rglob("*.*")] == [path]


def test_thousands_of_streams_are_refused(child: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "x.mp4"
    for count in (900, 20_000):
        path.write_bytes(hostile.with_streams(valid("mp4"), count))
        with pytest.raises(SourceError, match="not a video"):
            child.call("tests.hostile:look", str(path))
    assert peak(child) < LIMIT / 2


@pytest.mark.parametrize(("channels", "rate"), [(255, 16000), (60_000, 16000), (1, 2**31 - 1)])
def test_absurd_sound_is_no_sound(child: Sandbox, tmp_path: Path, channels: int, rate: int) -> None:
    path = tmp_path / "x.avi"
    path.write_bytes(hostile.with_sound(motion_jpeg(), channels, rate))
    with contextlib.suppress(SourceError):
        assert child.call("tests.hostile:look", str(path))[1] == 0
    assert peak(child) < LIMIT


HARMS = {
    "abort": r"crashed its process \(SIGABRT\)",
    "hang": "made no progress for 2 s",
    "memory": "needs more than its limit of 400 MiB memory",
}


@pytest.mark.parametrize("kind", HARMS)
def test_a_decoder_with_a_bug_ends_in_a_sentence(kind: str) -> None:
    child = Measured(400 * MEBIBYTE, 2 if kind == "hang" else 60, modules=["tests"])
    with child, pytest.raises(SandboxError, match=HARMS[kind]):
        child.call("tests.hostile:harm", kind)
    assert child.peak < LIMIT


@pytest.mark.parametrize("container", ["mp4", "matroska", "avi", "mpeg"])
def test_damage_ends_in_a_sentence_or_is_passed_over(
    child: Sandbox, tmp_path: Path, container: str
) -> None:
    random = np.random.default_rng(3)
    path = tmp_path / f"x.{container}"
    outcomes = []
    for _ in range(15):
        path.write_bytes(hostile.damaged(valid(container), random))
        try:
            ticks, samples = child.call("tests.hostile:look", str(path))
            outcomes.append("decoded")
            assert ticks <= 40 * 30 and samples <= 40 * 16000
        except S2VError as error:
            assert not isinstance(error, SandboxError), error
            outcomes.append("refused")
    assert "decoded" in outcomes
    assert peak(child) < LIMIT


class Buggy(Measured):
    """A child whose decoder has the bug that a video is named after."""

    def call(self, function: str, *args: Any) -> Any:
        kind = Path(args[0]).stem
        if kind in HARMS and function == "s2vgan.spans:extract_span":
            return super().call("tests.hostile:harm", kind)
        return super().call(function, *args)


def test_a_job_goes_on_whatever_its_sources_do(
    tmp_path: Path, listener: Callable[[], int], make_video: MakeVideo, face: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Each source has a row that says why; the one good video between them has its groups."""
    folder, data = tmp_path / "in", tmp_path / "data"
    make_video("in/m.mp4", talk(face, [n / 30 for n in range(30)]), impulse(1.1, 0.5, 16000))
    files = {name: make() for name, make in (GIANTS | GROWING).items()} | NO_VIDEOS
    url = f"http://127.0.0.1:{listener()}/x.ts"
    for kind, text in PLAYLISTS.items():
        files[f"{kind}.mp4"] = text.format(url=url, port=listener()).encode()
    files["rmra.mp4"] = hostile.reference_movie(url.encode())
    files["dref.mp4"] = hostile.with_reference(valid("mp4"), url.encode())
    files["hours.mkv"] = hostile.with_hours(valid("matroska"), 10)
    files["streams.mp4"] = hostile.with_streams(valid("mp4"), 20_000)
    files["channels.avi"] = hostile.with_sound(motion_jpeg(), 255, 16000)
    files["rate.avi"] = hostile.with_sound(motion_jpeg(), 1, 2**31 - 1)
    files["new\nline ü.mp4"] = valid("mp4")
    for number, kind in enumerate(HARMS):
        files[f"{kind}.mp4"] = valid("mp4") + hostile.box(b"free", bytes(number + 1))
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "link.mp4").symlink_to(folder / "m.mp4")
    os.mkfifo(tmp_path / "fifo.mp4")

    with Buggy(400 * MEBIBYTE, silence=8, modules=["tests", "s2vgan"]) as child:
        monkeypatch.setattr(stages, "child", lambda: child)
        info = extract.run([str(folder), str(tmp_path / "fifo.mp4"), "/dev/zero"], data, workers=0)
    assert MEBIBYTE < child.peak < LIMIT

    rows = {Path(row.source).name: row for row in ledger.read_rows(data).values()}
    assert info.groups == {(rows.get("m.mp4") or rows["link.mp4"]).video_id: 10}
    for name in files:
        assert rows[name].reason and rows[name].status in ("rejected", "failed", "empty"), name
    for name in ("fifo.mp4", "zero"):
        assert rows[name].status == "failed" and "no such file" in rows[name].reason
    for name in [*GIANTS, *NO_VIDEOS, "hours.mkv", "streams.mp4", "rmra.mp4"]:
        assert rows[name].status == "rejected", name
    for kind, words in HARMS.items():
        assert rows[f"{kind}.mp4"].status == "failed"
        assert re.search(words.replace("2 s", "8 s"), rows[f"{kind}.mp4"].reason)
    assert sum(info.videos.values()) == len(files) + 3
