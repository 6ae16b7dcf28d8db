import dataclasses
import os
import time
from multiprocessing.pool import ThreadPool
from pathlib import Path

import pytest

from pipelines import archive, download, fetching
from pipelines.policy import Policy
from s2vgan.errors import SourceError

LINK = "https://www.youtube.com/watch?v=abc"


@pytest.mark.parametrize(
    "link",
    [
        "http://www.youtube.com/watch?v=abc",
        "https://example.com/watch?v=abc",
        "https://www.youtube.com.evil.example/watch",
        "https://rr1.googlevideo.com/videoplayback",  # videos lie there, pages do not
        "https://user@www.youtube.com/watch?v=abc",
        "https://www.youtube.com:8443/watch?v=abc",
        "https://www.youtube.com:port/watch?v=abc",
        "https://[www.youtube.com/watch",
        "file:///etc/passwd",
        "--exec=touch /tmp/x",
    ],
)
def test_other_links_are_refused_before_anything_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: str
) -> None:
    monkeypatch.setattr(fetching, "download", lambda *_: pytest.fail("was asked for"))
    with pytest.raises(SourceError, match="only https"):
        download.fetch(link, tmp_path)
    record = archive.read_record(link, tmp_path)
    assert record is not None and record.status == "failed" and "only https" in record.reason


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://www.youtube.com/youtubei/v1/player", True),
        ("https://youtu.be/abc", True),
        ("https://rr3---sn-abc.googlevideo.com/videoplayback?x=1", True),
        ("https://googlevideo.com:443/", True),
        ("https://notgooglevideo.com/", False),
        ("https://googlevideo.com.evil.example/", False),
        ("https://evil.example/?googlevideo.com", False),
        ("https://evil.example#.googlevideo.com", False),
        ("https://x@googlevideo.com/", False),
        ("http://www.youtube.com/", False),
        ("ftp://www.youtube.com/", False),
        ("file:///etc/passwd", False),
        ("https:///etc/passwd", False),
        ("data:text/plain,x", False),
        ("https://169.254.169.254/latest/meta-data", False),
        ("https://[::1]/", False),
    ],
)
def test_what_may_be_read(url: str, allowed: bool) -> None:
    if allowed:
        Policy().check_url(url)
    else:
        with pytest.raises(SourceError, match="not allowed"):
            Policy().check_url(url)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("ERROR: [youtube] x: Private video. Sign in if you've been granted access", "private"),
        ("ERROR: [youtube] x: Video unavailable. This video is private", "private"),
        ("ERROR: [youtube] x: Sign in to confirm your age. This video may be", "--cookies"),
        ("ERROR: [youtube] x: Sign in to confirm you’re not a bot. Use --cookies", "robot"),
        ("ERROR: [youtube] x: Join this channel to get access to members-only", "--cookies"),
        ("ERROR: [youtube] x: This live event will begin in 3 hours.", "live"),
        ("ERROR: [youtube] x: Premieres in 2 days", "live"),
        ("ERROR: [youtube] x: Video unavailable. This video has been removed", "not available"),
        ("ERROR: [youtube] x: This video is not available in your country", "not available"),
        ("ERROR: No suitable extractor found for URL https://youtube.com/@x", "single videos"),
        ("ERROR: [youtube] x: Requested format is not available. Use --list", "ffmpeg"),
        ("ERROR: unable to download video data: HTTP Error 403: Forbidden", "update yt-dlp"),
        ("ERROR: something else about the current member", ""),
    ],
)
def test_meanings(said: str, meant: str) -> None:
    found = fetching.meaning(said)
    assert meant in found and bool(found) == bool(meant)


