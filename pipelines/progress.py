"""The live line of an extraction."""

import sys
import threading
import time

from tqdm import tqdm


class Progress:
    """Videos done, groups so far, and groups a second.

    A long video counts span by span. On a terminal the clock ticks all the time; a log file gets
    few lines.

    Args:
        total: videos; nothing is shown if there is none.
    """

    def __init__(self, total: int) -> None:
        self._tty = sys.stderr.isatty()
        self._bar = tqdm(
            total=total, unit="video", disable=total == 0, mininterval=0.1 if self._tty else 20
        )
        self._count, self._started = 0, time.monotonic()
        self._ended = threading.Event()
        self._ticker = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> "Progress":
        if self._tty and not self._bar.disable:
            self._ticker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._ticker.is_alive():
            self._ticker.join()
        self._bar.close()

    def groups(self, count: int) -> None:
        """Count the groups of a span."""
        self._count += count
        rate = self._count / (time.monotonic() - self._started)
        self._bar.set_postfix_str(f"{self._count} groups, {rate:.0f} groups/s", refresh=False)
        self._bar.update(0)

    def video(self) -> None:
        """Count a video."""
        self._bar.update()

    def _tick(self) -> None:
        while not self._ended.wait(1):
            self._bar.refresh()
