"""What moves in a face without a reason in the sound: head and eyelids."""

import numpy as np

_REACH = np.array([2.2, 1.5, 0.022, 0.012])  # pixels, pixels, radians, growth
_BLINK = 0.09, 0.14, 0.3  # seconds after its begin: closed, opening again, open


def sway(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Slow random motion of the head.

    Args:
        times: (n,) in seconds.
        rng: decides on it.

    Returns:
        (n, 4): shift to the right and down in pixels of the photograph, turn in radians, growth;
        each a sum of slow sines.
    """
    frequency = rng.uniform(0.06, 0.4, (4, 5))
    phase = rng.uniform(0, 2 * np.pi, (4, 5))
    waves = np.sin(2 * np.pi * times[:, None, None] * frequency + phase)
    return waves.sum(2) * (_REACH / 2.2)


def blinks(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Closure of the eyes, (n,) in [0, 1]: a blink of 0.3 s every 1.5 s or later, 4 s on average.

    Args:
        times: (n,) in seconds.
        rng: decides on it.
    """
    closed, opening, over = _BLINK
    closure = np.zeros(len(times))
    begin = rng.uniform(0.3, 2.0)
    while begin < times[-1]:
        since = times - begin
        closure += np.interp(since, (0, closed, opening, over), (0, 1, 1, 0))
        begin += 1.5 + rng.exponential(2.5)
    return closure