def test_what_yt_dlp_is_told(tmp_path: Path) -> None:
    pytest.importorskip("yt_dlp")
    told = fetching.options(tmp_path, Policy())
    assert told["allowed_extractors"] == ["youtube"] and told["noplaylist"]
    assert "protocol=https" in told["format"] and told["cookiefile"] is None
    wanted = told["match_filter"]
    assert wanted({"duration": 10}) is None and wanted({}, incomplete=True) is None
    for unfit, why in (
        ({"duration": 10**6}, "limit is 14400 s"),
        ({"is_live": True}, "live"),
        ({"live_status": "is_upcoming"}, "yet to come"),
    ):
        with pytest.raises(fetching.Unfit, match=why):
            wanted(unfit)


def format_of(width: int, height: int, **others: object) -> dict[str, object]:
    return {
        "format_id": f"{width}x{height}{others.get('fps', '')}", "url": "https://localhost/x",
        "ext": "mp4", "protocol": "https", "width": width, "height": height, **others,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("formats", "chosen"),
    [
        ([(640, 360), (1280, 720), (1920, 1080)], "1280x720"),
        ([(360, 640), (720, 1280), (1080, 1920)], "720x1280"),  # upright
        ([(640, 360), (3840, 2160)], "640x360"),
    ],
)
def test_real_yt_dlp_takes_at_most_720_lines(
    tmp_path: Path, formats: list[tuple[int, int]], chosen: str
) -> None:
    yt_dlp = pytest.importorskip("yt_dlp")
    found = [format_of(*size) for size in formats]
    found.append(format_of(1280, 720) | {"protocol": "m3u8_native", "format_id": "playlist"})
    found.append(format_of(1280, 720) | {"protocol": "http", "format_id": "plain"})
    info = {"id": "x", "title": "x", "formats": found, "extractor": "x", "webpage_url": LINK}
    with yt_dlp.YoutubeDL(fetching.options(tmp_path / "a%b", Policy())) as client:
        result = client.process_video_result(info, download=False)
        assert result["format_id"] == chosen and result["protocol"] == "https"
        path = Path(client.prepare_filename(result))
    assert path == tmp_path / "a%b" / f"{chosen}.mp4"


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    found = tmp_path / "18.MP4"
    found.write_bytes(b"video")
    (tmp_path / "videos").mkdir()
    return archive.keep(LINK, found, tmp_path / "videos")


def test_a_video_is_there_as_long_as_it_is_what_was_fetched(kept: Path) -> None:
    out = kept.parent
    assert kept.name == f"{archive.stem(LINK)}.mp4" and archive.present(LINK, out) == kept
    assert archive.present(LINK + "d", out) is None
    modified = kept.stat().st_mtime_ns
    os.utime(kept, (1, 1))  # as a copy without its time
    assert archive.present(LINK, out) == kept
    kept.write_bytes(b"other")  # of the same length
    assert archive.present(LINK, out) is None
    kept.write_bytes(b"vid")  # as a disk that lost the end
    os.utime(kept, ns=(modified, modified))
    assert archive.present(LINK, out) is None
    kept.unlink()
    assert archive.present(LINK, out) is None


def test_the_archive_says_what_became_of_a_link(kept: Path) -> None:
    out = kept.parent
    record = archive.read_record(LINK, out)
    assert record is not None and (record.link, record.status, record.size) == (LINK, "ok", 5)
    archive.note_failure(LINK, "is private.", out)
    assert archive.present(LINK, out) == kept  # a refusal does not undo it
    kept.unlink()
    archive.note_failure(LINK, "is private.", out)
    record = archive.read_record(LINK, out)
    assert record is not None and (record.status, record.reason) == ("failed", "is private.")
    (out / archive.ARCHIVE / f"{archive.stem(LINK)}.json").write_text("{")
    assert archive.read_record(LINK, out) is None


def test_a_record_names_no_file_elsewhere(kept: Path, tmp_path: Path) -> None:
    path = kept.parent / archive.ARCHIVE / f"{archive.stem(LINK)}.json"
    path.write_text(path.read_text().replace(kept.name, f"../{kept.name}"))
    assert archive.present(LINK, kept.parent) == kept


