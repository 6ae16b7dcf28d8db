"""Films that are written while they are made: fragmented MP4, WebM and GIF."""

import io
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any, Final

import av
import numpy as np
from PIL import Image

from s2vgan.media.encode import QUICK, Codecs, Encoder

_GIF_CLOCK: Final = 100  # ticks a second, all that GIF knows
_VP8: Final = Codecs(
    # Quality 10 of 63 within a bit rate that it never reaches, at the encoder's fastest.
    "libvpx",
    {"deadline": "realtime", "cpu-used": "8", "crf": "10", "b": "4M", "lag-in-frames": "0"},
    "libopus",
)


class StreamWriter:
    """A film whose bytes can be taken as its pictures come.

    An MP4 or WebM plays while it arrives. A GIF has no sound, and its colours are 256 of each
    picture's own.

    Args:
        kind: ``mp4`` (H.264, AAC; a fragment holds 1 s), ``webm`` (VP8, Opus) or ``gif``.
        fps: frames a second.
        audio: (n,) float32 mono in [-1, 1], or None for no sound.
        sample_rate: of the sound in Hz; WebM takes 8000, 12000, 16000, 24000 or 48000.
        metadata: tags of the file, such as ``title`` and ``comment``.
    """

    def __init__(
        self,
        kind: str,
        fps: int,
        audio: np.ndarray | None,
        sample_rate: int,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self._pipe = _Pipe()
        self._output = av.open(self._pipe, "w", format=kind, options=_OPTIONS[kind])
        self._output.metadata.update(metadata or {})
        self._encoder: Encoder | _Gif
        if kind == "gif":
            self._encoder = _Gif(self._output, fps)
        else:
            codecs = QUICK if kind == "mp4" else _VP8
            self._encoder = Encoder(self._output, codecs, fps, audio, sample_rate, fps)

    def write(self, frames: Iterable[np.ndarray]) -> bytes:
        """Take (H, W, 3) uint8 RGB frames, all of one size; give the bytes that are ready."""
        for pixels in frames:
            self._encoder.add(pixels)
        return self._pipe.take()

    def finish(self) -> bytes:
        """The rest of the file.

        Raises:
            ValueError: if there was no frame.
        """
        self._encoder.close()
        self._output.close()
        return self._pipe.take()


def encode_fragmented(
    frames: Iterable[np.ndarray],
    fps: int,
    audio: np.ndarray | None,
    sample_rate: int,
    *,
    metadata: Mapping[str, str] | None = None,
) -> Iterator[bytes]:
    """A fragmented MP4 in pieces; frames are read only as fast as the pieces are taken.

    Args:
        frames: (H, W, 3) uint8 RGB each.
        fps: frames a second.
        audio: (n,) float32 mono in [-1, 1], or None for no sound.
        sample_rate: of the sound in Hz.
        metadata: tags of the file.

    Yields:
        Non-empty pieces of the file, in order.

    Raises:
        ValueError: if there is no frame.
    """
    writer = StreamWriter("mp4", fps, audio, sample_rate, metadata)
    for pixels in frames:
        if piece := writer.write([pixels]):
            yield piece
    yield writer.finish()


# delay_moov: with empty_moov the header is written before the sound's delay is known, and the
# sound comes 64 ms late (1,024 samples of AAC at 16 kHz).
_OPTIONS: Final = {
    "mp4": {"movflags": "+frag_keyframe+delay_moov+default_base_moof"},
    "webm": {"live": "1", "cluster_time_limit": "1000"},
    "gif": {"loop": "0"},
}


class _Pipe(io.RawIOBase):
    """Collects what the muxer writes, in order; it cannot seek."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        data, self._parts = b"".join(self._parts), []
        return data


class _Gif:
    """Encodes pictures of 256 colours; the interface of :class:`Encoder`."""

    def __init__(self, output: Any, fps: int) -> None:
        self._output, self._fps = output, fps
        self._video: Any = None
        self._frames = 0

    def add(self, pixels: np.ndarray) -> None:
        if self._video is None:
            # Every picture has its own palette, so equal indices are not equal colours.
            self._video = self._output.add_stream("gif", rate=self._fps, options={"gifflags": "0"})
            self._video.height, self._video.width = pixels.shape[:2]
            self._video.pix_fmt = "pal8"
            self._video.time_base = Fraction(1, _GIF_CLOCK)
            self._video.codec_context.time_base = Fraction(1, _GIF_CLOCK)
        indexed: Any = _indexed(pixels)  # PyAV's types do not know of a palette
        frame = av.VideoFrame.from_ndarray(indexed, format="pal8")
        # 3, 3 and 4 hundredths in turn at 30 frames/s: no picture is late by more than half a tick.
        frame.pts = round(self._frames * _GIF_CLOCK / self._fps)
        frame.time_base = Fraction(1, _GIF_CLOCK)
        self._output.mux(self._video.encode(frame))
        self._frames += 1

    def close(self) -> None:
        if self._video is None:
            raise ValueError("no frame to write")
        self._output.mux(self._video.encode(None))


def _indexed(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Picture as (H, W) uint8 indices and a palette (256, 4) uint8 of A, R, G, B."""
    small = Image.fromarray(pixels).quantize(256, Image.Quantize.FASTOCTREE)
    colours = np.frombuffer(small.palette.tobytes(), np.uint8).reshape(-1, 3)  # type: ignore[union-attr]
    palette = np.full((256, 4), 255, np.uint8)
    palette[: len(colours), 1:] = colours
    return np.asarray(small), palette
