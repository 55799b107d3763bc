"""Ctrl-C between control ticks, also under a program that listens to it itself."""

import signal

import pytest

from sop_jax.actors.interrupts import deferred_interrupt
from sop_jax.cli.stopping import StopRequests


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def test_the_first_is_remembered_and_the_second_interrupts():
    with deferred_interrupt() as pressed:
        assert not pressed()
        press()
        assert pressed()
        with pytest.raises(KeyboardInterrupt):
            press()


def test_the_inner_block_takes_the_first():
    with deferred_interrupt() as outer:
        with deferred_interrupt() as inner:
            press()
            assert (inner(), outer()) == (True, False)
        press()
        assert outer()


def test_the_programs_own_question_hears_of_it_too():
    """A robot that waits for its scene asks the program, and no episode is under way."""
    heard = []
    with StopRequests() as stop:
        stop.call(lambda: heard.append(1))
        with deferred_interrupt() as outer, deferred_interrupt() as inner:
            press()
            assert (inner(), outer(), stop(), heard) == (True, False, True, [1])
            with pytest.raises(KeyboardInterrupt):  # the second one interrupts at once
                press()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