def test_what_a_killed_process_left_is_not_used(tmp_path: Path) -> None:
    with archive.alone(LINK, tmp_path) as folder:
        (folder / "18.mp4").write_bytes(b"half")
        (folder / "deep").mkdir()
        with archive.alone(LINK + "d", tmp_path) as other:  # another link waits for nobody
            assert other != folder
    assert not list(folder.parent.iterdir())
    (folder / "deep").mkdir(parents=True)
    (folder / "18.mp4").write_bytes(b"half")
    with archive.alone(LINK, tmp_path) as again:
        assert again == folder and not list(again.iterdir())


def test_cookies(tmp_path: Path) -> None:
    policy = Policy(cookies=tmp_path / "cookies.txt")
    with pytest.raises(SourceError, match="not a cookie file"):
        fetching.read_cookies(policy)
    (tmp_path / "cookies.txt").write_text("# Netscape HTTP Cookie File\n")
    assert fetching.read_cookies(policy) is not None


def test_without_yt_dlp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pipelines.guard", None)
    monkeypatch.delattr("pipelines.guard", raising=False)
    with pytest.raises(SourceError, match=r"needs yt-dlp; install it with .*\[download\]"):
        download.fetch(LINK, tmp_path)


def test_main(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, Policy]] = []

    def fake(link: str, folder: Path, policy: Policy, progress: object) -> Path:
        asked.append((link, policy))
        if "bad" in link:
            raise SourceError(f"{link}: is private.")
        (folder / "18.mp4").write_bytes(b"video")
        return folder / "18.mp4"

    monkeypatch.setattr(fetching, "download", fake)
    path, out = tmp_path / "list.txt", tmp_path / "videos"
    path.write_text(
        f"# talks\n{LINK} 1:00-2:00\n{LINK} 3:00-\n{LINK}bad\nhttps://example.com/x\nlocal.mp4\n"
        "s3://bucket/x\n"
    )
    command = [str(path), "--out", str(out), "--sleep", "1", "--retries", "7", "--jobs", "2"]
    assert download.main(command) == 0
    output = capsys.readouterr().out
    assert "ok             1" in output and "failed         2" in output
    assert f"failed: {LINK}bad: is private." in output and "only https" in output
    assert {link for link, _ in asked} == {LINK, f"{LINK}bad"}
    assert asked[0][1] == dataclasses.replace(Policy(), retries=7, pause=(1.0, 3.0))

    asked.clear()
    assert download.main(command) == 0
    assert "kept           1" in capsys.readouterr().out
    assert [link for link, _ in asked] == [f"{LINK}bad"]

    path.write_text(f"{LINK}bad\n")
    assert download.main(command) == 2
    path.write_text("# nothing\n")
    assert download.main(command) == 2 and "holds no link" in capsys.readouterr().err
    assert download.main([str(tmp_path / "none.txt"), "--out", str(out)]) == 2
    assert download.main([*command, "--cookies", str(tmp_path / "none")]) == 2
    assert "cookie file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        download.main([*command, "--jobs", "0"])


def test_an_interrupt_ends_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "fetch_all", interrupted)
    (tmp_path / "list.txt").write_text(LINK)
    assert download.main([str(tmp_path / "list.txt"), "--out", str(tmp_path)]) == 130
    assert "goes on with what is missing" in capsys.readouterr().err


def test_one_at_a_time_uses_a_links_folder(tmp_path: Path) -> None:
    inside: list[int] = []
    crowds: list[int] = []

    def enter(number: int) -> None:
        for _ in range(20):
            with archive.alone(LINK, tmp_path) as folder:
                inside.append(number)
                (folder / "18.mp4").write_bytes(b"x")
                time.sleep(0.001)
                crowds.append(len(inside) if (folder / "18.mp4").exists() else 0)
                inside.remove(number)

    with ThreadPool(6) as pool:
        pool.map(enter, range(6))
    assert crowds == [1] * 120
