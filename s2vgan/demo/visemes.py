"""From sounds to mouth shapes, and smoothly from one shape to the next.

Neighbouring sounds shape each other. Each sound pulls the mouth towards its own shape with a
dominance that rises and falls around it, and the mouth's shape is the mean of all, weighted by
dominance (Cohen and Massaro, "Modeling coarticulation in synthetic visual speech", 1993). Lips that
must meet (m b p) dominate; a k or h takes the shape of the vowels around it.
"""

from typing import NamedTuple

import numpy as np

from s2vgan.demo.speech import Sound


class Viseme(NamedTuple):
    """The mouth's shape for a sound; see `s2vgan.demo.face.Pose` for the first four."""

    opening: float
    spread: float
    lift: float
    tongue: float
    dominance: float


REST = Viseme(0.0, 0.0, 0.0, 0.0, 2.0)
VISEMES = {
    **dict.fromkeys("mbp", Viseme(0.0, 0.0, 0.0, 0.0, 9.0)),
    **dict.fromkeys("fv", Viseme(0.14, 0.1, 0.9, 0.0, 4.0)),
    **dict.fromkeys("wʍ", Viseme(0.16, -1.0, 0.0, 0.0, 3.0)),
    **dict.fromkeys("θð", Viseme(0.26, 0.15, 0.6, 1.0, 1.4)),
    **dict.fromkeys("sz", Viseme(0.14, 0.45, 0.8, 0.3, 1.6)),
    **dict.fromkeys("ʃʒ", Viseme(0.22, -0.5, 0.7, 0.2, 1.6)),
    **dict.fromkeys("tdnlɾɫ", Viseme(0.2, 0.15, 0.5, 0.9, 0.7)),
    **dict.fromkeys("kɡgŋxʔ", Viseme(0.25, 0.0, 0.3, 0.2, 0.4)),
    **dict.fromkeys("h", Viseme(0.35, 0.0, 0.3, 0.2, 0.2)),
    **dict.fromkeys("ɹr", Viseme(0.25, -0.45, 0.2, 0.3, 1.0)),
    **dict.fromkeys("j", Viseme(0.2, 0.7, 0.6, 0.5, 0.8)),
    **dict.fromkeys("i", Viseme(0.32, 1.0, 0.8, 0.5, 1.0)),
    **dict.fromkeys("ɪᵻ", Viseme(0.42, 0.6, 0.6, 0.4, 1.0)),
    **dict.fromkeys("e", Viseme(0.58, 0.7, 0.6, 0.3, 1.0)),
    **dict.fromkeys("ɛ", Viseme(0.66, 0.45, 0.6, 0.3, 1.0)),
    **dict.fromkeys("æ", Viseme(0.88, 0.4, 0.6, 0.2, 1.0)),
    **dict.fromkeys("a", Viseme(1.0, 0.1, 0.5, 0.1, 1.0)),
    **dict.fromkeys("ɑ", Viseme(1.0, 0.0, 0.4, 0.0, 1.0)),
    **dict.fromkeys("ʌɐ", Viseme(0.72, 0.0, 0.4, 0.1, 1.0)),
    **dict.fromkeys("ə", Viseme(0.45, 0.0, 0.3, 0.2, 0.8)),
    **dict.fromkeys("ɚɜ", Viseme(0.48, -0.3, 0.3, 0.3, 1.0)),
    **dict.fromkeys("ɔɒ", Viseme(0.8, -0.55, 0.1, 0.1, 1.0)),
    **dict.fromkeys("o", Viseme(0.6, -0.8, 0.0, 0.1, 1.0)),
    **dict.fromkeys("ʊ", Viseme(0.4, -0.7, 0.1, 0.1, 1.0)),
    **dict.fromkeys("uʉ", Viseme(0.3, -1.0, 0.0, 0.1, 1.2)),
}

_SPAN = 0.028  # seconds over which a sound's dominance falls to 0.6 outside the sound
_STRESS = 1.6  # dominance of a stressed vowel, which reaches its shape
_CLOSING = 0.08  # seconds of silence that close the mouth
_SLACK = 0.07  # what neighbours leave of a closed mouth's opening; taken off, so that lips meet


def mouth_shapes(sounds: list[Sound], times: np.ndarray) -> np.ndarray:
    """The mouth at given times.

    A sound of two shapes, such as the diphthong aɪ or the affricate tʃ, gives half its time to
    each; marks of length and stress have no shape.

    Args:
        sounds: in order of time; a sound of no known shape counts as a pause.
        times: (n,) in seconds, rising by a constant step.

    Returns:
        (n, 4) float64: opening in [0, 1], spread in [-1, 1], lift and tongue in [0, 1].
    """
    total = np.zeros((len(times), 4))
    weight = np.full((len(times), 1), 1e-6)  # where nothing is heard, the mouth is closed
    for sound in sounds:
        shapes = [VISEMES[mark] for mark in sound.ipa if mark in VISEMES] or [REST]
        force = _STRESS if "ˈ" in sound.ipa else 1.0
        if not sound.ipa:  # espeak marks pauses too short to close the mouth
            force = min((sound.end - sound.start) / _CLOSING, 1.0)
        edges = np.linspace(sound.start, sound.end, len(shapes) + 1)
        for shape, start, end in zip(shapes, edges[:-1], edges[1:], strict=True):
            near = slice(*np.searchsorted(times, (start - 5 * _SPAN, end + 5 * _SPAN)))
            at = times[near, None]
            away = np.maximum(np.maximum(start - at, at - end), 0) / _SPAN
            dominance = force * shape.dominance * np.exp(-0.5 * away**2)
            total[near] += dominance * shape[:4]
            weight[near] += dominance
    mouth = total / weight
    mouth[:, 0] = np.maximum(mouth[:, 0] - _SLACK, 0) / (1 - _SLACK)
    return mouth
