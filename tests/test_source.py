import math

import pytest

from s2vgan.errors import SourceError
from s2vgan.source import Source


@pytest.mark.parametrize(
    ("start", "end"),
    [(-1, None), (5, 5), (5, 4), (math.nan, None), (math.inf, None), (1, math.inf)],
)
def test_what_is_no_stretch_of_time(start: float, end: float | None) -> None:
    with pytest.raises(SourceError, match=r"x\.mp4: from .* is no stretch of time; give a start"):
        Source("x.mp4", start, end)


def test_the_part_in_words() -> None:
    assert Source("x.mp4").part == ""
    assert Source("x.mp4", 12).part == " 12- s"
    assert Source("x.mp4", 12, 34.5).part == " 12-34.5 s"
