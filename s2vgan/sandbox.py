"""Functions called in a child process with limits, for work on files that nobody vouches for.

A decoder that crashes, hangs or eats memory ends its process: here that is a child, and its
parent gets a sentence. The child (``python -m s2vgan.sandbox``) stays for many calls; the two
speak JSON lines over the child's first stdin and stdout, which nothing else in it can reach.

The limit on memory is Linux's RLIMIT_DATA: private memory, whether touched or not. macOS takes no
notice of it, and there a child outlives a killed parent until its call ends. Not for Windows.
"""

import contextlib
import fcntl
import importlib
import json
import math
import os
import resource
import select
import signal
import subprocess
import sys
import time
import traceback
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from s2vgan import errors
from s2vgan.errors import S2VError, SandboxError

MEBIBYTE: Final = 1 << 20
MODULES: Final = ("s2vgan",)
_FILES: Final = 256  # open at a time
_OPENCV_NO_MEMORY: Final = -4
_ENVIRONMENT: Final = {
    # Children run in parallel, their threads do not; each thread also reserves memory.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ARROW_IO_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    # Arrow's own allocator reserves a gigabyte at a time, which RLIMIT_DATA counts.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}


class Sandbox:
    """Calls functions in a child process that is started when needed, and again after it died.

    It is for one thread at a time. The child ends with :meth:`close`, with this object, and with
    this process, however that ends; an interrupted call kills it.

    Args:
        memory: the most that the child may allocate, in bytes; about 100 MB of it are taken by
            the libraries that extraction needs.
        silence: seconds that a call may take without a call of :func:`progress`.
        cpu: CPU seconds that one call may take; None for no limit.
        modules: functions of these modules, and of those below them, can be called.
        on_progress: called in this process with what the child gives to :func:`progress`.
    """

    def __init__(
        self,
        memory: int = 1536 * MEBIBYTE,
        silence: float = 120.0,
        cpu: float | None = None,
        *,
        modules: Sequence[str] = MODULES,
        on_progress: Callable[..., None] | None = None,
    ) -> None:
        self._memory, self._silence, self._cpu = memory, silence, cpu
        self._modules, self._on_progress = tuple(modules), on_progress
        self._process: subprocess.Popen[bytes] | None = None
        self._unread = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id of the child, None while there is none."""
        return None if self._process is None else self._process.pid

    def call(self, function: str, *args: Any) -> Any:
        """Call a function in the child.

        Args:
            function: ``package.module:name``, of one of the modules that are allowed.
            args: anything that JSON holds.

        Returns:
            What the function returned, as JSON gives it back (a tuple is a list).

        Raises:
            S2VError: the subclass that the function raised.
            OSError: that the function raised, with its ``errno`` (a full disk).
            SandboxError: if it raised anything else, died, hung or went beyond a limit; the
                sentence says which.
        """
        try:
            answer = self._ask({"function": function, "args": args})
        except BaseException:  # an interrupt as well: nothing goes on unseen
            self.close()
            raise
        if "result" in answer:
            return answer["result"]
        if answer["error"] == "MemoryError":
            self.close()  # what is left of its memory is in fragments
            limit = self._memory // MEBIBYTE
            raise SandboxError(f"needs more than its limit of {limit} MiB memory.")
        raise _error(answer)

    def close(self) -> None:
        """End the child, if there is one, whatever it does."""
        if self._process is not None:
            self._finalize()
        self._process, self._unread = None, b""

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The child's answer to a request."""
        line = json.dumps(request).encode() + b"\n"
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._process = self._start()
        process = self._process
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died; reading says how
            process.stdin.write(line)
        while True:
            message = self._read(process)
            if "progress" not in message:
                return message
            if self._on_progress is not None:
                self._on_progress(**message["progress"])

    def _start(self) -> "subprocess.Popen[bytes]":
        end, leash = os.pipe()
        settings = {
            "memory": self._memory,
            "cpu": self._cpu,
            "modules": self._modules,
            "leash": end,
        }
        # Ray extends sys.path at run time; -P keeps the working folder's modules out.
        path = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "s2vgan.sandbox", json.dumps(settings)],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ | _ENVIRONMENT | {"PYTHONPATH": path},
                pass_fds=[end],
            )
        except BaseException:
            os.close(leash)
            raise
        finally:
            os.close(end)
        self._finalize = weakref.finalize(self, _kill, process, leash)
        return process

    def _read(self, process: "subprocess.Popen[bytes]") -> dict[str, Any]:
        """The child's next message."""
        assert process.stdout is not None
        poll = select.poll()
        poll.register(process.stdout, select.POLLIN)
        deadline = time.monotonic() + self._silence
        while b"\n" not in self._unread:
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise SandboxError(f"made no progress for {self._silence:g} s and was stopped.")
            data = os.read(process.stdout.fileno(), MEBIBYTE)
            if not data:
                raise SandboxError(self._cause(process))
            self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        return dict(json.loads(line))

    def _cause(self, process: "subprocess.Popen[bytes]") -> str:
        """Why the child died."""
        try:
            code = process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return "closed its end of the pipe."
        if code == -signal.SIGXCPU:
            return f"took more than {self._cpu:g} s of CPU time and was stopped."
        if code < 0:
            return f"crashed its process ({signal.Signals(-code).name})."
        return f"ended its process (exit status {code})."


