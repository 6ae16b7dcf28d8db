"""The score: one number that a sweep can maximise, and by which a champion is dethroned.

No single metric will do. A mean face is faithful and says nothing; a frozen frame is sharp; noise
has motion; a model that ignores its speech can be all three. So the score asks four questions and
multiplies the answers:

=========== ======================================================== =====================
fidelity    is it the face?                                          SSIM
sharpness   has it the detail of a face, no less and no more?        ratio, or its inverse
motion      does the mouth open as far as the real one?              ratio, or its inverse
sync        does it open when the real one does, and because of the  mouth r - its value
            speech?                                                  with other speech
=========== ======================================================== =====================
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

FLOOR: Final = 0.01  # of each answer: keeps an order among models that fail one of the questions


def score(found: Mapping[str, float]) -> float:
    """Whether a face is faithful, sharp, moving and in step with its speech, in [.01, 1].

    The geometric mean of ``ssim``, of ``sharpness`` and ``mouth_amplitude`` (or their inverse
    above 1), and of ``mouth_r`` less the size of ``mouth_r_shuffled``, each at least .01. A model
    that fails one question cannot reach more than .01 ** (1 / 4) = .32, however good it is else.
    1 is the real video.

    Args:
        found: values of these metrics. One that is undefined there, and so is absent, counts as
            0; ``mouth_r_shuffled`` is then taken to be no sign of a blind reading.
    """
    sync = found.get("mouth_r", 0.0) - abs(found.get("mouth_r_shuffled", 0.0))
    answers = (
        found.get("ssim", 0.0),
        _towards_one(found.get("sharpness", 0.0)),
        _towards_one(found.get("mouth_amplitude", 0.0)),
        sync,
    )
    return math.prod(min(max(answer, FLOOR), 1.0) for answer in answers) ** (1 / len(answers))


def score_of_run(rows: Sequence[Mapping[str, Any]], run: str) -> tuple[float, dict[str, float]]:
    """The score of a run in an evaluation: on held-out time, its pose held at the reference.

    Args:
        rows: of metrics.json.
        run: as in their ``run``.

    Returns:
        The score, and the values it was made of and all others of that row.

    Raises:
        ValueError: if the run has no such row.
    """
    own = [row for row in rows if row["run"] == run and row["split"] == "heldout"]
    told = [row for row in own if row["kind"] == "model" and row["pose"] != "true"]
    if not told:
        raise ValueError(f"{run}: no row on held-out time")
    found = _values(told[0])
    for row in own:
        if row["name"] == "shuffled_audio" and "mouth_r" in row["metrics"]:
            found["mouth_r_shuffled"] = _values(row)["mouth_r"]
    return score(found), found


def _values(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(cell["value"]) for name, cell in row["metrics"].items()}


def _towards_one(ratio: float) -> float:
    return min(ratio, 1 / ratio) if ratio > 0 else 0.0
