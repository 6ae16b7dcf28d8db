from pathlib import Path

import pytest

from pipelines.sources import read_list, resolve
from s2vgan.errors import SourceError
from s2vgan.source import Source


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def named(*sources: Path | str) -> tuple[str, ...]:
    """Locations of what whole sources give."""
    found = resolve([str(source) for source in sources]).videos
    assert all(video == Source(video.location) for video in found)
    return tuple(video.location for video in found)


def test_files_folders_and_globs(tmp_path: Path) -> None:
    a, b, c = tmp_path / "a.mp4", tmp_path / "in" / "b.MKV", tmp_path / "in" / "deep" / "c.webm"
    touch(a, b, c, tmp_path / "in" / "notes.md")
    assert named(tmp_path / "in") == (str(b), str(c))
    assert named(tmp_path / "*.mp4") == (str(a),)
    found = resolve([str(a), str(tmp_path), str(tmp_path / "none.mp4")])
    assert found.videos == tuple(Source(str(path)) for path in (a, b, c))  # each once
    assert found.missing == (Source(str(tmp_path / "none.mp4")),)


def test_a_glob_gives_videos_and_those_in_folders(tmp_path: Path) -> None:
    a, b, c = tmp_path / "x" / "a.mp4", tmp_path / "x" / "deep" / "b.mp4", tmp_path / "x" / "clip"
    touch(a, b, c, tmp_path / "x" / "notes.md", tmp_path / "x" / "deep" / "notes.md")
    (tmp_path / "x" / "empty.mp4").mkdir()
    assert named(tmp_path / "x" / "*") == (str(a), str(b))
    assert named(c) == (str(c),)


def test_a_name_without_a_suffix_is_taken_as_it_is(tmp_path: Path) -> None:
    touch(tmp_path / "clip")
    assert named(tmp_path / "clip") == (str(tmp_path / "clip"),)


def test_what_is_hidden_is_left_alone(tmp_path: Path) -> None:
    a = tmp_path / ".home" / "a.mp4"  # hidden is what lies inside
    touch(a, a.parent / ".partial" / "x" / "18.mp4", a.parent / "._a.mp4")
    assert named(a.parent) == (str(a),)
    assert named(f"file://{a.parent}") == (f"file://{a}",)


def test_list(tmp_path: Path) -> None:
    touch(tmp_path / "videos" / "a.mp4", tmp_path / "videos" / "b#1.mp4")
    path = tmp_path / "list.txt"
    path.write_text(
        "\ufeff# what to take\n\nvideos/a.mp4   # a comment\n  videos/b#1.mp4\t# another\r\n"
        "https://youtu.be/abc#t=3\nhttps://youtu.be/abc#t=3\n/none.mp4\nhttp://other\n"
    )
    assert [Path(entry.location).name for entry in read_list(path)[:2]] == ["a.mp4", "b#1.mp4"]
    found = resolve([str(path)])
    assert [(Path(video.location).name, video.is_link) for video in found.videos] == [
        ("a.mp4", False), ("b#1.mp4", False), ("abc#t=3", True), ("other", True),
    ]  # fmt: skip
    assert found.missing == (Source("/none.mp4"),)


@pytest.mark.parametrize(
    ("times", "start", "end"),
    [
        ("12.5-60", 12.5, 60),
        ("0:30-2:15", 30, 135),
        ("1:02:03-", 3723, None),
        ("-90", 0, 90),
        (".5-1:00.25", 0.5, 60.25),
        ("75-1:30", 75, 90),
        ("0-100:00", 0, 6000),
    ],
)
def test_times(tmp_path: Path, times: str, start: float, end: float | None) -> None:
    touch(tmp_path / "a talk.mp4")
    path = tmp_path / "list.txt"
    path.write_text(f"a talk.mp4   {times}  # why\nhttps://youtu.be/abc {times}\n")
    assert resolve([str(path)]).videos == (
        Source(str(tmp_path / "a talk.mp4"), start, end),
        Source("https://youtu.be/abc", start, end),
    )


def test_times_of_a_folder_are_those_of_its_videos(tmp_path: Path) -> None:
    touch(tmp_path / "in" / "a.mp4", tmp_path / "in" / "b.mp4")
    a, b = str(tmp_path / "in" / "a.mp4"), str(tmp_path / "in" / "b.mp4")
    path = tmp_path / "list.txt"
    path.write_text("in 5-10\nin/*.mp4 5-10\nin/a.mp4 20-30\nin/a.mp4\nnone.mp4 1-2\n")
    found = resolve([str(path)])
    assert found.videos == (Source(a, 5, 10), Source(b, 5, 10), Source(a, 20, 30), Source(a))
    assert found.missing == (Source(str(tmp_path / "none.mp4"), 1, 2),)
    assert found.expanded == (
        Source(str(tmp_path / "in"), 5, 10), Source(str(tmp_path / "in" / "*.mp4"), 5, 10),
    )  # fmt: skip


def test_a_name_that_looks_like_times_is_a_name(tmp_path: Path) -> None:
    names = ["talks 2020-2021/a.mp4", "10-20.mp4", "with - dashes 3-5.mp4", "take 2 - 7/b.mp4"]
    touch(*(tmp_path / name for name in names))
    path = tmp_path / "list.txt"
    path.write_text(
        "talks 2020-2021\n10-20.mp4\nwith - dashes 3-5.mp4\ntake 2 - 7\nwith - dashes 3-5.mp4 1-2\n"
    )
    assert resolve([str(path)]).videos == (
        *(Source(str(tmp_path / name)) for name in names),
        Source(str(tmp_path / names[2]), 1, 2),
    )


@pytest.mark.parametrize(
    "times",
    ["60-12", "5-5", "12.5", "-", "1:75-2:00", "1:60:00-", "1:2:3:4-9", "1-2-3", "12s-60s",
     "0:30\u20132:15", "--5", "1.2.3-4", "1,5-3"],
)  # fmt: skip
def test_times_that_are_none(tmp_path: Path, times: str) -> None:
    touch(tmp_path / "a.mp4")
    path = tmp_path / "list.txt"
    path.write_text(f"a.mp4\n\na.mp4 {times}\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"list\.txt, line 3: .* no stretch of time; .*12\.5-60"):
        resolve([str(path)])


def test_urls_are_listed(tmp_path: Path) -> None:
    touch(tmp_path / "in" / "b.mp4", tmp_path / "in" / "a.mp4", tmp_path / "in" / "x.json")
    base = f"file://{tmp_path}/in"
    assert named(base) == (f"{base}/a.mp4", f"{base}/b.mp4")
    assert named(f"{base}/b.mp4") == (f"{base}/b.mp4",)


def test_nothing_to_extract_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none\.mp4.*nothing to extract"):
        resolve([str(tmp_path / "none.mp4")])
    with pytest.raises(SourceError, match="nothing to extract"):
        resolve([str(tmp_path)])
    with pytest.raises(SourceError, match="not a list"):
        resolve([str(tmp_path / "none.txt")])
    with pytest.raises(SourceError, match="cannot be listed"):
        resolve(["nosuch://bucket/a.mp4"])
