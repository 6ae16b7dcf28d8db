"""The command line without Ray (--workers 0); tests/integration has it with Ray."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import download, extract
from pipelines.stages import Stages
from s2vgan import groups, ledger
from s2vgan.errors import SourceError
from s2vgan.extraction import Job
from tests.conftest import MakeVideo
from tests.test_extraction import talk
from tests.test_media import impulse


@pytest.fixture
def good(make_video: MakeVideo, face: np.ndarray) -> Path:
    frames = talk(face, [n / 30 for n in range(30)])
    return make_video("in/good.mp4", frames, impulse(1.1, 0.5, 16000))


def main(*arguments: object) -> int:
    return extract.main([*map(str, arguments), "--workers", "0"])


def test_some_bad_sources_do_not_matter(
    tmp_path: Path, good: Path, make_video: MakeVideo, face: np.ndarray,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    make_video("in/silent.mp4", talk(face, [0, 0.04]))
    (good.parent / "text.mp4").write_text("I am no video.\n")
    data = tmp_path / "data"
    assert main(good.parent, tmp_path / "none.mp4", "--out", data) == 0
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    for words in ("silent.mp4: has no sound", "text.mp4: not a video", "none.mp4: no such file"):
        assert words in said.out
    info = ledger.read_dataset(data)
    assert list(info.groups.values()) == [10]
    assert info.videos == {"failed": 1, "ok": 1, "rejected": 2}
    assert not list(data.rglob("*.tmp"))

    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    assert main(good.parent, "--out", data) == 0
    assert "3 of the videos were done or refused before" in capsys.readouterr().out
    assert before == {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}


def test_no_group_at_all_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    assert main(tmp_path / "empty.mp4", "--out", tmp_path / "data") == 2
    assert "no source gave a group: empty.mp4: the file is empty" in capsys.readouterr().err
    assert not ledger.has_dataset(tmp_path / "data")
    assert main(tmp_path / "none.mp4", "--out", tmp_path / "other") == 2
    assert "none.mp4: nothing to extract" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_the_reasons_name_their_sources(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, text in (("a.mp4", "text"), ("b.mp4", "other text"), ("empty.mp4", "")):
        (tmp_path / name).write_text(text)
    assert main(tmp_path, "--out", tmp_path / "data") == 2
    said = capsys.readouterr().err
    assert "group: a.mp4, b.mp4: not a video" in said and "; empty.mp4: the file is empty" in said


def test_a_copy_is_extracted_and_counted_once(
    tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (good.parent / "copy.mp4").write_bytes(good.read_bytes())
    done = []
    real = Stages.part

    def part(self: Stages, job: Job, number: int) -> dict[str, Any]:
        done.append(job.path)
        return real(self, job, number)

    monkeypatch.setattr(Stages, "part", part)
    for _ in range(2):
        assert main(good.parent, "--out", tmp_path / "data") == 0
        assert "ok               1        10" in capsys.readouterr().out
    assert len(done) == 1


def test_a_folder_that_cannot_be_is_a_sentence(
    tmp_path: Path, good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("I am no folder.\n")
    assert main(good, "--out", tmp_path / "file") == 2
    assert "is a file; give a folder" in capsys.readouterr().err
    assert main(good, tmp_path / "none.mp4", "--out", tmp_path / "file" / "data") == 2
    assert "the extraction stopped (" in capsys.readouterr().err


def test_wrong_arguments(tmp_path: Path, good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(good, "--out", tmp_path / "data", "--fps", "29") == 2
    assert "fps 29" in capsys.readouterr().err
    assert main(good, "--out", tmp_path / "data") == 0
    assert main(good, "--out", tmp_path / "data", "--size", "96") == 2
    assert "size 64 (asked for: 96)" in capsys.readouterr().err
    for arguments in ([], ["x.mp4"], ["x.mp4", "--out", "d", "--crop", "round"]):
        with pytest.raises(SystemExit) as exit_:
            extract.main(arguments)
        assert exit_.value.code == 2
    with pytest.raises(SystemExit):
        extract.main(["x.mp4", "--out", "d", "--workers", "-1"])


def test_other_specs(tmp_path: Path, good: Path) -> None:
    data = tmp_path / "data"
    assert main(good, "--out", data, "--fps", 25, "--size", 32, "--crop", "paper") == 0
    spec, table = groups.read_groups(data, next(iter(ledger.read_dataset(data).groups)))
    assert (spec.fps, spec.size, spec.crop, spec.samples_per_group) == (25, 32, "paper", 1920)
    assert groups.decode_frames(table, spec).shape[1:] == (3, 32, 32, 3)


def test_links_are_downloaded_first(
    tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(link: str, *_: object, **__: object) -> Path:
        if "bad" in link:
            raise SourceError(f"{link}: cannot be downloaded (gone).")
        return good

    monkeypatch.setattr(download, "fetch", fetch)
    path = tmp_path / "list.txt"
    path.write_text("https://youtu.be/good\nhttps://youtu.be/bad\n")
    assert main(path, "--out", tmp_path / "data", "--videos", tmp_path / "videos") == 0
    rows = ledger.read_rows(tmp_path / "data").values()
    assert {row.status: row.groups for row in rows} == {"ok": 10, "failed": 0}


def test_a_disk_that_is_full_ends_no_job(
    tmp_path: Path, good: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "write_row", full)
        assert main(good, "--out", tmp_path / "data") == 2
    assert "No space left" in capsys.readouterr().err
    assert main(good, "--out", tmp_path / "data") == 0


def test_what_was_missing_is_forgotten_once_it_is_there(
    tmp_path: Path, good: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Parts of videos, folders and globs too: nobody names them again as they stand there."""
    data, path, later = tmp_path / "data", tmp_path / "list.txt", tmp_path / "later.mp4"
    (tmp_path / "folder").mkdir()
    path.write_text("in/good.mp4\nlater.mp4 0-0.5\nfolder\nfar/*.mp4\n")
    assert main(path, "--out", data) == 0
    assert ledger.read_dataset(data).videos == {"failed": 3, "ok": 1}
    said = capsys.readouterr().out
    assert "folder: no video in this folder; check the path." in said
    assert "later.mp4 0-0.5 s: no such file; check the path." in said
    later.write_bytes(good.read_bytes())
    for place in ("folder", "far"):
        (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / place / "good.mp4").write_bytes(good.read_bytes())
    assert main(path, "--out", data) == 0
    assert ledger.read_dataset(data).videos == {"ok": 2}


def test_a_missing_url_keeps_its_name(tmp_path: Path, good: Path) -> None:
    assert main(good, f"file://{tmp_path}/none.mp4", "--out", tmp_path / "data") == 0
    assert f"file://{tmp_path}/none.mp4" in {
        row.source for row in ledger.read_rows(tmp_path / "data").values()
    }


def test_a_source_with_new_content_replaces_the_old(
    tmp_path: Path, good: Path, make_video: MakeVideo, face: np.ndarray
) -> None:
    """Unless the old content is still there under another name."""
    data = tmp_path / "data"
    assert main(good.parent, "--out", data) == 0
    [old] = ledger.read_rows(data)
    frames = talk(face, [n / 30 for n in range(45)])
    make_video("in/good.mp4", frames, impulse(1.6, 0.5, 16000))
    assert main(good.parent, "--out", data) == 0
    [new] = ledger.read_rows(data)
    assert new != old and ledger.read_dataset(data).groups == {new: 15}

    (good.parent / "copy.mp4").write_bytes(good.read_bytes())
    good.write_bytes(b"no video any more")
    assert main(good.parent, "--out", data) == 0
    assert ledger.read_dataset(data).groups == {new: 15}
