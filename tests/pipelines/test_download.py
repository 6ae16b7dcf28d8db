from pathlib import Path
from typing import Any

import pytest

from pipelines import download
from s2vgan.errors import SourceError

LINK = "https://www.youtube.com/watch?v=abc"


@pytest.mark.parametrize(
    "link",
    [
        "http://www.youtube.com/watch?v=abc",
        "https://example.com/watch?v=abc",
        "https://www.youtube.com.evil.example/watch",
        "https://user@www.youtube.com/watch?v=abc",
        "https://www.youtube.com:8443/watch?v=abc",
        "https://www.youtube.com:port/watch?v=abc",
        "file:///etc/passwd",
        "--exec=touch /tmp/x",
    ],
)
def test_other_links_are_refused_before_anything_happens(tmp_path: Path, link: str) -> None:
    with pytest.raises(SourceError, match="only https|not a link"):
        download.fetch(link, tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Client:
    """Stands in for yt-dlp: writes the file that its options name."""

    given: dict[str, Any] = {}
    asked: list[str] = []
    writes = True

    def __init__(self, options: dict[str, Any]) -> None:
        Client.given = options

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def extract_info(self, link: str, download: bool) -> None:
        Client.asked.append(link)
        if Client.writes:
            Path(Client.given["outtmpl"]["default"] % {"ext": "mp4"}).write_bytes(b"video")


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> type[Client]:
    yt_dlp = pytest.importorskip("yt_dlp")
    monkeypatch.setattr(yt_dlp, "YoutubeDL", Client)
    Client.asked, Client.writes = [], True
    return Client


def test_a_link_is_fetched_once(tmp_path: Path, client: type[Client]) -> None:
    first = download.fetch(LINK, tmp_path)
    assert first.read_bytes() == b"video" and first.parent == tmp_path
    assert download.fetch(LINK, tmp_path) == first
    assert client.asked == [LINK]
    assert download.fetch(LINK + "d", tmp_path) != first


def test_what_yt_dlp_is_told(tmp_path: Path, client: type[Client]) -> None:
    download.fetch(LINK, tmp_path, cookies=tmp_path / "cookies.txt")
    told = client.given
    assert "height<=720" in told["format"] and told["noplaylist"]
    assert told["allowed_extractors"] == ["youtube"]
    assert told["cookiefile"] == str(tmp_path / "cookies.txt")
    other = download.options(LINK + "&x=--exec", tmp_path)
    changed = {key for key in told if told[key] != other[key]}
    assert changed <= {"outtmpl", "cookiefile"}  # nothing else depends on the link
    assert told["match_filter"]({"duration": 10}) is None
    assert "longer" in told["match_filter"]({"duration": 10**6})
    assert "live" in told["match_filter"]({"is_live": True})


def test_real_yt_dlp_knows_these_options(tmp_path: Path) -> None:
    yt_dlp = pytest.importorskip("yt_dlp")
    with yt_dlp.YoutubeDL(download.options(LINK, tmp_path)) as client:
        name = client.prepare_filename({"id": "abc", "title": "x", "ext": "mp4"})
    assert name == str(tmp_path / f"{download.stem(LINK)}.mp4")


def test_main(tmp_path: Path, client: type[Client], capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"# talks\n{LINK}\nhttps://example.com/x\nlocal.mp4\n")
    assert download.main([str(path), "--out", str(tmp_path / "videos")]) == 0
    output = capsys.readouterr()
    assert LINK in output.out and "only https" in output.err
    client.writes = False
    path.write_text(f"{LINK}&other\n")
    assert download.main([str(path), "--out", str(tmp_path / "videos")]) == 2
    assert "gave no video" in capsys.readouterr().err
    path.write_text("# nothing\n")
    assert download.main([str(path), "--out", str(tmp_path / "videos")]) == 2
    assert download.main([str(tmp_path / "none.txt"), "--out", str(tmp_path)]) == 2
