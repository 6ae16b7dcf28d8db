"""Videos made to harm, byte by byte, for tests/test_hostile.py; and what it calls in a child."""

import gc
import io
import os
import struct
import time
import zlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import numpy as np

from s2vgan import media

PIXELS: Final = {"mjpeg": "yuvj420p", "png": "rgb24"}


def look(path: str) -> list[int]:
    """Probe a video, decode its picture and its sound; how many ticks and samples there are."""
    media.probe(path)
    ticks = sum(1 for _ in media.on_grid(path, 30))
    track = media.read_track(path, 16000)
    return [ticks, sum(len(samples) for _, samples in track.runs)]


def resident() -> int:
    """Bytes of memory that this process holds now."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def harm(kind: str) -> None:
    """Do what a decoder with a bug may do: ``abort``, ``hang`` or take ``memory`` without end."""
    if kind == "abort":
        os.abort()
    if kind == "hang":
        time.sleep(600)
    parts = []
    while True:
        parts.append(b"x" * (1 << 20))


def encode(
    container: str, codec: str = "libx264", sound: str = "aac", size: int = 64, step: float = 0.04
) -> bytes:
    """A valid video of 25 pictures, ``step`` seconds apart, with a second of a tone."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        video: Any = output.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = size, size, PIXELS.get(codec, "yuv420p")
        if codec == "libx264":
            video.options = {"preset": "ultrafast", "threads": "1"}
        speech: Any = output.add_stream(sound, rate=16000, layout="mono")
        frame: Any
        for number in range(25):
            pixels = np.full((size, size, 3), 8 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = frame.reformat(format=video.pix_fmt)
            frame.pts, frame.time_base = round(number * step * 25), Fraction(1, 25)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        wave = np.sin(np.arange(16000) / 8).astype(np.float32)[None] / 2
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
        for part in av.AudioResampler(speech.format.name, "mono", 16000).resample(frame):
            output.mux(speech.encode(part))
        output.mux(speech.encode(None))
    return buffer.getvalue()


def packets(codec: str, container: str, contents: Sequence[bytes]) -> bytes:
    """A video of these packets, 25 a second, with a second of silence."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        video: Any = output.add_stream(codec, rate=25)
        video.width, video.height, video.pix_fmt = 64, 64, PIXELS[codec]
        sound: Any = output.add_stream("pcm_s16le", rate=16000, layout="mono")
        for number, content in enumerate(contents):
            _mux(output, video, content, number, 25)
        _mux(output, sound, bytes(32000), 0, 16000)
    return buffer.getvalue()


def _mux(output: Any, stream: Any, content: bytes, time: int, rate: int) -> None:
    packet: Any = av.Packet(content)
    packet.stream, packet.pts, packet.dts = stream, time, time
    packet.time_base, packet.is_keyframe = Fraction(1, rate), True
    output.mux(packet)


def with_attachment(video: bytes, name: str) -> bytes:
    """A Matroska copy of a video that also carries another file, by a name of its choice."""
    buffer = io.BytesIO()
    source: Any
    output: Any
    with av.open(io.BytesIO(video)) as source, av.open(buffer, "w", format="matroska") as output:
        streams = {s.index: output.add_stream_from_template(s) for s in source.streams}
        output.add_attachment(name, "text/plain", b"x" * 1000)
        for packet in source.demux():
            if packet.pts is not None:
                packet.stream = streams[packet.stream.index]
                output.mux(packet)
    return buffer.getvalue()


def with_h264_size(video: bytes, width: int, height: int) -> bytes:
    """A video whose H.264 claims another size: its sequence parameter set is another."""
    start = video.find(b"\x67\x42\xc0")
    length = video.find(b"\x68", start) - start
    length = len(video[start : start + length].rstrip(b"\0\1"))
    found = video[start : start + length]
    bits = f"{66:08b}{0:08b}{51:08b}"  # baseline, level 5.1
    for value in (0, 0, 2, 1):  # id, frame numbers, order, references
        bits += _golomb(value)
    bits += "0" + _golomb(width // 16 - 1) + _golomb(height // 16 - 1) + "11001"
    bits += "0" * (-len(bits) % 8)
    raw, data, zeros = int(bits, 2).to_bytes(len(bits) // 8, "big"), b"\x67", 0
    for value in raw:
        if zeros >= 2 and value <= 3:
            data, zeros = data + b"\x03", 0
        data, zeros = data + bytes([value]), zeros + 1 if value == 0 else 0
    assert len(data) <= length
    return video.replace(found, data.ljust(length, b"\0"))


def _golomb(value: int) -> str:
    return f"{value + 1:b}".zfill(2 * (value + 1).bit_length() - 1)


def with_jpeg_size(video: bytes, width: int, height: int) -> bytes:
    """A Motion JPEG whose pictures claim another size."""
    return _patch(video, b"\xff\xc0\0\x11\x08", 5, struct.pack(">HH", height, width))


def with_mpeg2_size(video: bytes) -> bytes:
    """An MPEG-2 program stream that claims 16383 x 16383 pixels."""
    found = bytearray(_patch(video, b"\0\0\1\xb3", 4, b"\xff\xff\xff"))
    place = found.find(b"\0\0\1\xb5")
    while place >= 0:
        if found[place + 4] >> 4 == 1:  # the sequence's extension
            found[place + 5] |= 0x01
            found[place + 6] |= 0xE0
        place = found.find(b"\0\0\1\xb5", place + 1)
    return bytes(found)


def with_mpeg4_size(video: bytes, width: int, height: int) -> bytes:
    """An MPEG-4 video in an AVI of 64 x 64 pixels whose headers claim another size."""
    start = video.find(b"\0\0\1\x20")
    bits = "".join(f"{value:08b}" for value in video[start + 4 : start + 24])
    old, new = (f"1{w:013b}1{h:013b}1" for w, h in ((64, 64), (width, height)))
    assert old in bits
    changed = bits.replace(old, new, 1)
    raw = bytes(int(changed[n : n + 8], 2) for n in range(0, len(changed), 8))
    return video[: start + 4] + raw + video[start + 24 :]


def _patch(video: bytes, mark: bytes, offset: int, new: bytes) -> bytes:
    found, place = bytearray(video), video.find(mark)
    assert place >= 0
    while place >= 0:
        found[place + offset : place + offset + len(new)] = new
        place = video.find(mark, place + 1)
    return bytes(found)


def png(width: int, height: int) -> bytes:
    """A black picture, which is very small however large it is."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    squeeze = zlib.compressobj(1)
    row = bytes(1 + 3 * width)
    data = b"".join(squeeze.compress(row) for _ in range(height)) + squeeze.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def box(kind: bytes, *parts: bytes) -> bytes:
    """A box of an MP4 file."""
    content = b"".join(parts)
    return struct.pack(">I", 8 + len(content)) + kind + content


def reference_movie(target: bytes) -> bytes:
    """A QuickTime file that says that the video is elsewhere."""
    location = box(b"rdrf", bytes(4), b"url ", struct.pack(">I", len(target) + 1), target, b"\0")
    return box(b"ftyp", b"qt  \0\0\0\0qt  ") + box(b"moov", box(b"rmra", box(b"rmda", location)))


def with_reference(video: bytes, target: bytes) -> bytes:
    """An MP4 whose samples are in another file, as its data references say."""
    inside = b"url " + bytes(3) + b"\1"
    assert video.count(inside) == 2
    where = struct.pack(">I", 13 + len(target)) + b"url " + bytes(4) + target + b"\0"
    return _grow(video, where)


def _grow(video: bytes, reference: bytes) -> bytes:
    """Exchange every data reference of an MP4 whose moov comes last, all sizes put right."""

    def rebuild(data: bytes) -> bytes:
        out, place = b"", 0
        while place < len(data):
            size, kind = struct.unpack(">I4s", data[place : place + 8])
            content = data[place + 8 : place + size]
            if kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
                content = rebuild(content)
            elif kind == b"dref":
                content = content[:8] + reference
            out, place = out + box(kind, content), place + size
        return out

    moov = video.find(b"moov") - 4
    return video[:moov] + rebuild(video[moov:])


def with_streams(video: bytes, count: int) -> bytes:
    """An MP4 whose moov comes last, with its first track so many times more."""
    moov = video.find(b"moov") - 4
    trak = video.find(b"trak", moov) - 4
    (length,) = struct.unpack(">I", video[trak : trak + 4])
    return video[:moov] + box(b"moov", video[moov + 8 :], video[trak : trak + length] * count)


def with_sound(video: bytes, channels: int, rate: int) -> bytes:
    """An AVI whose sound claims other channels and another rate."""
    format_ = video.find(b"strf", video.find(b"auds")) + 8
    new = struct.pack("<HI", channels, rate) + video[format_ + 8 : format_ + 12]
    new += struct.pack("<H", 2 * channels & 0xFFFF)
    return video[: format_ + 2] + new + video[format_ + 14 :]


def with_hours(video: bytes, hours: float) -> bytes:
    """A Matroska file that claims so many hours."""
    place = video.find(b"\x44\x89\x88")
    assert place >= 0
    return video[: place + 3] + struct.pack(">d", hours * 3.6e6) + video[place + 11 :]


def wav(
    samples: bytes,
    channels: int = 1,
    rate: int = 16000,
    bits: int = 16,
    kind: int = 1,
    lie: int = 0,
) -> bytes:
    """A WAV whose header says what it is told to say."""
    block = channels * bits // 8 & 0xFFFF
    head = struct.pack("<HHIIHH", kind, channels, rate, rate * block & 0xFFFFFFFF, block, bits)
    size = lie or len(samples)
    return (
        b"RIFF" + struct.pack("<I", (size + 36) & 0xFFFFFFFF) + b"WAVEfmt " + struct.pack("<I", 16)
        + head + b"data" + struct.pack("<I", size & 0xFFFFFFFF) + samples
    )  # fmt: skip


def damaged(video: bytes, random: np.random.Generator) -> bytes:
    """A copy with some bytes changed, cut out, put in, or its end cut off."""
    found = bytearray(video)
    for _ in range(int(random.integers(1, 12))):
        # Half of the time in the first 2 kB, where headers are.
        near = min(len(found), 2048) if random.random() < 0.5 else len(found)
        place, length = int(random.integers(near)), int(random.integers(1, 9))
        some = random.bytes(length)
        way = random.random()
        if way < 0.6:
            found[place : place + length] = some
        elif way < 0.75:
            found[place:place] = some
        elif way < 0.9:
            del found[place : place + length]
        elif way < 0.97:
            found[place : place + length] = b"\xff" * length
        else:
            del found[max(place, 16) :]
    return bytes(found)
