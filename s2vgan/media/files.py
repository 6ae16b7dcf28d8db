"""Opening files that nobody vouches for: allow-lists and limits.

FFmpeg itself keeps to the list of containers and opens only local files. Codecs are compared with
their list when a stream is chosen, before anything of it is decoded (FFmpeg's own list of codecs
does not reach the decoders that PyAV opens). Sizes are limited at the probe.
"""

import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import av

from s2vgan.errors import SourceError
from s2vgan.sandbox import progress

MAX_PIXELS: Final = 4096 * 2304
MAX_SECONDS: Final = 4 * 3600
MIN_AUDIO_RATE: Final = 4_000  # below, minutes of speech become hours
MAX_AUDIO_RATE: Final = 192_000
_PROGRESS: Final = 500  # packets between two signs of life

CONTAINERS: Final = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,flv,ogg,asf,"
    "wav,w64,flac,mp3,aac,aiff,caf"
)
VIDEO_CODECS: Final = (
    "h264,hevc,vp8,vp9,av1,libdav1d,libvpx-vp9,mpeg1video,mpeg2video,mpeg4,msmpeg4v2,msmpeg4,"
    "h263,flv,vc1,wmv2,wmv3,theora,mjpeg,png,prores,ffv1"
)
AUDIO_CODECS: Final = (
    "aac,aac_latm,mp3,mp3float,mp2,mp2float,mp1,mp1float,opus,libopus,vorbis,flac,alac,ac3,eac3,"
    "wmav1,wmav2,amrnb,amrwb,pcm_u8,pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,"
    "pcm_f32le,pcm_f64le,pcm_alaw,pcm_mulaw,adpcm_ms,adpcm_ima_wav"
)
# A picture that grows in the middle of a file is refused before there is memory for it.
_DECODER: Final = {"max_pixels": str(MAX_PIXELS)}
_OPTIONS: Final = {
    "protocol_whitelist": "file",
    "format_whitelist": CONTAINERS,
    # What FFmpeg decodes by itself to know the streams.
    "codec_whitelist": f"{VIDEO_CODECS},{AUDIO_CODECS}",
    **_DECODER,
    "max_streams": "128",  # each is worth a megabyte to FFmpeg; fonts in a film are streams, too
}


def open_file(source: str | Path | bytes) -> Any:
    """Open a local file, or a file's bytes, for reading.

    Raises:
        SourceError: if it is missing, empty, or nothing that the allow-list knows.
    """
    if isinstance(source, bytes):
        name, size = "the audio", len(source)
    else:
        name = str(source)
        if not Path(source).is_file():
            raise SourceError(f"{name}: no such file; check the path.")
        size = Path(source).stat().st_size
    if size == 0:
        raise SourceError(f"{name}: the file is empty (0 bytes).")
    try:
        # "file:" keeps a name such as "concat:a.mp4" from being read as a protocol.
        where = io.BytesIO(source) if isinstance(source, bytes) else f"file:{name}"
        container = av.open(where, options=_OPTIONS)
    except (av.error.FFmpegError, ValueError) as error:  # one for want of memory: many streams
        raise SourceError(
            f"{name}: not a video or sound file that can be read (damaged, cut off, or of a kind "
            "that is not supported); convert it to MP4 or WAV."
        ) from error
    for stream in container.streams.video:
        if stream.codec_context is not None:  # a decoder of its own, which _OPTIONS do not reach
            stream.codec_context.options = _DECODER
    return container


def read_tags(path: str | Path) -> dict[str, str]:
    """The tags of a file's container, such as ``title`` and ``comment``.

    Raises:
        SourceError: as :func:`open_file`.
    """
    with open_file(path) as container:
        return dict(container.metadata)


def video_stream(container: Any, name: str | Path) -> Any:
    """The first stream that is a moving picture (a cover image is none).

    Raises:
        SourceError: if there is none, or its codec is not on the list.
    """
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return _listed(stream, VIDEO_CODECS, name)
    raise SourceError(f"{name}: has no picture; use a video file.")


def audio_stream(container: Any, name: str | Path) -> Any:
    """The first stream that is sound.

    Raises:
        SourceError: if there is none, its codec is not on the list, or its rate is no sound's.
    """
    if not container.streams.audio:
        raise SourceError(f"{name}: has no sound; use a file with a sound track.")
    stream = _listed(container.streams.audio[0], AUDIO_CODECS, name)
    rate = stream.codec_context.sample_rate
    if rate and not MIN_AUDIO_RATE <= rate <= MAX_AUDIO_RATE:
        raise SourceError(
            f"{name}: claims sound of {rate} Hz; {MIN_AUDIO_RATE} to {MAX_AUDIO_RATE} Hz are "
            "supported: convert it to 16000 Hz."
        )
    return stream


def _listed(stream: Any, codecs: str, name: str | Path) -> Any:
    context = stream.codec_context  # None where FFmpeg has no decoder
    codec = "(unknown)" if context is None else context.name
    if codec not in codecs.split(","):
        raise SourceError(
            f"{name}: its codec {codec} is not supported; convert it to MP4 (H.264, AAC) or WAV."
        )
    return stream


def read_packets(container: Any, stream: Any) -> Iterator[Any]:
    """The packets of a stream, up to the end of the file or to where it cannot be read.

    They are signs of life: to read the hours before a span may take longer than a hung decoder is
    given.
    """
    packets = container.demux(stream)
    for number in itertools.count(1):
        try:
            yield next(packets)
        except MemoryError:  # no damage of the file's; FFmpeg's own is an FFmpegError too
            raise
        except (StopIteration, av.error.FFmpegError):
            return
        if number % _PROGRESS == 0:
            progress()


def decode_packets(packets: Iterator[Any]) -> Iterator[list[Any]]:
    """Decoded frames packet by packet; a damaged packet is left out, as a player does."""
    for packet in packets:
        try:
            frames = packet.decode()
        except MemoryError:
            raise
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            continue
        yield frames
