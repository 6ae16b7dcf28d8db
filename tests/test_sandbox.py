"""The functions without an underscore are what the tests call in the child."""

import ctypes
import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from s2vgan import sandbox
from s2vgan.errors import DatasetError, SandboxError, SourceError
from s2vgan.sandbox import MEBIBYTE, Sandbox

HERE = "tests.test_sandbox:"


def echo(*args: object) -> object:
    return list(args)


def fail(kind: str) -> None:
    if kind == "special":
        raise _SpecialError("a sentence")
    if kind == "disk":
        raise OSError(errno.ENOSPC, "No space left on device", "/data/x")
    if kind == "vague":
        raise OSError("something about a disk")
    if kind == "exit":
        sys.exit(3)
    raise {"source": SourceError, "dataset": DatasetError, "bug": KeyError}[kind]("a sentence")


class _SpecialError(SourceError):
    pass


def eat(size: int, where: str = "python") -> int:
    """Allocate and touch so many bytes, in the way of a leak."""
    if where == "opencv":
        import cv2
        import numpy as np

        cv2.resize(np.zeros((1, 1), np.uint8), (size // MEBIBYTE, MEBIBYTE))
    if where == "numpy":
        import numpy as np

        np.ones(size, np.uint8)
    parts = [b"x" * MEBIBYTE for _ in range(size // MEBIBYTE)]
    return len(parts)


def die(number: int) -> None:
    os.kill(os.getpid(), number)


def work(seconds: float, report: bool = False, spin: bool = False) -> str:
    """Take so long, awake or asleep, with heartbeats or without."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if report:
            sandbox.progress(left=1)
        if not spin:
            time.sleep(min(left, 0.05))
    return "done"


def chatter() -> str:
    """Write where the protocol once was: in Python, and as C libraries do."""
    print('{"result": "forged"}', flush=True)
    os.write(1, b'{"result": "forged"}\n')
    os.write(2, b"frame= 1 fps=0\n")
    subprocess.run(["echo", '{"result": "forged"}'], check=True)
    return sys.stdin.read()


def facts() -> dict[str, object]:
    return {
        "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
        "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "threads": os.environ["OMP_NUM_THREADS"],
        "path": sys.path,
    }


def hold_the_interpreter(path: str) -> None:
    """Say that it has begun, and sleep in C without letting another Python thread run."""
    Path(path).write_text(str(os.getpid()))
    ctypes.PyDLL(None).sleep(600)


def announce(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)


def limited(memory: int = 512 * MEBIBYTE, silence: float = 60, cpu: float | None = None) -> Sandbox:
    return Sandbox(memory, silence, cpu, modules=["tests"])


@pytest.fixture(scope="module")
def child() -> Iterator[Sandbox]:
    with limited() as found:
        yield found


def test_calls_share_a_child_that_starts_when_needed() -> None:
    with limited() as child:
        assert child.pid is None
        assert child.call(HERE + "echo", 1, "\udcff\n", None, {"a": [2.5]}) == [
            1, "\udcff\n", None, {"a": [2.5]},
        ]  # fmt: skip
        pid = child.pid
        assert pid is not None and pid != os.getpid()
        assert child.call(HERE + "echo", "x" * 3_000_000) == ["x" * 3_000_000]
        assert child.pid == pid
    assert child.pid is None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_the_same_in_this_process() -> None:
    assert sandbox.direct(HERE + "echo", (1, 2), modules=["tests"]) == [[1, 2]]
    sandbox.progress(ticks=3)
    with pytest.raises(ValueError, match="os:getpid is of no module"):
        sandbox.direct("os:getpid")


@pytest.mark.parametrize("function", ["os:getpid", "tests_more.x:y", "builtins:eval"])
def test_only_listed_modules_can_be_called(child: Sandbox, function: str) -> None:
    with pytest.raises(SandboxError, match="is of no module that may be called"):
        child.call(function)


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("source", SourceError, "^a sentence$"),
        ("special", SourceError, "^a sentence$"),
        ("dataset", DatasetError, "^a sentence$"),
        ("bug", SandboxError, r"^KeyError: 'a sentence' \(test_sandbox.py:\d+\)$"),
        ("vague", OSError, "^something about a disk$"),
        ("exit", SandboxError, "^SystemExit: 3"),
    ],
)
def test_errors_keep_their_kind(
    child: Sandbox, kind: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        child.call(HERE + "fail", kind)
    assert type(caught.value) is error
    assert child.call(HERE + "echo", 1) == [1]


def test_a_full_disk_keeps_its_number(child: Sandbox) -> None:
    with pytest.raises(OSError) as caught:
        child.call(HERE + "fail", "disk")
    assert caught.value.errno == errno.ENOSPC
    assert "No space left" in str(caught.value)


def test_a_result_that_json_cannot_hold_is_an_error(child: Sandbox) -> None:
    with pytest.raises(SandboxError, match="TypeError: .*not JSON serializable"):
        child.call("tests.test_sandbox:Path", "x")


def test_output_of_the_child_does_not_reach_the_protocol(
    child: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    assert child.call(HERE + "chatter") == ""
    assert child.call(HERE + "echo", 2) == [2]
    assert capfd.readouterr() == ("", "")


def test_surroundings(child: Sandbox) -> None:
    found = child.call(HERE + "facts")
    assert (found["core"], found["files"], found["threads"]) == (0, 256, "1")
    assert "" not in found["path"]


def test_memory_is_limited_and_given_back() -> None:
    with limited(memory=128 * MEBIBYTE) as child:
        assert child.call(HERE + "eat", 32 * MEBIBYTE) == 32
        before = child.pid
        for where in ("python", "numpy", "opencv"):
            with pytest.raises(SandboxError, match="needs more than its limit of 128 MiB memory"):
                child.call(HERE + "eat", 512 * MEBIBYTE, where)
        assert child.call(HERE + "eat", 32 * MEBIBYTE) == 32
        assert child.pid != before


def test_cpu_is_limited_per_call() -> None:
    with limited(cpu=1) as child:
        for _ in range(3):
            assert child.call(HERE + "work", 0.5, False, True) == "done"
        with pytest.raises(SandboxError, match="took more than 1 s of CPU time"):
            child.call(HERE + "work", 600, False, True)
        assert child.call(HERE + "echo", 1) == [1]


def test_silence_is_limited_and_progress_is_none() -> None:
    counts: list[float] = []
    with Sandbox(
        silence=3, modules=["tests"], on_progress=lambda left: counts.append(left)
    ) as child:
        child.call(HERE + "echo")
        assert child.call(HERE + "work", 4, True) == "done"
        assert len(counts) > 4 and set(counts) == {1}
        with pytest.raises(SandboxError, match="made no progress for 3 s"):
            child.call(HERE + "work", 600)
        assert child.pid is None


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_crash_names_its_signal(child: Sandbox, number: signal.Signals) -> None:
    with pytest.raises(SandboxError, match=rf"crashed its process \({number.name}\)"):
        child.call(HERE + "die", int(number))
    assert child.call(HERE + "echo", 1) == [1]


def test_an_interrupt_is_left_to_the_parent(child: Sandbox) -> None:
    """Ctrl-C in a terminal reaches the child as well."""
    assert child.call(HERE + "die", int(signal.SIGINT)) is None


def test_a_child_outlives_calls_in_quick_succession(child: Sandbox) -> None:
    for number in range(3000):  # a request's own signal came after its call had begun
        assert child.call(HERE + "echo", number) == [number]


def test_a_child_that_died_between_calls_is_replaced(child: Sandbox) -> None:
    child.call(HERE + "echo")
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert child.call(HERE + "echo", 1) == [1]


PARENT = """
from s2vgan.sandbox import Sandbox
import signal, sys
child = Sandbox(modules=["tests"])
child.call("tests.test_sandbox:" + sys.argv[1], sys.argv[2])
"""


def started(function: str, note: Path) -> tuple["subprocess.Popen[str]", int]:
    """A parent in the midst of a call, and the process id of its child."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, function, str(note)],
        cwd=Path(__file__).parents[1], stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (note.exists() and note.read_text()):
        assert parent.poll() is None, parent.communicate()
        time.sleep(0.02)
    return parent, int(note.read_text())


def gone(pid: int) -> bool:
    """Whether a process that is not this one's child ends."""
    for _ in range(1000):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    return False


@pytest.mark.chaos
@pytest.mark.parametrize("function", ["announce", "hold_the_interpreter"])
def test_the_child_dies_with_its_parent(tmp_path: Path, function: str) -> None:
    parent, pid = started(function, tmp_path / "pid")
    parent.kill()
    parent.communicate()
    assert gone(pid)


@pytest.mark.chaos
def test_an_interrupt_of_the_parent_kills_the_child(tmp_path: Path) -> None:
    parent, pid = started("announce", tmp_path / "pid")
    parent.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in parent.communicate()[1]
    assert gone(pid)
