"""Whatever is killed or full, at whatever moment: running again gives what an unbroken run gives.

Each moment is drawn at random from its number. After it, and before the re-run, nothing half
written may have a name that anyone reads.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pyarrow.parquet as pq
import pytest

from pipelines import extract, stages
from s2vgan import sandbox, source, spans, storage
from s2vgan.demo import Rendered
from s2vgan.known import Options
from s2vgan.ledger import LedgerRow
from s2vgan.spec import GroupSpec
from tests.conftest import MakeVideo
from tests.test_extraction import talk
from tests.test_media import impulse

FPS = 3  # of the grid: a long video costs little
# The command, with spans of one block.
COMMAND = (
    "import functools, sys; from pipelines import extract; "
    "extract.run = functools.partial(extract.run, span_seconds=60); sys.exit(extract.main())"
)
ROOM = "mount -t tmpfs -o size=4m none /mnt"

pytestmark = pytest.mark.chaos


def slowed(video: Path, out: Path, factor: int) -> None:
    """A video whose pictures last ``factor`` times longer, its sound repeated as often."""
    clock = Fraction(1, 90000)
    with av.open(str(video)) as whole, av.open(str(out), "w") as output:
        pictures: Any = output.add_stream_from_template(whole.streams.video[0])
        sound: Any = output.add_stream_from_template(whole.streams.audio[0])
        streams: Any = whole.streams
        length = max(stream.duration * stream.time_base for stream in streams)
        for number in range(factor):
            for packet in whole.demux():
                is_sound = packet.stream.type == "audio"
                if packet.pts is None or packet.pts < 0 or not (is_sound or number == 0):
                    continue
                scale = packet.time_base / clock * (1 if is_sound else factor)
                offset = round(number * length / clock)
                packet.pts = round(packet.pts * scale) + offset
                packet.dts = round((packet.dts or 0) * scale) + offset
                packet.duration = round((packet.duration or 0) * scale)
                packet.time_base, packet.stream = clock, sound if is_sound else pictures
                output.mux(packet)
            whole.seek(0)


@dataclass(frozen=True)
class Unbroken:
    """What an unbroken run makes of the sources, and how long it takes."""

    sources: Path
    files: dict[str, Any]
    seconds: float

    def command(self, data: Path | str, workers: int = 0) -> list[str]:
        return [
            sys.executable, "-c", COMMAND, str(self.sources), "--out", str(data),
            "--workers", str(workers), "--fps", str(FPS), "--size", "96",
        ]  # fmt: skip

    def start(self, data: Path, workers: int = 0) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            self.command(data, workers), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def again(self, data: Path) -> None:
        """Run once more: now all is as if nothing had happened."""
        check_whole(data)
        done = subprocess.run(self.command(data), capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert contents(data) == self.files


@pytest.fixture(scope="module")
def unbroken(talking_head: Rendered, tmp_path_factory: pytest.TempPathFactory) -> Unbroken:
    sources, data = tmp_path_factory.mktemp("sources"), tmp_path_factory.mktemp("unbroken") / "data"
    slowed(talking_head.video, sources / "long.mp4", 7)  # 140 s, three spans
    shutil.copy(talking_head.video, sources / "short.mp4")
    (sources / "text.mp4").write_text("I am no video.\n")
    run = Unbroken(sources, {}, 0.0)
    started = time.monotonic()
    subprocess.run(run.command(data), check=True, capture_output=True, timeout=120)
    run = Unbroken(sources, contents(data), time.monotonic() - started)
    rows = [value for name, value in run.files.items() if name.startswith("ledger/")]
    assert sorted(row["status"] for row in rows) == ["ok", "ok", "rejected"]
    assert max(row["groups"] for row in rows) > 120
    return run


def contents(data: Path) -> dict[str, Any]:
    """All files by their names; ledger rows without the time they took."""
    found: dict[str, Any] = {}
    for path in sorted(data.rglob("*")):
        name = str(path.relative_to(data))
        if name.startswith("ledger/") and path.suffix == ".json":
            found[name] = json.loads(path.read_bytes())
            del found[name]["cpu_seconds"]
        elif path.is_file() or not any(path.iterdir()):  # an empty folder is a trace as well
            found[name] = path.read_bytes() if path.is_file() else "empty"
    return found


def check_whole(data: Path) -> None:
    """Every file that has its name is complete, and what the ledger calls ok is there."""
    for path in data.rglob("*"):
        if path.suffix == ".parquet":
            assert pq.read_table(path).num_rows > 0
        elif path.suffix == ".json":
            found = json.loads(path.read_bytes())
            if path.parent.name == "ledger" and LedgerRow(**found).status == "ok":
                groups = data / "groups" / f"{found['video_id']}.parquet"
                assert source.sha256(groups) == found["groups_sha256"]
        elif path.is_file():
            assert path.suffix == ".tmp" or path.name == "DATA_CARD.md"


def below(pid: int) -> dict[int, str]:
    """Command lines of the processes below a process, by their ids."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:  # it ended
            continue
        if state != "Z":
            children.setdefault(int(parent), []).append(int(stat.parent.name))
    found: dict[int, str] = {}
    todo = children.get(pid, [])
    while todo:
        child = todo.pop()
        todo += children.get(child, [])
        try:
            line = Path(f"/proc/{child}/cmdline").read_bytes()
        except OSError:
            continue
        found[child] = line.replace(b"\0", b" ").decode(errors="replace")
    return found


