import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from s2vgan import storage
from s2vgan.errors import DatasetError, SourceError
from s2vgan.source import Source

LEFT = f"b.json.{'0' * 32}.tmp"  # what a writer leaves that was killed


def found(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_files_come_and_go(tmp_path: Path) -> None:
    assert not storage.exists(tmp_path, "in/a.json") and storage.size(tmp_path, "in/a.json") == 0
    assert list(storage.names(tmp_path, "in", ".json")) == []
    for name, content in (("in/b.json", b"1"), ("in/a.json", b"12"), ("in/c.txt", b"")):
        storage.write(tmp_path, name, content)
    storage.write(tmp_path, "in/b.json", b"123")
    assert list(storage.names(tmp_path, "in", ".json")) == ["a.json", "b.json"]
    assert storage.read(tmp_path, "in/b.json") == b"123"
    assert storage.exists(tmp_path, "in/a.json") and storage.size(tmp_path, "in/a.json") == 2
    assert not storage.exists(tmp_path, "in") and storage.size(tmp_path, "in") == 0
    with pytest.raises(FileNotFoundError):
        storage.read(tmp_path, "in/none.json")
    for _ in range(2):
        storage.remove(tmp_path, "in/a.json")
        storage.remove(tmp_path, "none/a.json")
        assert found(tmp_path) == {"in/b.json", "in/c.txt"}
    for _ in range(2):
        storage.remove_folder(tmp_path, "in")
        assert list(tmp_path.iterdir()) == []


def test_nothing_is_seen_before_the_end(tmp_path: Path) -> None:
    with storage.replacing(tmp_path, "in/a") as target:
        target.open().write(b"new")
        assert not storage.exists(tmp_path, "in/a")
    assert storage.read(tmp_path, "in/a") == b"new"
    assert found(tmp_path) == {"in/a"}


def test_a_target_that_is_never_opened_changes_nothing(tmp_path: Path) -> None:
    with storage.replacing(tmp_path, "in/a"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there(tmp_path: Path, error: type[BaseException]) -> None:
    storage.write(tmp_path, "a", b"old")
    for name in ("a", "b"):
        with pytest.raises(error), storage.replacing(tmp_path, name) as target:
            target.open().write(b"half")
            raise error
    assert found(tmp_path) == {"a"} and storage.read(tmp_path, "a") == b"old"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_disk_that_is_full_at_the_last_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written waits in memory: the disk is found full when the file is closed."""
    storage.write(tmp_path, "a", b"old")
    real = storage.Target.open

    def full(target: storage.Target) -> object:
        stream = real(target)
        device = os.open("/dev/full", os.O_WRONLY)
        os.dup2(device, stream.fileno())
        os.close(device)
        return stream

    monkeypatch.setattr(storage.Target, "open", full)
    with pytest.raises(OSError, match="No space left"):
        storage.write(tmp_path, "a", b"new")
    assert found(tmp_path) == {"a"} and storage.read(tmp_path, "a") == b"old"


@contextlib.contextmanager
def writer(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, in the middle of writing ``in/a``."""
    code = (
        "import sys; from s2vgan import storage\n"
        "with storage.replacing(sys.argv[1], 'in/a') as target:\n"
        "    target.open().write(b'half')\n"
        "    print('writing', flush=True); input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stdout.readline() == "writing\n"
        yield process


def test_a_sweep_spares_what_is_being_written(tmp_path: Path) -> None:
    with writer(tmp_path) as process:
        storage.sweep(tmp_path, "in")
        assert len(found(tmp_path)) == 1
        process.communicate("go on\n", timeout=30)
        assert process.returncode == 0
    assert found(tmp_path) == {"in/a"} and storage.read(tmp_path, "in/a") == b"half"


def test_a_sweep_takes_what_a_killed_writer_left(tmp_path: Path) -> None:
    for name in ("notes.tmp", LEFT, f"in/deep/{LEFT}", f"other/{LEFT}", "in/a.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    with writer(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert any(re.fullmatch(r"in/a\.[0-9a-f]{32}\.tmp", name) for name in found(tmp_path))
    for _ in range(2):
        storage.sweep(tmp_path, "in", "none")
        assert found(tmp_path) == {"notes.tmp", f"other/{LEFT}", "in/a.json"}
        assert not (tmp_path / "in" / "deep").exists()
    storage.sweep(tmp_path / "none")


@pytest.mark.parametrize(
    "url",
    ["s3://KEY:hunter@bucket/x", "s3://KEY:hun/ter@bucket/x", "https://me:hunter@example.org/x"],
)
def test_a_key_in_a_url_is_refused_and_not_repeated(url: str) -> None:
    for error, act in ((DatasetError, storage.open_url), (SourceError, Source)):
        with pytest.raises(error, match="a key or password in a URL would be shown") as caught:
            act(url)
        assert "hun" not in str(caught.value) and "KEY:" not in str(caught.value)


def test_urls_that_hold_no_key(tmp_path: Path) -> None:
    for url in ("s3://bucket/a@b:c?endpoint_override=host:80", "https://host:8443/@me/x"):
        assert Source(url).location == url
    assert storage.key_in(str(tmp_path / "a:b@c")) == ""


def test_a_url_that_means_nothing(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="not a path or URL"):
        storage.open_url("nowhere://x")
    storage.write(tmp_path.as_uri(), "a", b"1")
    assert storage.read(str(tmp_path), "a") == b"1"
