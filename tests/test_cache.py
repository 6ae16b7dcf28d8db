import errno
import multiprocessing
import os
import time
from collections import namedtuple
from functools import partial
from pathlib import Path

import pytest

from s2vgan import cache
from s2vgan.errors import DatasetError

Usage = namedtuple("Usage", "total used free")
A, B, C, D = (f"{number:064x}" for number in range(4))
GRAPH = f"graph-{A}"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def read(path: Path) -> str | None:
    file = path / "content"
    return file.read_text() if file.is_file() else None


def write(text: str, path: Path) -> None:
    (path / "content").write_text(text)


def test_an_entry_is_built_once_and_whole_or_not_at_all(folder: Path) -> None:
    assert cache.fetch(A, 10, read, partial(write, "one")) == "one"
    assert cache.fetch(A, 10, read, partial(write, "two")) == "one"
    (folder / A / "content").unlink()  # damaged: built anew
    assert cache.fetch(A, 10, read, partial(write, "two")) == "two"

    def fail(path: Path) -> None:
        write("half", path)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.fetch(B, 10, read, fail)
    assert sorted(path.name for path in folder.iterdir()) == [A, "lock"]
    assert folder.stat().st_mode & 0o077 == 0  # faces of people


def _slow(log: Path, path: Path) -> None:
    with log.open("a") as file:
        file.write("built\n")
    time.sleep(0.5)
    write("one", path)


def _fetch(log: Path) -> str:
    return cache.fetch(A, 10, read, partial(_slow, log))


def test_of_processes_that_want_it_one_builds(folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert pool.map(_fetch, [log] * 3, chunksize=1) == ["one"] * 3
    assert log.read_text() == "built\n"


def test_what_a_killed_builder_left_goes(folder: Path) -> None:
    left = folder / f"{GRAPH}.{0:032x}.tmp"
    left.mkdir(parents=True)
    cache.fetch(B, 10, read, partial(write, "one"))
    assert not left.exists()


def test_what_was_not_used_for_longest_makes_room(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "KEPT", 250)
    for number, name in enumerate((A, B, C)):
        cache.fetch(name, 100, read, partial(write, "x" * 100))
        os.utime(folder / name, (number, number))
        assert (folder / name).is_dir()
    assert not (folder / A).exists()
    cache.fetch(B, 100, read, partial(write, ""))  # used again
    cache.fetch(D, 100, read, partial(write, "x" * 100))
    assert sorted(path.name for path in folder.iterdir()) == [B, D, "lock"]


def test_what_is_not_the_caches_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = {"upload.tmp", "photos", "graph-paper", f"{A}.tmp", A[:-1], f"my-{A}"}
    for name in others:
        (folder / name).mkdir(parents=True)
        write("mine", folder / name)
    cache.fetch(A, 10, read, partial(write, "one"))
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(100, 95, 5))
    with pytest.raises(DatasetError, match="No space left"):
        cache.fetch(B, 10, read, partial(write, "one"))
    assert {path.name for path in folder.iterdir()} == others | {"lock"}
    assert all(read(folder / name) == "mine" for name in others)


def test_a_full_disk_is_said_and_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        write("half", path)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DatasetError, match=r"No space left .* set S2VGAN_CACHE"):
        cache.fetch(A, 10, read, fail)
    assert [path.name for path in folder.iterdir()] == ["lock"]
    cache.fetch(GRAPH, 10, read, partial(write, "one"))
    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage(100, 95, 5))
    with pytest.raises(DatasetError, match="0.0 GB cannot be kept .*No space left"):
        cache.fetch(A, 10, read, partial(write, "one"))
    assert not (folder / GRAPH).exists()  # it was given up before


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file" / "cache"))
    with pytest.raises(DatasetError, match=r"file/cache: .* set S2VGAN_CACHE"):
        cache.fetch(A, 10, read, partial(write, "one"))
