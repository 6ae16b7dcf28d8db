"""The service as its clients see it, with the default model at 64x64 and random weights.

python bench/serve.py [--quick] [--fast] [--only FIGURE]

``python serve/app.py`` runs as a process of its own; this process is its clients. On a machine that
does other work, figures are worse than they could be:

- ``first_frame_p50_ms``, ``first_frame_p99_ms``: one live stream, fed by 20 ms as from a
  microphone: from sending the last sample that a group needs, its look-ahead of 0.1 s included, to
  its frames;
- ``live_streams``: the largest of 8, 12, 16 and 24 (if 8 fail: of 1, 2 and 4) live streams, 10 s
  long and beginning at random moments, of which no group is late. Late are frames that come more
  than 0.1 s, a group's own length, after the last sample that they need was due to be sent:
  lateness of this process counts, too. A number may be tried twice;
- ``added_p50_ms``: 0.2 s of speech by POST /v1/speak, from one client on one connection, less the
  same work called directly in one thread (the file read, forward, marks, H.264 and AAC): the
  difference of the medians of 500 calls in turns, both by ONNX Runtime. Always with FAST, Ray
  Serve's settings for speed;
- ``ten_seconds_s``: 10 s of speech to the last byte of the complete, signed MP4 (``stream=0``), the
  median; that of a streamed one is printed as well;
- ``growth_mb``: what 1,000 requests add to the replica's proportional set size, after 200 that do
  not count: short speech, what is no sound, a form, and live streams that vanish, 4 at a time;
- ``recovery_s``: 4 clients ask for films all the time, the replica is killed (SIGKILL), and this is
  the time until a request asked after that has succeeded: the median of three times.
  ``failures_in_flight`` is how many failed of the requests in flight at that moment, at most;
  ``failures_beyond`` how many failed that were asked later, other than by 503: none may.

Two seconds of live speech come first and do not count.

``--quick`` takes shorter speech, fewer rounds, 60 requests and one kill: a look, no claim.
``--fast`` measures everything with FAST.
"""

import argparse
import os
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Final

os.environ.setdefault("OMP_NUM_THREADS", "1")

import _service_figures as measured
from _report import Target, report
from _service import Service, save_model

# Requests reach the replica by HAProxy, without a proxy in Python, and its loop is that of Serve.
FAST: Final = {"RAY_SERVE_THROUGHPUT_OPTIMIZED": "1", "RAY_SERVE_ENABLE_HA_PROXY": "1"}


TARGETS: Final = {
    "first_frame_p50_ms": Target(40, 15),
    "first_frame_p99_ms": Target(120, 50),
    "live_streams": Target(8, 24, higher=True),
    "added_p50_ms": Target(4, 2),
    "ten_seconds_s": Target(1.0, 0.4),
    "growth_mb": Target(30, 10),
    "failures_beyond": Target(0, 0),
}
MEASUREMENTS: Final = {
    "first_frame": ("first_frame_p50_ms", "first_frame_p99_ms"),
    "live_streams": ("live_streams",),
    "ten_seconds": ("ten_seconds_s",),
    "growth": ("growth_mb",),
    "recovery": ("recovery_s", "failures_in_flight", "failures_beyond"),
    "added": ("added_p50_ms",),
}


def measure(folder: Path, names: list[str], quick: bool, fast: bool) -> dict[str, float]:
    """The figures of some measurements; what else was seen is printed."""
    model = save_model(folder / "run")
    figures: dict[str, float] = {}
    for settings, some in (
        (FAST if fast else {}, [name for name in names if name != "added"]),
        (FAST, [name for name in names if name == "added"]),
    ):
        if not some:
            continue
        with Service(model, folder, settings, ("--speakers", "32")) as service:
            for name in some:
                work = getattr(measured, name)
                work = partial(work, model=model) if name == "added" else work
                print(f"{name} ({'fast' if settings else 'usual'} settings, load {load():.1f})")
                figures |= work(service, quick=quick)
    return figures


def load() -> float:
    """Processes that run or want to, the mean of a minute."""
    return os.getloadavg()[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="shorter: a look, no claim")
    parser.add_argument("--fast", action="store_true", help="everything with FAST")
    every = [figure for some in MEASUREMENTS.values() for figure in some]
    parser.add_argument("--only", choices=every, help="one figure, and those measured with it")
    given = parser.parse_args()
    names = [name for name, some in MEASUREMENTS.items() if given.only in (None, *some)]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and the service ends with it
    with tempfile.TemporaryDirectory(prefix="s2vgan-bench-") as folder:
        figures = measure(Path(folder), names, given.quick, given.fast)
    if given.quick:
        print("--quick: a look, no claim")
    report("serve", figures, TARGETS)


if __name__ == "__main__":
    main()
