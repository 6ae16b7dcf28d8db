from pathlib import Path

import pytest

from pipelines.sources import read_list, resolve
from s2vgan.errors import SourceError


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def test_files_folders_and_globs(tmp_path: Path) -> None:
    a, b, c = tmp_path / "a.mp4", tmp_path / "in" / "b.MKV", tmp_path / "in" / "deep" / "c.webm"
    touch(a, b, c, tmp_path / "in" / "notes.md")
    assert resolve([str(tmp_path / "in")]).videos == (str(b), str(c))
    assert resolve([str(tmp_path / "*.mp4")]).videos == (str(a),)
    found = resolve([str(a), str(tmp_path), str(tmp_path / "none.mp4")])
    assert found.videos == (str(a), str(b), str(c))  # each once
    assert found.missing == (str(tmp_path / "none.mp4"),)


def test_a_glob_gives_videos_and_those_in_folders(tmp_path: Path) -> None:
    a, b, c = tmp_path / "x" / "a.mp4", tmp_path / "x" / "deep" / "b.mp4", tmp_path / "x" / "clip"
    touch(a, b, c, tmp_path / "x" / "notes.md", tmp_path / "x" / "deep" / "notes.md")
    (tmp_path / "x" / "empty.mp4").mkdir()
    assert resolve([str(tmp_path / "x" / "*")]).videos == (str(a), str(b))
    assert resolve([str(c)]).videos == (str(c),)


def test_a_name_without_a_suffix_is_taken_as_it_is(tmp_path: Path) -> None:
    touch(tmp_path / "clip")
    assert resolve([str(tmp_path / "clip")]).videos == (str(tmp_path / "clip"),)


def test_list(tmp_path: Path) -> None:
    touch(tmp_path / "videos" / "a.mp4", tmp_path / "videos" / "b#1.mp4")
    path = tmp_path / "list.txt"
    path.write_text(
        "# what to take\n\nvideos/a.mp4   # a comment\n  videos/b#1.mp4\r\n"
        "https://youtu.be/abc#t=3\nhttps://youtu.be/abc#t=3\n/none.mp4\n"
    )
    assert read_list(path)[:2] == ["videos/a.mp4", "videos/b#1.mp4"]
    found = resolve([str(path)])
    assert [Path(video).name for video in found.videos] == ["a.mp4", "b#1.mp4"]
    assert found.links == ("https://youtu.be/abc#t=3",)
    assert found.missing == ("/none.mp4",)


def test_urls_are_listed(tmp_path: Path) -> None:
    touch(tmp_path / "in" / "b.mp4", tmp_path / "in" / "a.mp4", tmp_path / "in" / "x.json")
    base = f"file://{tmp_path}/in"
    assert resolve([base]).videos == (f"{base}/a.mp4", f"{base}/b.mp4")
    assert resolve([f"{base}/b.mp4"]).videos == (f"{base}/b.mp4",)


def test_nothing_to_extract_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.mp4.*nothing to extract"):
        resolve([str(tmp_path / "none.mp4")])
    with pytest.raises(SourceError, match="nothing to extract"):
        resolve([str(tmp_path)])
    with pytest.raises(SourceError, match="not a list"):
        resolve([str(tmp_path / "none.txt")])
    with pytest.raises(SourceError, match="cannot be listed"):
        resolve(["nosuch://bucket/a.mp4"])
