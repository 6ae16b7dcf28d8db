"""One number that a sweep can maximise."""

import math
from collections.abc import Mapping


def score(found: Mapping[str, float]) -> float:
    """One number in (0, 1] that a sweep can maximise: is the face good, sharp, and speaking?

    The geometric mean of fidelity (``ssim``), motion (``mouth_r`` times ``mouth_amplitude``, or
    its inverse above 1) and, where given, sharpness (``sharpness``, or its inverse above 1), each
    at least .01. As a product it is near zero where one of them is: a mean face and a frozen
    frame have no motion, wrong audio gives uncorrelated motion, noise is unlike the face.

    Args:
        found: values of these metrics; absent ``ssim``, ``mouth_r`` or ``mouth_amplitude`` are 0.
    """
    motion = found.get("mouth_r", 0.0) * _towards_one(found.get("mouth_amplitude", 0.0))
    parts = [found.get("ssim", 0.0), motion]
    if "sharpness" in found:
        parts.append(_towards_one(found["sharpness"]))
    return math.prod(min(max(part, 0.01), 1.0) for part in parts) ** (1 / len(parts))


def _towards_one(ratio: float) -> float:
    return min(ratio, 1 / ratio) if ratio > 0 else 0.0
