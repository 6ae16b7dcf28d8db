"""Downloads with the real yt-dlp from a local HTTPS server that serves real clips, and behaves."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipelines import archive, download
from s2vgan import media
from s2vgan.errors import SourceError
from tests.website import Handler, Site, begin, files, in_turn, status, whole

pytest.importorskip("yt_dlp")


def test_a_video_is_fetched_once(site: Site, body: bytes, tmp_path: Path) -> None:
    link = site.link("a.mkv", whole(body))
    counted: list[int] = []
    path = download.fetch(link, tmp_path, site.policy, counted.append)
    assert path.read_bytes() == body and sum(counted) == len(body)
    assert media.probe(path).width == 64
    asked = len(site.asked)
    assert asked == 2  # what is it, and what is in it
    (tmp_path / ".partial").rmdir()
    assert download.fetch(link, tmp_path, site.policy) == path
    assert len(site.asked) == asked and not (tmp_path / ".partial").exists()
    with path.open("r+b") as file:
        file.truncate(100)
    assert download.fetch(link, tmp_path, site.policy).read_bytes() == body
    path.unlink()
    assert download.fetch(link, tmp_path, site.policy).read_bytes() == body
    assert len(site.asked) == 3 * asked
    assert files(tmp_path) == [path.name]


@pytest.mark.real_clips
@pytest.mark.parametrize("name", ["fps60.mp4", "opus.mkv", "vp8_opus.webm", "mpeg4_mp3.avi"])
def test_real_clips(site: Site, clips: Path, tmp_path: Path, name: str) -> None:
    body = (clips / "edge" / name).read_bytes()
    path = download.fetch(site.link(name, whole(body)), tmp_path, site.policy)
    assert path.read_bytes() == body and path.suffix == Path(name).suffix


def test_failures_of_the_network_are_tried_again(site: Site, body: bytes, tmp_path: Path) -> None:
    busy = in_turn(status(500), status(503), whole(body))
    path = download.fetch(site.link("a.mkv", busy), tmp_path, site.policy)
    assert path.read_bytes() == body and len(site.asked) == 4
    site.asked.clear()
    with pytest.raises(SourceError, match=r"network failed 3 times .*502.*try again later"):
        download.fetch(site.link("b.mkv", status(502)), tmp_path, site.policy)
    assert len(site.asked) == 3


def test_a_missing_video_is_not_asked_for_again_before_the_next_run(
    site: Site, body: bytes, tmp_path: Path
) -> None:
    link = site.link("a.mkv", in_turn(status(404), whole(body)))
    with pytest.raises(SourceError, match="not available"):
        download.fetch(link, tmp_path, site.policy)
    assert len(site.asked) == 1
    assert download.fetch(link, tmp_path, site.policy).read_bytes() == body


def test_what_breaks_off_is_continued(site: Site, body: bytes, tmp_path: Path) -> None:
    half = len(body) // 2
    link = site.link("a.mkv", in_turn(whole(body), whole(body, stop=half), whole(body)))
    assert download.fetch(link, tmp_path, site.policy).read_bytes() == body
    assert site.asked[-1] == ("/a.mkv", f"bytes={half}-")
    assert len(files(tmp_path)) == 1


def test_half_a_video_is_never_taken_for_one(site: Site, body: bytes, tmp_path: Path) -> None:
    def chunk(to: Handler) -> None:
        begin(to, None, Transfer_Encoding="chunked")
        to.wfile.write(b"%x\r\n%s\r\n" % (len(body) // 2, body[: len(body) // 2]))

    def no_length(to: Handler) -> None:
        begin(to, None)
        to.wfile.write(body[: len(body) // 2])

    for number, answer in enumerate((whole(body, stop=len(body) // 2), chunk)):
        link = site.link(f"{number}.mkv", in_turn(whole(body), answer))
        with pytest.raises(SourceError, match="network failed 3 times"):
            download.fetch(link, tmp_path, site.policy)
    with pytest.raises(SourceError, match="without its length"):
        download.fetch(site.link("c.mkv", no_length), tmp_path, site.policy)
    assert not files(tmp_path)


def test_too_large(site: Site, body: bytes, tmp_path: Path) -> None:
    sent: list[int] = []

    def claims(to: Handler) -> None:
        begin(to, 10**12)
        to.wfile.write(body)

    def lies(to: Handler) -> None:
        begin(to, None, Transfer_Encoding="chunked")
        while True:
            to.wfile.write(b"1000\r\n" + bytes(0x1000) + b"\r\n")
            sent.append(0x1000)

    policy = dataclasses.replace(site.policy, max_bytes=1 << 20)
    for name, answer in (("a.mkv", claims), ("b.mkv", lies)):
        with pytest.raises(SourceError, match="larger than the limit of 1,048,576 bytes"):
            download.fetch(site.link(name, answer), tmp_path, policy)
    assert sum(sent) < 64 << 20 and not files(tmp_path)


def test_too_slow(site: Site, body: bytes, tmp_path: Path) -> None:
    done = threading.Event()

    def stalls(to: Handler) -> None:
        begin(to, len(body))
        to.wfile.write(body[:1000])
        done.wait(60)

    def trickles(to: Handler) -> None:
        begin(to, len(body))
        for byte in body:
            to.wfile.write(bytes([byte]))
            if done.wait(0.05):
                return

    quick = dataclasses.replace(site.policy, timeout=0.3, retries=1)
    with pytest.raises(SourceError, match=r"network failed 2 times \(.*timed out"):
        download.fetch(site.link("a.mkv", in_turn(whole(body), stalls)), tmp_path, quick)
    quick = dataclasses.replace(site.policy, max_wait=0.5)
    with pytest.raises(SourceError, match="not done after 0.5 s"):
        download.fetch(site.link("b.mkv", in_turn(whole(body), trickles)), tmp_path, quick)
    done.set()
    assert not files(tmp_path)


def test_what_is_no_video_is_not_kept(site: Site, tmp_path: Path) -> None:
    link = site.link("a.mp3", whole(b"sound" * 100, "audio/mpeg"))
    with pytest.raises(SourceError, match="can be taken|no video"):
        download.fetch(link, tmp_path, site.policy)
    assert not files(tmp_path)


def test_cookies(site: Site, body: bytes, tmp_path: Path) -> None:
    def guarded(to: Handler) -> None:
        if "session=42" in to.headers.get("Cookie", ""):
            begin(to, len(body), Set_Cookie="session=43; Secure")
            to.wfile.write(body)
        else:
            status(403)(to)

    link, cookies = site.link("a.mkv", guarded), tmp_path / "cookies.txt"
    with pytest.raises(SourceError, match="give --cookies"):
        download.fetch(link, tmp_path / "out", site.policy)
    text = "# Netscape HTTP Cookie File\nlocalhost.local\tFALSE\t/\tTRUE\t0\tsession\t42\n"
    cookies.write_text(text)
    site.answers["/a.mkv"] = in_turn(guarded, whole(body))
    policy = dataclasses.replace(site.policy, cookies=cookies)
    assert download.fetch(link, tmp_path / "out", policy).read_bytes() == body
    assert cookies.read_text() == text


def test_many_at_once_fetch_a_link_once(site: Site, body: bytes, tmp_path: Path) -> None:
    def slowly(to: Handler) -> None:
        time.sleep(0.2)
        whole(body)(to)

    link = site.link("a.mkv", slowly)
    results: list[Path] = []
    start = threading.Barrier(6)

    def one() -> None:
        start.wait()
        results.append(download.fetch(link, tmp_path, site.policy))

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6 and len(set(results)) == 1
    assert len(site.asked) == 2 and files(tmp_path) == [results[0].name]


@pytest.mark.chaos
def test_a_killed_download_leaves_nothing_that_counts(
    site: Site, body: bytes, tmp_path: Path
) -> None:
    halfway, done = threading.Event(), threading.Event()

    def stalls(to: Handler) -> None:
        begin(to, len(body))
        to.wfile.write(body[: len(body) // 2])
        halfway.set()
        done.wait(60)

    link = site.link("a.mkv", in_turn(whole(body), stalls, whole(body)))
    (tmp_path / "code.py").write_text(
        "import pathlib\nfrom pipelines import download\nfrom pipelines.policy import Policy\n"
        f"certificate = pathlib.Path({str(site.certificate)!r})\n"
        f"policy = Policy(hosts=('localhost',), servers=('localhost',), ports=({site.port},),\n"
        "    extractors=('generic',), private=True, certificate=certificate, pause=(0, 0))\n"
        f"download.fetch({link!r}, {str(tmp_path / 'out')!r}, policy)\n"
    )
    child = subprocess.Popen([sys.executable, str(tmp_path / "code.py")])
    try:
        assert halfway.wait(60)
        os.kill(child.pid, signal.SIGKILL)
    finally:
        child.kill()
        child.wait()
        done.set()
    assert archive.present(link, tmp_path / "out") is None
    assert all(".partial" in name for name in files(tmp_path / "out"))
    path = download.fetch(link, tmp_path / "out", site.policy)
    assert path.read_bytes() == body and files(tmp_path / "out") == [path.name]


def test_main(site: Site, body: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = [site.link(f"{number}.mkv", whole(body + bytes(number))) for number in range(3)]
    bad = site.link("bad.mkv", in_turn(status(404), whole(body)))
    (tmp_path / "list.txt").write_text("\n".join([*good, bad, "http://localhost/x"]))
    command = [str(tmp_path / "list.txt"), "--out", str(tmp_path / "out"), "--jobs", "2"]
    assert download.main(command, site.policy) == 0
    output = capsys.readouterr().out
    assert "ok             3" in output and f"failed: {bad}: is not available" in output
    site.asked.clear()
    assert download.main(command, site.policy) == 0
    assert "kept           3" in capsys.readouterr().out
    assert {path for path, _ in site.asked} == {"/bad.mkv"}
    site.asked.clear()
    assert download.main(command, site.policy) == 0
    assert not site.asked and len(files(tmp_path / "out")) == 4
    record = archive.read_record("http://localhost/x", tmp_path / "out")
    assert record is not None and "only https" in record.reason
