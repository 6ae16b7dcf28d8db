"""Writing films: pictures and the sound beside them, in step; and WAV."""

import os
import uuid
import wave
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import av
import cv2
import numpy as np


@dataclass(frozen=True)
class Codecs:
    """How pictures and sound are compressed.

    Attributes:
        video: FFmpeg's name of the encoder of pictures.
        options: of that encoder.
        audio: FFmpeg's name of the encoder of sound.
        audio_options: of that encoder.
    """

    video: str
    options: dict[str, str]
    audio: str
    audio_options: dict[str, str] = field(default_factory=dict)


def h264(crf: int = 18, preset: str = "veryfast", threads: int = 0) -> Codecs:
    """H.264 and AAC, as MP4 holds them.

    Args:
        crf: quality, 0 to 51, lower is better.
        preset: speed of the encoder, an x264 name.
        threads: that encode the pictures; 0 for as many as there are cores.
    """
    # FFmpeg's default search of AAC takes twice the time, and is better below 64 kbit/s alone.
    options = {"crf": f"{crf}", "preset": preset, "threads": f"{threads}"}
    return Codecs("libx264", options, "aac", {"aac_coder": "fast"})


FINE: Final = h264()
QUICK: Final = h264(20, "ultrafast", threads=1)  # at 256 pixels a second thread only costs


def write_video(
    path: str | Path,
    frames: Iterable[np.ndarray],
    fps: int,
    audio: np.ndarray | None,
    sample_rate: int,
    *,
    codecs: Codecs = FINE,
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
        codecs: H.264 and AAC, from :func:`h264`.
        metadata: tags of the file, such as ``title`` and ``comment``.

    Raises:
        ValueError: if there is no frame.
    """
    with video_file(path, fps, audio, sample_rate, codecs=codecs, metadata=metadata) as encoder:
        for pixels in frames:
            encoder.add(pixels)


@contextmanager
def video_file(
    path: str | Path,
    fps: int,
    audio: np.ndarray | None,
    sample_rate: int,
    *,
    codecs: Codecs = FINE,
    metadata: Mapping[str, str] | None = None,
) -> Iterator["Encoder"]:
    """:func:`write_video` for pictures that come one by one: add them to what this gives.

    Raises:
        ValueError: at its end, if there was no picture.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    options = {"movflags": "+faststart"}
    try:
        with av.open(str(temporary), "w", format="mp4", options=options) as output:
            output.metadata.update(metadata or {})
            encoder = Encoder(output, codecs, fps, audio, sample_rate, 10 * fps)
            yield encoder
            encoder.close()
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


class Encoder:
    """Encodes pictures as they come, with as much of the sound as belongs to them.

    Args:
        output: an open container of PyAV.
        codecs: what to compress with.
        fps: frames a second.
        audio: (n,) float32 mono in [-1, 1], or None for no sound.
        sample_rate: of the sound in Hz.
        gop: frames from one key frame to the next.
    """

    def __init__(
        self,
        output: Any,
        codecs: Codecs,
        fps: int,
        audio: np.ndarray | None,
        sample_rate: int,
        gop: int,
    ) -> None:
        self._output, self._codecs, self._fps, self._gop = output, codecs, fps, gop
        self._audio = None if audio is None or not len(audio) else audio
        self._sample_rate = sample_rate
        self._video: Any = None
        self._sound: Any = None
        self._frames = self._samples = 0  # sent so far

    def add(self, pixels: np.ndarray) -> None:
        """Encode the next picture, (H, W, 3) uint8 RGB; odd sizes grow by one pixel."""
        height, width = pixels.shape[:2]
        if height % 2 or width % 2:
            pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._video is None:
            self._begin(*pixels.shape[:2])
        frame = av.VideoFrame.from_ndarray(_yuv420(pixels), format="yuv420p")
        frame.pts, frame.time_base = self._frames, Fraction(1, self._fps)
        self._output.mux(self._video.encode(frame))
        self._frames += 1
        self._send(self._frames * self._sample_rate // self._fps)

    def close(self) -> None:
        """Encode what is left: the end of the sound, and what the encoders kept back.

        Raises:
            ValueError: if there was no picture.
        """
        if self._video is None:
            raise ValueError("no frame to write")
        if self._audio is not None:
            self._send(len(self._audio))
            self._output.mux(self._sound.encode(None))
        self._output.mux(self._video.encode(None))

    def _begin(self, height: int, width: int) -> None:
        codecs = self._codecs
        self._video = self._output.add_stream(codecs.video, rate=self._fps, options=codecs.options)
        self._video.height, self._video.width = height, width
        self._video.pix_fmt, self._video.gop_size = "yuv420p", self._gop
        context = self._video.codec_context
        context.colorspace, context.color_range = 6, 1  # BT.601, limited
        if self._audio is not None:
            self._sound = self._output.add_stream(
                codecs.audio,
                rate=self._sample_rate,
                layout="mono",
                options=codecs.audio_options,
            )
            self._sound.bit_rate = 96_000

    def _send(self, until: int) -> None:
        if self._audio is None:
            return
        part = np.clip(np.asarray(self._audio[self._samples : until], np.float32), -1, 1)
        if not len(part):
            return
        frame = av.AudioFrame.from_ndarray(part[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = self._sample_rate, self._samples
        frame.time_base = Fraction(1, self._sample_rate)
        self._output.mux(self._sound.encode(frame))
        self._samples += len(part)


# Cb and Cr of R, G, B and 1: BT.601 in its limited range (ITU-R BT.601-7, 2.5.3).
_CHROMA: Final = np.array(
    [[-37.797 / 255, -74.203 / 255, 112 / 255, 128], [112 / 255, -93.786 / 255, -18.214 / 255, 128]]
)


def _yuv420(pixels: np.ndarray) -> np.ndarray:
    """A picture (H, W, 3) uint8 RGB of even sides as planes Y, Cb, Cr, (1.5 H, W) uint8.

    The chroma of a pixel is that of the mean of its four. A third of the time of FFmpeg's own
    conversion, and nearer to the exact one.
    """
    height, width = pixels.shape[:2]
    pixels = np.ascontiguousarray(pixels)
    planes = cv2.cvtColor(pixels, cv2.COLOR_RGB2YUV_I420)
    quarter = cv2.resize(pixels, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    chroma = cv2.transform(quarter, _CHROMA)
    np.asarray(planes).reshape(-1)[height * width :] = chroma.transpose(2, 0, 1).reshape(-1)
    return np.asarray(planes, np.uint8)
