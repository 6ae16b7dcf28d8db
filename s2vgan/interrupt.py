"""Ctrl-C in a training: the first asks it to end with a checkpoint, the second ends it at once."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

STOP = "STOP"  # this file in a run's folder asks its rank 0, wherever it is, to end the run
PATIENCE = 300.0  # seconds that the workers may take to end, an evaluation included
_SENTENCE = b"\ns2vgan: ending with a checkpoint. Ctrl-C again ends at once, without one.\n"


@contextlib.contextmanager
def deferred(folder: Path) -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into FOLDER/STOP, and the event given; the second is as usual.

    Nothing changes outside of the main thread, and where Ctrl-C is ignored.
    """
    asked, before = threading.Event(), signal.getsignal(signal.SIGINT)
    (folder / STOP).unlink(missing_ok=True)

    def ask(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        asked.set()
        os.write(2, _SENTENCE)  # print() could be interrupted by itself
        (folder / STOP).touch()

    mine = threading.current_thread() is threading.main_thread() and before != signal.SIG_IGN
    if mine:
        signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        if mine:
            signal.signal(signal.SIGINT, before)
        (folder / STOP).unlink(missing_ok=True)


def supervise(job: Callable[[], None], asked: threading.Event) -> None:
    """Do a job in another thread, so that the main thread is free for Ctrl-C.

    Raises:
        KeyboardInterrupt: if the job has not ended PATIENCE seconds after it was ``asked`` to.
    """
    raised: list[BaseException] = []

    def run() -> None:
        try:
            job()
        except BaseException as error:  # raised again in the main thread
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ends = float("inf")
    while thread.is_alive():
        thread.join(0.1)
        if asked.is_set():
            ends = min(ends, time.monotonic() + PATIENCE)
        if time.monotonic() > ends:
            raise KeyboardInterrupt
    if raised:
        raise raised[0]
