"""espeak-ng through ctypes, in a process of its own.

The library is global to its process and keeps the state of its oscillators and of its noise from
one call to the next, so the same sentence never sounds the same twice. A fresh process with a fixed
seed does: ``python -m s2vgan.demo.espeak`` reads a request from stdin, writes the speech to stdout
and ends. ``s2vgan.demo.speech`` is the way to call it.
"""

import ctypes
import json
import sys
from typing import Any

import espeakng_loader
import numpy as np

SAMPLE_RATE = 22050

# From espeak-ng's speak_lib.h.
_SYNCHRONOUS = 2
_PHONEME_EVENTS, _PHONEMES_AS_IPA, _DO_NOT_EXIT = 1, 2, 1 << 15
_UTF8 = 1
_EVENT_END, _EVENT_PHONEME = 0, 7
_RATE, _PITCH = 1, 3


class _Id(ctypes.Union):
    _fields_ = [
        ("number", ctypes.c_int),
        ("name", ctypes.c_char_p),
        ("string", ctypes.c_char * 8),
    ]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


def speak(
    sentences: list[str], voice: str, pitch: int, rate: int
) -> list[tuple[np.ndarray, list[tuple[int, str]]]]:
    """Say sentences, once in the life of a process.

    Args:
        sentences: English text.
        voice: espeak voice and variant, such as ``en-us+f3``.
        pitch: 0 to 100.
        rate: words a minute, 80 to 450.

    Returns:
        For each sentence (n,) int16 at 22,050 Hz, and the first sample and IPA name of each sound;
        the name of a pause is empty.

    Raises:
        ValueError: if espeak-ng has no such voice.
    """
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    data = espeakng_loader.get_data_path().encode()
    options = _PHONEME_EVENTS | _PHONEMES_AS_IPA | _DO_NOT_EXIT
    library.espeak_Initialize(_SYNCHRONOUS, 0, data, options)
    library.espeak_ng_SetRandSeed(ctypes.c_long(1))
    if library.espeak_SetVoiceByName(voice.encode()):
        raise ValueError(f"espeak-ng has no voice {voice!r}")
    library.espeak_SetParameter(_PITCH, pitch, 0)
    library.espeak_SetParameter(_RATE, rate, 0)
    chunks: list[np.ndarray] = []
    sounds: list[tuple[int, str]] = []

    def collect(samples: Any, count: int, events: Any) -> int:
        if samples and count:
            chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        position = 0
        while events[position].type != _EVENT_END:
            event = events[position]
            if event.type == _EVENT_PHONEME:
                sounds.append((event.sample, event.id.string.decode(errors="ignore")))
            position += 1
        return 0

    callback = _Callback(collect)
    library.espeak_SetSynthCallback(callback)
    spoken = []
    for sentence in sentences:
        text = sentence.encode()
        library.espeak_Synth(text, len(text) + 1, 0, 1, 0, _UTF8, None, None)
        spoken.append((np.concatenate([np.empty(0, np.int16), *chunks]), list(sounds)))
        chunks.clear()
        sounds.clear()
    return spoken


def main() -> None:
    """Read a JSON request from stdin; write one line of JSON and then the samples to stdout."""
    spoken = speak(**json.load(sys.stdin))
    head = [{"samples": len(audio), "sounds": sounds} for audio, sounds in spoken]
    sys.stdout.buffer.write(json.dumps(head).encode() + b"\n")
    for audio, _ in spoken:
        sys.stdout.buffer.write(audio.astype("<i2").tobytes())


if __name__ == "__main__":
    main()