def eventually(condition: Callable[[], Any], seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)
    return found


def is_alive(pid: int, line: str) -> bool:
    try:
        now = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return now.replace(b"\0", b" ").decode(errors="replace") == line  # a zombie has no command


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def strike(
    unbroken: Unbroken, data: Path, moment: float, victim: Callable[[int], int | None]
) -> "subprocess.Popen[bytes]":
    """A run of which one process is killed so many seconds after its start.

    Where the run was over by then, or the victim gone, the next one is struck earlier.
    """
    while True:
        driver = unbroken.start(data)
        with contextlib.suppress(subprocess.TimeoutExpired):
            driver.wait(moment)
        with contextlib.suppress(ProcessLookupError):
            if driver.poll() is None and (pid := victim(driver.pid)):
                os.kill(pid, signal.SIGKILL)
                return driver
        driver.wait()
        shutil.rmtree(data)
        moment *= 0.8


@pytest.mark.parametrize("number", range(4))
def test_the_driver_is_killed(unbroken: Unbroken, data: Path, number: int) -> None:
    children: dict[int, str] = {}

    def driver_itself(pid: int) -> int:
        children.update(below(pid))
        return pid

    moment = random.Random(number).uniform(0.2, 1) * unbroken.seconds
    driver = strike(unbroken, data, moment, driver_itself)
    assert driver.wait() == -signal.SIGKILL
    eventually(lambda: not any(is_alive(*child) for child in children.items()))
    unbroken.again(data)


@pytest.mark.parametrize("number", range(2))
def test_a_decoder_is_killed(unbroken: Unbroken, data: Path, number: int) -> None:
    """The video fails, the others do not; the next run tries it again."""

    def decoder(pid: int) -> int | None:
        return next((child for child, line in below(pid).items() if "sandbox" in line), None)

    moment = random.Random(number).uniform(0.5, 0.9) * unbroken.seconds
    driver = strike(unbroken, data, moment, decoder)
    assert driver.wait(300) in (0, 2)
    unbroken.again(data)


