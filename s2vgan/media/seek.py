"""Starting to decode in the middle of a video, with the same pictures as from its start.

No container is asked to seek: what a jump in a file gives depends on its index, its edit list and
on timestamps that FFmpeg guesses. All packets are read, which costs a few microseconds each, and
those before a keyframe are thrown away undecoded. So the packets and their times are the same as
in a full run, and only the decoder has to be trusted to start clean: at a keyframe that forgets
everything before it.
"""

from collections.abc import Iterator
from typing import Any, Final

# Packets that are held back while a later keyframe may still make them needless.
_MAX_PENDING_BYTES: Final = 64 << 20


def starts_clean(stream: Any, packet: Any) -> bool:
    """Whether a keyframe's packet makes all pictures from its own time on independent of the past.

    False where that is not certain: for other codecs than those known here too.
    """
    rule = _RULES.get(stream.codec_context.name)
    return bool(packet.is_keyframe and rule and rule(stream, bytes(packet)))


def knows(stream: Any) -> bool:
    """Whether the stream's codec is one whose clean keyframes are recognised."""
    return stream.codec_context.name in _RULES


def skip(packets: Iterator[Any], stream: Any, time: float) -> tuple[int | None, list[Any]]:
    """Read the packets of a stream up to where decoding must start to be right from a time on.

    Args:
        packets: of a stream, from its start; what is not returned remains in it.
        stream: the stream.
        time: in seconds on the presentation clock.

    Returns:
        The time stamp of the last clean keyframe not later than ``time``, in units of the
        stream's time base, or None for the start of the stream; and the packets from there on
        that have been read.
    """
    key: int | None = None
    pending: list[Any] = []
    stamps: set[int] = set()  # of the pending packets
    floor = highest = -(1 << 63)  # of the packets before the pending ones; of all
    size = 0
    target = time / float(stream.time_base)
    for packet in packets:
        pts = packet.pts
        # A packet without a time, two of one time or a clock that runs backwards have effects
        # that reach beyond the next keyframe.
        regular = pts is not None and pts > floor and pts not in stamps
        if not regular or pts > target or size > _MAX_PENDING_BYTES:
            return key, [*pending, packet]
        if packet.is_keyframe and pts > highest and starts_clean(stream, packet):
            key, floor, size = pts, highest, 0
            pending.clear()
            stamps.clear()
        pending.append(packet)
        stamps.add(pts)
        size += packet.size
        highest = max(highest, pts)
    return key, pending


def _units(stream: Any, data: bytes) -> Iterator[bytes]:
    """The NAL units of a packet, in either of their two framings."""
    extradata = bytes(stream.codec_context.extradata or b"")
    if extradata[:1] != b"\1":
        yield from data.split(b"\0\0\1")[1:]
        return
    place = 4 if stream.codec_context.name == "h264" else 21
    width = (extradata[place] & 3) + 1 if len(extradata) > place else 4
    while len(data) > width:
        length = int.from_bytes(data[:width])
        yield data[width : width + length]
        data = data[width + length :]


def _h264(stream: Any, data: bytes) -> bool:
    for unit in _units(stream, data):
        kind = unit[0] & 31 if unit else 0
        if kind == 5:  # IDR
            return True
        # A recovery point (an open group of pictures): from this picture on (0 frames to go), the
        # match is exact. As bits: ue(0) = 1, exact_match_flag = 1.
        if kind == 6 and unit[1:2] == b"\6" and len(unit) > 3 and unit[3] & 0xC0 == 0xC0:
            return True
        if kind == 1:
            return False
    return False


def _hevc(stream: Any, data: bytes) -> bool:
    """IDR, CRA or BLA; what leads such a picture is shown before it."""
    kinds = [unit[0] >> 1 & 63 for unit in _units(stream, data) if unit]
    slices = [kind for kind in kinds if kind < 32]
    return bool(slices) and all(16 <= kind <= 21 for kind in slices)


def _vp8(stream: Any, data: bytes) -> bool:
    return len(data) > 0 and data[0] & 0x11 == 0x10  # a keyframe that is shown


def _vp9(stream: Any, data: bytes) -> bool:
    # Frame marker 2, two bits of profile (not 3), no older frame, a keyframe, shown.
    return len(data) > 0 and data[0] & 0xCE == 0x82 and data[0] & 0x30 != 0x30


def _av1(stream: Any, data: bytes) -> bool:
    while data:
        head, kind = 2 if data[0] & 4 else 1, data[0] >> 3 & 15
        size = len(data) - head
        if data[0] & 2:  # the unit says how long it is, seven bits a byte
            size = shift = 0
            more = True
            while more and head < len(data):
                size |= (data[head] & 127) << shift
                more, head, shift = data[head] > 127, head + 1, shift + 7
        if kind in (3, 6):  # a frame's header: no older frame, a keyframe, shown
            return data[head : head + size][:1] != b"" and data[head] >> 4 == 1
        data = data[head + size :]
    return False


_RULES: Final = {
    "h264": _h264, "hevc": _hevc, "vp8": _vp8, "libvpx": _vp8, "vp9": _vp9, "libvpx-vp9": _vp9,
    "av1": _av1, "libdav1d": _av1,
}  # fmt: skip
