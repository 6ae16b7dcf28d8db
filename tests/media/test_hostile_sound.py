"""Sound files made to harm: each is read or refused with a sentence, and leaves nothing behind."""

import io
import itertools
import struct
from collections import Counter
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2vgan.errors import SourceError
from s2vgan.media import read_audio
from tests.hostile import damaged, resident, wav
from tests.serve.sounds import sound

LONGEST = 3.0  # seconds that are read
GROWTH = 6 << 20  # bytes, in three rounds; what is read in one of them is as much
FORMATS = {
    "wav": "pcm_s16le",
    "flac": "flac",
    "ogg": "libopus",
    "mp3": "libmp3lame",
    "webm": "libopus",
    "mp4": "aac",
}
VALID = {kind: sound(1.5, kind, codec, 48000) for kind, codec in FORMATS.items()}
fuzzed = settings(max_examples=150, derandomize=True, deadline=None, database=None)


def outcome(body: bytes) -> str:
    """What becomes of a file: ``read`` or ``refused``; any other error fails the test."""
    try:
        samples = read_audio(body, max_seconds=LONGEST)
    except SourceError as error:
        assert len(str(error)) > 20
        return "refused"
    assert samples.dtype == np.float32 and samples.ndim == 1
    assert 0 < len(samples) <= (LONGEST + 1) * 16000
    assert np.isfinite(samples).all() and np.abs(samples).max() <= 1
    return "read"


Change = tuple[int, bytes, int]


def edits(size: int) -> st.SearchStrategy[list[Change]]:
    """Places in a file, many of them in its head; what comes there, how many more bytes go."""
    places = st.one_of(st.integers(0, size), st.integers(0, 64), st.integers(size // 2, size))
    some = st.one_of(st.binary(max_size=8), st.sampled_from([b"\xff" * 4, bytes(4), b"\x7f"]))
    more = st.one_of(st.just(0), st.just(0), st.integers(-8, 8))
    return st.lists(st.tuples(places, some, more), min_size=1, max_size=3)


def edited(body: bytes, changes: list[Change]) -> bytes:
    """A file with all of the changes."""
    for place, come, more in changes:
        body = body[:place] + come + body[max(0, place + len(come) + more) :]
    return body


@pytest.mark.parametrize("kind", FORMATS)
def test_damage_anywhere(kind: str) -> None:
    outcomes: Counter[str] = Counter()
    body = VALID[kind]

    @fuzzed
    @given(edits(len(body)), st.one_of(st.integers(0, len(body)), st.just(2 * len(body))))
    def run(changes: list[Change], end: int) -> None:
        outcomes[outcome(edited(body, changes)[:end])] += 1

    run()
    assert outcomes["read"] and outcomes["refused"], outcomes


NUMBERS = st.one_of(
    st.integers(0, 2**16 - 1), st.sampled_from([0, 1, 2, 3, 8, 255, 0xFFFE, 0xFFFF, 6, 7, 17, 85])
)
SIZES = st.one_of(
    st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 7999, 16000, 48000, 2**31, 2**32 - 1])
)


def test_any_header_of_a_wav() -> None:
    outcomes: Counter[str] = Counter()

    @settings(fuzzed, max_examples=600)
    @given(
        samples=st.one_of(
            st.binary(max_size=64).map(lambda some: some * 200),
            st.sampled_from([np.nan, np.inf, -1e38]).map(
                lambda value: np.full(6000, value, "<f4").tobytes()
            ),
        ),
        channels=st.one_of(st.sampled_from([1, 1, 1, 2, 8]), NUMBERS),
        rate=st.one_of(st.sampled_from([16000, 16000, 44100, 1]), SIZES),
        bits=st.one_of(st.sampled_from([16, 16, 8, 24, 32, 64]), NUMBERS),
        kind=st.one_of(st.sampled_from([1, 1, 3]), NUMBERS),
        lie=st.one_of(st.just(0), SIZES),
    )
    def run(samples: bytes, channels: int, rate: int, bits: int, kind: int, lie: int) -> None:
        outcomes[outcome(wav(samples, channels, rate, bits, kind, lie))] += 1

    run()
    assert min(outcomes["read"], outcomes["refused"]) > 20, outcomes


def with_gaps(pieces: int, seconds: float) -> bytes:
    """Pieces of sound of 25 ms each, that begin so many seconds after each other."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as output:
        stream: Any = output.add_stream("pcm_s16le", rate=4000, layout="mono")
        for number in range(pieces):
            packet: Any = av.Packet(bytes(200))
            packet.stream, packet.time_base = stream, Fraction(1, 4000)
            packet.pts = packet.dts = round(4000 * seconds * number)
            output.mux(packet)
    return buffer.getvalue()


def test_gaps_without_end_are_refused() -> None:
    assert len(read_audio(with_gaps(3600, 2.0))) > 3600 * 0.02 * 16000  # two hours of speech
    with pytest.raises(SourceError, match="more than 10000 pieces .* aresample"):
        read_audio(with_gaps(10_100, 0.05))


def endless_silence() -> bytes:
    """A WAV of 400 kB and a rate at which it lasts longer than is read."""
    return wav(bytes(400_000), rate=8000)


def no_end(body: bytes) -> bytes:
    """A WAV whose sizes are those of a file that was still being written."""
    return body[:4] + struct.pack("<I", 0xFFFFFFFF) + body[8:]


def test_what_is_read_or_refused_leaves_no_memory_behind() -> None:
    random = np.random.default_rng(5)
    files = [damaged(body, random) for body in VALID.values() for _ in range(25)]
    files += [endless_silence(), no_end(VALID["wav"]), b"", b"RIFF", bytes(100_000)]

    def all_of_them() -> Counter[str]:
        return Counter(outcome(body) for body in files)

    first = [all_of_them() for _ in range(2)]
    before = resident()
    later = [all_of_them() for _ in range(3)]
    assert resident() - before < GROWTH
    assert all(one == first[0] for one in itertools.chain(first, later)), "always the same answer"
    assert set(first[0]) == {"read", "refused"}