@pytest.mark.ray
def test_workers_of_ray_are_killed(unbroken: Unbroken, data: Path) -> None:
    """Some of them, in one run: their work is done again by others, or in the next run."""
    driver = unbroken.start(data, workers=2)
    choice = random.Random(0)

    def busy() -> list[int]:
        lines = below(driver.pid)
        return [pid for pid, line in lines.items() if "_Steps" in line or "sandbox" in line]

    killed = 0
    for _ in range(3):
        eventually(lambda: busy() or driver.poll() is not None)
        time.sleep(choice.uniform(0, 0.7))
        for victim in choice.sample(sorted(found := busy()), len(found))[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
                killed += 1
    assert driver.wait(300) in (0, 2) and killed
    unbroken.again(data)


@pytest.mark.ray
def test_the_driver_of_ray_is_killed(unbroken: Unbroken, data: Path) -> None:
    driver = unbroken.start(data, workers=2)
    eventually(lambda: list(data.glob("parts/*")))
    time.sleep(random.Random(0).uniform(0, 2))
    children = below(driver.pid)
    assert any("raylet" in line for line in children.values())
    driver.kill()
    driver.wait()
    # Ray's own agents, which touch no dataset, take a minute.
    ours = [item for item in children.items() if "Agent" not in item[1]]
    eventually(lambda: not any(is_alive(*child) for child in ours))
    unbroken.again(data)


@pytest.fixture(scope="module")
def small_disk() -> None:
    if shutil.which("unshare") is None:
        pytest.skip("a small disk needs unshare (util-linux)")
    done = subprocess.run(["unshare", "-rm", "sh", "-c", ROOM], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small disk needs user and mount namespaces: {done.stderr.strip()}")


@pytest.mark.parametrize("number", range(3))
def test_the_disk_is_full(
    small_disk: None, unbroken: Unbroken, tmp_path: Path, number: int
) -> None:
    """A tmpfs of random size, which only the command sees; then there is room."""
    size = sum(len(value) for value in unbroken.files.values() if isinstance(value, bytes))
    low, high = ((0.05, 0.3), (0.3, 0.9), (0.9, 1.3))[
        number
    ]  # the parts are there before the whole
    room = random.Random(number).uniform(low, high) * size
    disk = tmp_path / "disk"
    disk.mkdir()
    script = (
        'set -e; disk=$1 room=$2 out=$3; shift 3; mount -t tmpfs -o size="$room" none "$disk"\n'
        'status=0; "$@" || status=$?; cp -a "$disk/data" "$out/full"\n'
        'mount -o remount,size=100% "$disk"; "$@"; cp -a "$disk/data" "$out/again"; exit $status'
    )
    command = unbroken.command(disk / "data")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script, "sh", str(disk), str(round(room)), str(tmp_path)]
        + command,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode in (0, 2), said
    assert "No space left on device" in said and "Traceback" not in said
    check_whole(tmp_path / "full")
    assert contents(tmp_path / "full") != unbroken.files
    assert contents(tmp_path / "again") == unbroken.files


class Killed(BaseException):
    """The end of a process that gets to clean up nothing."""


@dataclass
class Steps:
    """Counts what is done to the disk, and ends at a given step."""

    last: int
    count: int = 0

    def __call__(self) -> None:
        self.count += 1
        if self.count > self.last:
            raise Killed


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Steps]]:
    """Extraction in this process that ends before or after a given change of the disk."""
    monkeypatch.setattr(spans, "BLOCK_SECONDS", 1)

    class Direct:
        call = staticmethod(sandbox.direct)

    monkeypatch.setattr(stages, "child", Direct)

    def limit(last: int) -> Steps:
        step = Steps(last)

        def counted(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any) -> Any:
                step()
                result = function(*args)
                step()
                return result

            return call

        patch.undo()
        patch.setattr(storage.Target, "_give_up", lambda _: None)
        for owner, name in (
            (storage.Target, "open"), (storage.Target, "_finish"),
            (storage, "remove"), (storage, "remove_folder"),
        ):  # fmt: skip
            patch.setattr(owner, name, counted(getattr(owner, name)))
        return step

    with pytest.MonkeyPatch.context() as patch:
        yield limit


def test_killed_at_each_step(
    steps: Callable[[int], Steps], make_video: MakeVideo, face: Any, data: Path, tmp_path: Path
) -> None:
    """What random moments seldom meet: between a file and its name, a part and its record, ..."""
    make_video("in/a.mp4", talk(face, [n / 10 for n in range(25)]), impulse(2.6, 0.5, 16000))
    make_video("in/b.mp4", talk(face, [0, 0.1]), impulse(0.2, 0.1, 16000))
    options = Options(GroupSpec(fps=10, size=16))

    def run() -> None:
        extract.run([str(tmp_path / "in")], data, options, 0, span_seconds=1)

    step = steps(sys.maxsize)
    run()
    expected, total = contents(data), step.count
    assert total > 30 and len(list(data.glob("groups/*"))) == 1
    for last in range(total):
        shutil.rmtree(data)
        steps(last)
        with pytest.raises(Killed):
            run()
        if data.exists():
            check_whole(data)
        steps(sys.maxsize)
        run()
        assert contents(data) == expected, f"killed after step {last}"
