"""Computers that are none: network namespaces with a cable each to one switch.

Needs root and iproute2. All of it ends with the context that made it.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

PREFIX = "oc-"
COMMAND_TIMEOUT_S = 20.0
BURST_BYTES = 256 * 1024
"""Above the 64 KB of a packet that the kernel has not yet cut for the cable."""
LATENCY_MS = 20
"""What a port of a switch keeps before it drops, as time on the cable."""

_numbers = itertools.count(1)


class NoComputers(Exception):
    """Network namespaces cannot be made here."""


@dataclass(frozen=True)
class Computer:
    """One computer.

    Attributes
    ----------
    address : str
        Its only address but the loopback.
    space : str
        Its network namespace.
    """

    address: str
    space: str

    def popen(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
    ) -> subprocess.Popen[str]:
        """Start a process on it, which ends with this one however that ends."""
        enter = ["ip", "netns", "exec", self.space]
        tied = ["setpriv", "--pdeathsig", "KILL", "--"]
        return subprocess.Popen(
            [*enter, *tied, *command],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
        )


@contextmanager
def computers(count: int, rate_mbit: int) -> Iterator[list[Computer]]:
    """Yield computers that reach each other over cables of a rate, in Mbit/s.

    Raises
    ------
    NoComputers
        When they cannot be made here.
    """
    mark = f"{PREFIX}{os.getpid()}-lan{next(_numbers)}-"
    switch = f"{mark}0"
    found = [Computer(f"10.79.0.{n}", f"{mark}{n}") for n in range(1, count + 1)]
    try:
        _run("ip", "netns", "add", switch)
        _run("ip", "-netns", switch, "link", "add", "bridge0", "type", "bridge")
        _run("ip", "-netns", switch, "link", "set", "bridge0", "up")
        for number, computer in enumerate(found, 1):
            _plug_in(computer, number, switch, rate_mbit)
        yield found
    finally:
        for space in (switch, *(computer.space for computer in found)):
            subprocess.run(
                ["ip", "netns", "del", space], capture_output=True, check=False
            )


def _plug_in(computer: Computer, number: int, switch: str, rate_mbit: int) -> None:
    cable, space = f"cable{number}", computer.space
    _run("ip", "netns", "add", space)
    ends = ["type", "veth", "peer", "name", "eth0", "netns", space]
    _run("ip", "-netns", switch, "link", "add", "name", cable, *ends)
    _run("ip", "-netns", switch, "link", "set", cable, "master", "bridge0", "up")
    _run("ip", "-netns", space, "link", "set", "lo", "up")
    _run("ip", "-netns", space, "link", "set", "eth0", "up")
    _run("ip", "-netns", space, "addr", "add", f"{computer.address}/24", "dev", "eth0")
    limit = ["rate", f"{rate_mbit}mbit", "burst", f"{BURST_BYTES}b"]
    limit += ["latency", f"{LATENCY_MS}ms"]
    # both ways: the network card of the computer, and the port of the switch
    for where, device in ((space, "eth0"), (switch, cable)):
        _run(
            "tc", "-netns", where, "qdisc", "add", "dev", device, "root", "tbf", *limit
        )


def _run(*command: str) -> None:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
    except OSError as error:
        raise NoComputers(f"{command[0]}: {error}") from None
    if done.returncode != 0:
        raise NoComputers(f"{' '.join(command)}: {done.stderr.strip()}")
