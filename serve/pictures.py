"""From the model's frames to what is sent: scaled, marked as synthetic, and packed."""

import io
import struct
import zipfile
from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from s2vgan.provenance import Marker
from s2vgan.spec import GroupSpec
from s2vgan.synthesis import enlarge
from serve.problems import Refusal
from serve.service import Service

SCALE = 4  # of the pictures by default: players would show a face of 64 pixels as a stamp
MAX_SCALE = 16
JPEG_QUALITY = 90  # of live pictures, of 100


class Finish:
    """Scales and marks the frames of one request, in their order; the same for files and live.

    Args:
        service: says whether the label may be left out.
        spec: of the model.
        size: side of the pictures in pixels, a multiple of the model's; None for SCALE times it.
        label: whether the visible label is drawn.

    Raises:
        Refusal: 422 if the size is none, 403 if the label may not be left out.
    """

    def __init__(self, service: Service, spec: GroupSpec, size: int | None, label: bool) -> None:
        own = spec.size
        size = SCALE * own if size is None else size
        if size % own or not 1 <= size // own <= MAX_SCALE:
            raise Refusal(
                422,
                f"size: {size} is not a multiple of this model's {own} pixels up to "
                f"{own * MAX_SCALE}; use {own}, {2 * own}, {3 * own}, ...",
            )
        if not label and not service.unlabelled:
            raise Refusal(403, "label: this service shows the label on all pictures; leave it on.")
        self.size = size
        self._factor = size // own
        self._marker = Marker(label=label, fps=spec.fps)

    def __call__(self, frames: Iterable[np.ndarray]) -> list[np.ndarray]:
        """Frames (S, S, 3) uint8 as pictures (size, size, 3) uint8."""
        return list(self._marker.mark(enlarge(frames, self._factor)))


class ZipWriter:
    """A zip of PNG files, ``000000.png`` and so on, whose bytes can be taken as pictures come."""

    def __init__(self) -> None:
        self._buffer = _Taken()
        self._zip = zipfile.ZipFile(self._buffer, "w", zipfile.ZIP_STORED)
        self._count = 0

    def write(self, frames: Iterable[np.ndarray]) -> bytes:
        """Take (H, W, 3) uint8 RGB pictures; give the bytes that are ready."""
        for pixels in frames:
            self._zip.writestr(f"{self._count:06d}.png", _encoded(".png", pixels))
            self._count += 1
        return self._buffer.take()

    def finish(self) -> bytes:
        """The rest of the file."""
        self._zip.close()
        return self._buffer.take()


class _Taken(io.RawIOBase):
    """Collects what is written; it cannot seek."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: "bytes | memoryview") -> int:  # type: ignore[override]
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        data, self._parts = b"".join(self._parts), []
        return data


def live_message(number: int, seconds: float, pictures: Sequence[np.ndarray]) -> bytes:
    """A group as one message of the WebSocket; all numbers are little endian.

    ======  ===========  ==================================================
    offset  type         what
    ======  ===========  ==================================================
    0       uint32       number of the group, from 0
    4       uint32       n, pictures of the group
    8       float64      time of its first picture in the speech, in seconds
    16      n x uint32   bytes of each JPEG
    16+4n   bytes        the JPEGs, one after another
    ======  ===========  ==================================================
    """
    files = [_encoded(".jpg", one, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY)) for one in pictures]
    head = struct.pack(f"<IId{len(files)}I", number, len(files), seconds, *map(len, files))
    return head + b"".join(files)


def _encoded(kind: str, pixels: np.ndarray, options: Sequence[int] = ()) -> bytes:
    done, data = cv2.imencode(kind, pixels[..., ::-1], options)
    if not done:
        raise RuntimeError(f"OpenCV cannot write {kind}")
    return data.tobytes()
