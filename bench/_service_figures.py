"""The figures of the service's bench, each measured from outside on a service that runs."""

import os
import signal
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import torch
from _clients import Asked, Files, Outage, mixed, speak_together, wav
from _service import Service, memory

from s2vgan import artifact
from s2vgan.engine import load_onnx
from s2vgan.media import StreamWriter, read_audio
from s2vgan.provenance import Marker, Origin
from s2vgan.synthesis import Synthesizer, advance, enlarge

TRIED: Final = (1, 2, 4, 8, 12, 16, 24)  # live streams at a time
SCALE: Final = 4  # of the pictures that the service sends by default
WARM_SECONDS: Final = 2.0  # of live speech that does not count
SHORT_SECONDS: Final = 0.2  # the less work, the less it varies
ASKING: Final = 4  # clients that ask while the replica is killed

Figures = dict[str, float]


def first_frame(service: Service, quick: bool) -> Figures:
    """One live stream."""
    speak_together(service.port, 1, WARM_SECONDS)
    delays = speak_together(service.port, 1, 10 if quick else 60)[0].delays() * 1000
    print(f"{len(delays)} groups, the slowest after {delays.max():.1f} ms")
    p50, p99 = np.percentile(delays, [50, 99])
    return {"first_frame_p50_ms": float(p50), "first_frame_p99_ms": float(p99)}


def live_streams(service: Service, quick: bool) -> Figures:
    """More and more live streams, until groups are late twice; fewer than 8 only if 8 fail."""
    seconds, most = (4 if quick else 10), 0
    speak_together(service.port, 8, WARM_SECONDS)

    def holds(count: int) -> bool:
        return any(_in_time(service, count, seconds) for _ in range(2))

    for count in (one for one in TRIED if one >= 8):
        if not holds(count):
            break
        most = count
    if not most:
        fewer = (count for count in reversed(TRIED) if count < 8)
        most = next((count for count in fewer if holds(count)), 0)
    return {"live_streams": most}


def _in_time(service: Service, count: int, seconds: float) -> bool:
    streams = speak_together(service.port, count, seconds)
    late = sum(stream.late() for stream in streams)
    groups = sum(len(stream.due) for stream in streams)
    delays = np.concatenate([stream.delays() for stream in streams]) * 1000
    p50, p99 = np.percentile(delays, [50, 99])
    print(f"{count} streams: {late} of {groups} groups late; p50 {p50:.1f}, p99 {p99:.1f} ms")
    return not late


def added(service: Service, model: Path, quick: bool) -> Figures:
    """A short request through the service, and the same work in this process."""
    body, client = wav(SHORT_SECONDS), Files(service.port)
    bare_speak = bare(model)
    bare_seconds, served_seconds = [], []
    for _ in range(50 if quick else 500):
        bare_seconds.append(_seconds(lambda: bare_speak(body)))
        served_seconds.append(_seconds(lambda: spoken(client, body)))
    assert len(bare_speak(body)) == len(spoken(client, body)), "not the same work"
    client.close()
    own, through = (statistics.median(some[5:]) for some in (bare_seconds, served_seconds))
    print(
        f"{SHORT_SECONDS} s: bare {own * 1000:.2f} ms, through the service {through * 1000:.2f} ms"
    )
    return {"added_p50_ms": (through - own) * 1000}


def bare(model: Path) -> Callable[[bytes], bytes]:
    """What the service does for a sound file, called directly, on one thread of its engine."""
    torch.set_num_threads(1)
    loaded = artifact.load(model)
    synthesizer = Synthesizer(loaded, load_onnx(model, loaded))
    spec = synthesizer.spec
    metadata = Origin.of(synthesizer.manifest, str(model)).metadata()

    def speak(body: bytes) -> bytes:
        audio = read_audio(body, spec.sample_rate)
        stream = synthesizer.stream()
        stream.feed(audio)
        stream.end()
        (frames,) = advance([stream], stream.ready)
        writer = StreamWriter("mp4", spec.fps, audio, spec.sample_rate, metadata)
        pictures = Marker(fps=spec.fps).mark(enlarge(frames, SCALE))
        return writer.write(pictures) + writer.finish()

    return speak


def spoken(client: Files, body: bytes, options: str = "") -> bytes:
    """The film of a sound file.

    Raises:
        RuntimeError: if it is refused.
    """
    status, content = client.speak(body, options)
    if status != 200:
        raise RuntimeError(f"the service answered {status}: {content[:300]!r}")
    return content


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def ten_seconds(service: Service, quick: bool) -> Figures:
    """A file of 10 s, streamed and signed in turns."""
    body, client = wav(10.0), Files(service.port)
    took: dict[str, list[float]] = {"": [], "?stream=0": []}
    for _ in range(4 if quick else 16):
        for options, seconds in took.items():
            began = time.perf_counter()
            spoken(client, body, options)
            seconds.append(time.perf_counter() - began)
    client.close()
    streamed, signed = (statistics.median(seconds[1:]) for seconds in took.values())
    print(f"10 s of speech: streamed {streamed:.3f} s, signed {signed:.3f} s")
    return {"ten_seconds_s": signed}


def growth(service: Service, quick: bool) -> Figures:
    """The replica's memory before and after many requests of all kinds."""
    warm, counted, parts = (60, 60, 1) if quick else (200, 1000, 4)
    mixed(service.port, warm)
    pid = service.replica()
    seen = [_settled(pid)]
    for _ in range(parts):
        mixed(service.port, counted // parts)
        seen.append(_settled(pid))
    print(f"memory over {counted} requests: " + ", ".join(f"{value:.1f}" for value in seen) + " MB")
    return {"growth_mb": seen[-1] - seen[0]}


def _settled(pid: int) -> float:
    time.sleep(2)  # those that vanished are noticed
    return memory(pid)


def recovery(service: Service, quick: bool) -> Figures:
    """The replica is killed under load, again and again."""
    outages = [_killed(service) for _ in range(1 if quick else 3)]
    for one in outages:
        print(
            f"killed: back after {one.seconds:.1f} s; {one.failed_in_flight} failed of "
            f"{one.in_flight} in flight, {one.refused} refused by 503, {one.failed_beyond} others"
        )
    return {
        "recovery_s": statistics.median(one.seconds for one in outages),
        "failures_in_flight": max(one.failed_in_flight for one in outages),
        "failures_beyond": max(one.failed_beyond for one in outages),
    }


def _killed(service: Service) -> Outage:
    asked: list[Asked] = []
    over, body = threading.Event(), wav(0.5)

    def ask() -> None:
        while not over.is_set():
            asked.append(one := Asked.now(service.port, body))
            if one.status != 200:
                time.sleep(0.1)  # who is refused tries again a little later

    clients = [threading.Thread(target=ask) for _ in range(ASKING)]
    for client in clients:
        client.start()
    try:
        time.sleep(2)
        os.kill(service.replica(), signal.SIGKILL)
        killed = time.perf_counter()
        while time.perf_counter() < killed + 120:
            if any(one.began > killed and one.status == 200 for one in list(asked)):
                break
            time.sleep(0.1)
        time.sleep(3)  # that it goes on is a part of being back
    finally:
        over.set()
        for client in clients:
            client.join()
    return Outage.of(asked, killed)