def direct(function: str, *args: Any, modules: Sequence[str] = MODULES) -> Any:
    """What :meth:`Sandbox.call` does, in this process and without limits: for work one trusts."""
    found = _allowed(function, modules)
    return json.loads(json.dumps(found(*json.loads(json.dumps(args)))))


def progress(**counts: float) -> None:
    """Tell the parent that the work goes on, and how far it is; outside a child, do nothing."""
    if _answers is not None:
        _send({"progress": counts})


def _kill(process: "subprocess.Popen[bytes]", leash: int) -> None:
    with process:  # which waits for it and closes the pipes
        process.kill()
    os.close(leash)


def _error(answer: Mapping[str, Any]) -> Exception:
    """The exception that a child's answer stands for."""
    kind = getattr(errors, str(answer["error"]), None)
    if isinstance(kind, type) and issubclass(kind, S2VError):
        return kind(answer["text"])
    if answer["error"] == "OSError":
        return OSError(*answer["os"]) if answer["os"] else OSError(answer["text"])
    return SandboxError(answer["text"])


# What follows runs in the child.

_answers: int | None = None  # file descriptor of the pipe to the parent


def _send(message: Mapping[str, Any]) -> None:
    assert _answers is not None
    data = memoryview(json.dumps(message).encode() + b"\n")
    while data:
        data = data[os.write(_answers, data) :]


def _allowed(function: str, modules: Sequence[str]) -> Callable[..., Any]:
    module, _, name = function.partition(":")
    if not any(f"{module}.".startswith(f"{allowed}.") for allowed in modules):
        raise ValueError(f"{function} is of no module that may be called ({', '.join(modules)})")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def _answer(function: str, args: Sequence[Any], modules: Sequence[str]) -> dict[str, Any]:
    try:
        answer = {"result": _allowed(function, modules)(*args)}
        json.dumps(answer)
        return answer
    except S2VError as error:
        kinds = (
            kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__
        )
        return {"error": next(kinds), "text": str(error)}
    except MemoryError:
        return {"error": "MemoryError"}
    except OSError as error:
        known = error.errno is not None and error.strerror is not None
        parts = [error.errno, str(error.strerror)] if known else None
        return {"error": "OSError", "text": str(error), "os": parts}
    except BaseException as error:
        if getattr(error, "code", None) == _OPENCV_NO_MEMORY:
            return {"error": "MemoryError"}
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
        return {"error": "Exception", "text": text}


def _die_with_parent(leash: int) -> None:
    """Nothing is ever written to this pipe: all that can happen to it is the parent's end.

    The kernel then kills this process, whatever C code it is in; a thread would wait for Python,
    PR_SET_PDEATHSIG comes when a mere thread of the parent ends, and the pipe of the requests may
    still signal a request that has been read already.
    """
    os.set_inheritable(leash, False)
    if sys.platform == "linux":
        fcntl.fcntl(leash, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(leash, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(leash, fcntl.F_SETFL, os.O_ASYNC)
        poll = select.poll()
        poll.register(leash, 0)
        if poll.poll(0):  # it ended just before
            os._exit(1)


def _limit(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _serve(settings: Mapping[str, Any]) -> None:
    """The child's life: requests answered one by one until the parent closes the pipe."""
    global _answers
    requests, _answers = os.dup(0), os.dup(1)  # neither is inheritable
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent decides
    _die_with_parent(settings["leash"])
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, _FILES)
    _limit(resource.RLIMIT_DATA, settings["memory"])
    with os.fdopen(requests, "rb") as lines:
        for line in lines:
            if settings["cpu"] is not None:
                _limit(resource.RLIMIT_CPU, math.ceil(time.process_time() + settings["cpu"]))
            _send(_answer(**json.loads(line), modules=settings["modules"]))


if __name__ == "__main__":
    from s2vgan import sandbox  # this file as what others import, so that progress() works

    sandbox._serve(json.loads(sys.argv[1]))
