"""Which handlers of signals could raise in the midst of what must not be broken off."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from opencluster.net.interrupts import has_handlers, has_handlers_besides


def ours(number: int, frame: object) -> None:
    """Handle a signal, and raise nothing."""


def theirs(number: int, frame: object) -> None:
    """Handle a signal in a way that nobody knows."""


@pytest.fixture(autouse=True)
def no_handlers() -> Iterator[None]:
    """Have no signal handled but by its default while a test runs."""
    numbers = (
        *(signal.SIGALRM, signal.SIGTERM, signal.SIGHUP),
        *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT),
    )
    before = {number: signal.signal(number, signal.SIG_DFL) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_no_handler_is_none_of_others() -> None:
    assert not has_handlers_besides(())
    assert not has_handlers()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR2])
def test_handlers_that_are_known_are_none_of_others(number: signal.Signals) -> None:
    signal.signal(number, ours)
    assert not has_handlers_besides((ours,))
    assert has_handlers_besides(())


@pytest.mark.parametrize("number", [signal.SIGALRM, signal.SIGHUP, signal.SIGINT])
def test_a_handler_that_is_not_known_is_found(number: signal.Signals) -> None:
    signal.signal(signal.SIGTERM, ours)
    signal.signal(number, theirs)
    assert has_handlers_besides((ours,))
