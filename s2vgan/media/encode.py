"""Writing MP4: H.264 and AAC, as a file or as a stream."""

import io
import os
import uuid
import wave
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    fps: int,
    audio: np.ndarray | None,
    sample_rate: int,
    *,
    crf: int = 18,
    preset: str = "veryfast",
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write an MP4 (H.264, AAC), whole or not at all. Picture and sound both start at 0.

    Args:
        path: of the MP4; its folder is made.
        frames: (H, W, 3) uint8 RGB each, all of one size; odd sizes grow by one pixel, since
            H.264 4:2:0 needs even ones.
        fps: frames a second.
        audio: (n,) float32 mono in [-1, 1], or None for no sound.
        sample_rate: of the sound in Hz; kept in the file.
        crf: quality of H.264, 0 to 51, lower is better.
        preset: speed of the encoder, an x264 name.
        metadata: tags of the file, such as ``title`` and ``comment``.

    Raises:
        ValueError: if there is no frame.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with av.open(
            str(temporary), "w", format="mp4", options={"movflags": "+faststart"}
        ) as output:
            output.metadata.update(metadata or {})
            for _ in _encode(output, frames, fps, audio, sample_rate, crf, preset, 10 * fps):
                pass
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_wav(path: str | Path, audio: np.ndarray, sample_rate: int = 16000) -> None:
    """Write (n,) float32 mono sound in [-1, 1] as a 16-bit WAV, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with wave.open(str(temporary), "wb") as output:
            output.setnchannels(1)
            output.setsampwidth(2)
            output.setframerate(sample_rate)
            output.writeframes((audio * 32767).round().clip(-32768, 32767).astype("<i2").tobytes())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class _Pipe(io.RawIOBase):
    """Collects what the muxer writes, in order; it cannot seek."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        data, self.parts = b"".join(self.parts), []
        return data


def encode_fragmented(
    frames: Iterable[np.ndarray],
    fps: int,
    audio: np.ndarray | None,
    sample_rate: int,
    *,
    crf: int = 20,
    preset: str = "ultrafast",
    metadata: Mapping[str, str] | None = None,
) -> Iterator[bytes]:
    """Encode a fragmented MP4 that a browser plays while it arrives; a fragment holds 1 s.

    Args:
        frames: (H, W, 3) uint8 RGB each; read only as fast as the bytes are taken.
        fps: frames a second.
        audio: (n,) float32 mono in [-1, 1], or None for no sound.
        sample_rate: of the sound in Hz.
        crf: quality of H.264, 0 to 51, lower is better.
        preset: speed of the encoder, an x264 name.
        metadata: tags of the file, such as ``title`` and ``comment``.

    Yields:
        Non-empty pieces of the file, in order.

    Raises:
        ValueError: if there is no frame.
    """
    pipe = _Pipe()
    # delay_moov: with empty_moov the header is written before the sound's delay is known, and
    # the sound comes 64 ms late (1,024 samples of AAC at 16 kHz).
    options = {"movflags": "+frag_keyframe+delay_moov+default_base_moof"}
    with av.open(pipe, "w", format="mp4", options=options) as output:
        output.metadata.update(metadata or {})
        for _ in _encode(output, frames, fps, audio, sample_rate, crf, preset, fps):
            if pipe.parts:
                yield pipe.take()
    if pipe.parts:
        yield pipe.take()


def _encode(
    output: Any,
    frames: Iterable[np.ndarray],
    fps: int,
    audio: np.ndarray | None,
    sample_rate: int,
    crf: int,
    preset: str,
    gop: int,
) -> Iterator[None]:
    """Encode and mux, sound and picture in step; yields after every frame."""
    video: Any = None
    sound: Any = None
    sent = 0

    def send(until: int) -> None:
        nonlocal sent
        assert audio is not None
        part = np.clip(np.asarray(audio[sent:until], np.float32), -1, 1)
        if len(part):
            frame = av.AudioFrame.from_ndarray(part[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = sample_rate, sent
            frame.time_base = Fraction(1, sample_rate)
            output.mux(sound.encode(frame))
            sent += len(part)

    for number, pixels in enumerate(frames):
        height, width = pixels.shape[:2]
        if height % 2 or width % 2:
            pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if video is None:
            quality = {"crf": f"{crf}", "preset": preset}
            video = output.add_stream("libx264", rate=fps, options=quality)
            video.height, video.width = pixels.shape[:2]
            video.pix_fmt = "yuv420p"
            video.gop_size = gop
            video.codec_context.colorspace, video.codec_context.color_range = (
                6,
                1,
            )  # BT.601, limited
            if audio is not None and len(audio):
                sound = output.add_stream("aac", rate=sample_rate, layout="mono")
                sound.bit_rate = 96_000
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame.pts, frame.time_base = number, Fraction(1, fps)
        output.mux(video.encode(frame))
        if sound is not None:
            send((number + 1) * sample_rate // fps)
        yield
    if video is None:
        raise ValueError("no frame to write")
    if sound is not None:
        assert audio is not None
        send(len(audio))
        output.mux(sound.encode(None))
    output.mux(video.encode(None))
    yield
