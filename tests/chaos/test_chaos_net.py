"""The virtual network itself: it carries, and it drops what it should."""

from __future__ import annotations

import socket
import subprocess

import pytest
from chaos_net import Network, network

pytestmark = pytest.mark.processes


def hears(net: Network, listener: str, speaker: str, count: int = 1) -> int:
    """Return how many of so many datagrams arrive."""

    def listen() -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((net.host(listener).address, 5000))
        sock.settimeout(0.3)
        return sock

    def speak() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _ in range(count):
                sock.sendto(b"hello", (net.host(listener).address, 5000))

    # a socket stays on the computer where it was made
    with net.host(listener).call(listen) as sock:
        net.host(speaker).call(speak)
        arrived = 0
        while arrived < count:
            try:
                sock.recv(100)
            except TimeoutError:
                break
            arrived += 1
        return arrived


def test_hosts_hear_each_other_until_they_are_cut_and_after_that_is_healed() -> None:
    with network("a", "b", "c") as net:
        assert hears(net, "a", "b") and hears(net, "b", "a")
        net.cut(["a"], ["b"])
        assert not hears(net, "a", "b") and not hears(net, "b", "a")
        # who is on neither side reaches both
        assert hears(net, "a", "c") and hears(net, "c", "b")
        net.heal()
        assert hears(net, "a", "b") and hears(net, "b", "a")


def test_a_host_that_is_cut_off_still_hears_itself() -> None:
    with network("a", "b", "c") as net:
        net.cut_off("b")
        assert not hears(net, "a", "b") and not hears(net, "b", "c")
        assert hears(net, "b", "b") and hears(net, "c", "a")


def test_one_direction_can_be_cut() -> None:
    with network("a", "b") as net:
        net.deafen(["a"], ["b"])
        assert not hears(net, "a", "b")
        assert hears(net, "b", "a")


def test_a_share_of_the_packets_is_lost() -> None:
    with network("a", "b") as net:
        assert hears(net, "a", "b", 1)
        net.lose(0.2, ["a"])
        # six standard deviations from the mean, on both sides
        assert 125 < hears(net, "a", "b", 200) < 195


def test_nothing_is_left_of_a_network() -> None:
    with network("a", "b") as net:
        mark = net.host("a").space.rpartition("-")[0]
        listed = ["ip", "netns", "list"]
        assert mark in subprocess.run(listed, capture_output=True, text=True).stdout
    assert mark not in subprocess.run(listed, capture_output=True, text=True).stdout


def test_a_connection_that_is_cut_sees_no_end_and_goes_on_when_it_is_healed() -> None:
    with network("a", "b") as net:
        server = net.host("a").call(
            lambda: socket.create_server((net.host("a").address, 5001))
        )
        client = net.host("b").call(
            lambda: socket.create_connection((net.host("a").address, 5001))
        )
        with server, client:
            accepted, _ = server.accept()
            with accepted:
                accepted.settimeout(0.3)
                net.cut(["a"], ["b"])
                client.sendall(b"x")
                with pytest.raises(TimeoutError):
                    accepted.recv(1)
                net.heal()
                accepted.settimeout(30)
                assert accepted.recv(1) == b"x"
