"""Addresses of names, and name servers that do not answer."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from opencluster.net import names
from opencluster.net.names import address_of

SLOW = "slow.example.org"
Lookup = Callable[..., list[Any]]


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Return what the name servers wait for before they answer."""
    may_answer = threading.Event()
    ask: Lookup = socket.getaddrinfo

    def getaddrinfo(host: str, *arguments: Any) -> list[Any]:
        if host != SLOW:
            return ask(host, *arguments)
        assert may_answer.wait(20)
        return [(socket.AF_INET, 0, 0, "", ("192.0.2.9", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(names, "WAIT_S", 0.05)
    return may_answer


def test_names_and_addresses() -> None:
    assert address_of("192.0.2.1") == "192.0.2.1"
    assert address_of("localhost") == "127.0.0.1"


@pytest.mark.parametrize("host", ["no.such.invalid", "", "a" * 300, "käse..org", "::1"])
def test_what_has_no_address_is_an_error_each_time(host: str) -> None:
    for _ in range(2):
        with pytest.raises((OSError, UnicodeError)):
            address_of(host)


def test_name_servers_are_waited_for_once(servers: threading.Event) -> None:
    began = time.monotonic()
    for _ in range(100):
        with pytest.raises(OSError, match=r"answered within 0.05 s"):
            address_of(SLOW)
    assert time.monotonic() - began < 2.0  # not 100 times 0.05 s
    # others do not wait for it
    assert address_of("localhost") == "127.0.0.1"
    servers.set()
    address, deadline = "", time.monotonic() + 20
    while not address and time.monotonic() < deadline:
        try:
            address = address_of(SLOW)
        except OSError:
            time.sleep(0.01)
    assert address == "192.0.2.9"
    # it is fast again, and is waited for again should it not be
    assert not names._slow and not names._asked
