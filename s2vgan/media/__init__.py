"""Video and sound files: probe, decode on the presentation clock, resample, encode (PyAV).

Time is the presentation clock of the file, in seconds: what a player shows and plays at that
moment. Start offsets, edit lists, variable frame rates and encoder delays are part of it.
"""

from s2vgan.media.encode import QUICK, Codecs, h264, video_file, write_video, write_wav
from s2vgan.media.files import MAX_PIXELS, MAX_SECONDS, read_tags
from s2vgan.media.patch import REACH, Patch
from s2vgan.media.picture import Picture, Probe, on_grid, pictures, probe
from s2vgan.media.sound import Track, read_audio, read_track
from s2vgan.media.streaming import StreamWriter, encode_fragmented

__all__ = [
    "MAX_PIXELS",
    "MAX_SECONDS",
    "QUICK",
    "REACH",
    "Codecs",
    "Patch",
    "Picture",
    "Probe",
    "StreamWriter",
    "Track",
    "encode_fragmented",
    "h264",
    "on_grid",
    "pictures",
    "probe",
    "read_audio",
    "read_tags",
    "read_track",
    "video_file",
    "write_video",
    "write_wav",
]
