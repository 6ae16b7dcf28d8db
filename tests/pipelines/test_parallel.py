"""What needs no Ray of it; tests/integration/test_extract.py has the rest."""

import os
import signal

import pytest

from pipelines.parallel import unbroken


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_waits_for_the_end_of_the_block() -> None:
    steps = []
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        with unbroken():
            press()
            steps.append("went on")
        steps.append("not this")
    assert steps == ["went on"] and signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_does_not_wait() -> None:
    steps = []
    with pytest.raises(KeyboardInterrupt), unbroken():
        press()
        steps.append("went on")
        press()
        steps.append("not this")
    assert steps == ["went on"]


def test_an_error_is_not_hidden() -> None:
    with pytest.raises(ValueError, match="mine"), unbroken():
        press()
        raise ValueError("mine")
