"""A virtual network of computers: namespaces joined by a switch, whose cables lie.

Each host is a network namespace with a cable to one switch. What a host hears is
decided by a filter where the switch puts frames on its cable, which looks at the
hardware address of the sender: a frame that is not let through vanishes, as on a cable
that is cut. Nothing lies in the network namespace of the tests themselves, so that
several runs may go on at a time.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

SPACES = Path("/run/netns")
PREFIX = "oc-"
SWITCH = "bridge0"
CLONE_NEWNET = 0x40000000
COMMAND_TIMEOUT_S = 20.0

Value = TypeVar("Value")

_numbers = itertools.count(1)


@dataclass(eq=False)
class Host:
    """One computer of the network.

    Attributes
    ----------
    name, address : str
        Its name in the test, and its IPv4 address.
    number : int
        The last byte of its address and of its hardware address.
    space : str
        The network namespace.
    deaf_to : set of int
        Numbers of the hosts of which nothing arrives here.
    loss : float
        Share of the other frames that are lost on their way here.
    """

    name: str
    number: int
    space: str
    deaf_to: set[int] = field(default_factory=set)
    loss: float = 0.0

    @property
    def address(self) -> str:
        return f"10.77.0.{self.number}"

    @property
    def cable(self) -> str:
        """The end of its cable that is in the switch."""
        return f"cable{self.number}"

    @property
    def hardware_address(self) -> str:
        """What the filters of the others know it by."""
        return f"02:00:00:00:00:{self.number:02x}"

    def popen(self, command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        """Start a process on this computer; its number is that of the command.

        It ends with this process, however that ends.
        """
        enter = ["nsenter", f"--net={SPACES / self.space}", "--"]
        tied = ["setpriv", "--pdeathsig", "KILL", "--"]
        return subprocess.Popen([*enter, *tied, *command], **options)

    def call(self, function: Callable[[], Value]) -> Value:
        """Run a function in a thread that is on this computer.

        Threads that it starts, those of libzmq among them, are there as well.
        """
        future: Future[Value] = Future()

        def run() -> None:
            try:
                _enter(SPACES / self.space)
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)

        thread = threading.Thread(target=run, name=f"on-{self.name}")
        thread.start()
        thread.join()
        return future.result()


class Network:
    """Hosts that reach each other, until a test has them not.

    Use `network`, which takes it down again.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._mark = f"{PREFIX}{os.getpid()}-{next(_numbers)}-"
        self._switch = f"{self._mark}0"
        self.hosts = {
            name: Host(name, number, f"{self._mark}{number}")
            for number, name in enumerate(names, 1)
        }

    def host(self, name: str) -> Host:
        """Return the computer of a name."""
        return self.hosts[name]

    # --- faults --------------------------------------------------------------

    def cut(self, *groups: Iterable[str]) -> None:
        """Cut the network into groups; who is in none of them reaches everyone."""
        sides = [[self.hosts[name] for name in group] for group in groups]
        for ours, others in itertools.permutations(sides, 2):
            for host in ours:
                host.deaf_to |= {other.number for other in others}
        self._apply()

    def cut_off(self, name: str) -> None:
        """Cut one computer off from all the others."""
        self.cut([name], [other for other in self.hosts if other != name])

    def deafen(self, names: Iterable[str], to: Iterable[str]) -> None:
        """Cut one direction: some hear nothing of others, who hear them."""
        others = {self.hosts[other].number for other in to}
        for name in names:
            self.hosts[name].deaf_to |= others
        self._apply()

    def lose(self, share: float, names: Iterable[str] | None = None) -> None:
        """Lose a share of the frames that go to these computers, or to all."""
        for name in names if names is not None else self.hosts:
            self.hosts[name].loss = share
        self._apply()

    def heal(self) -> None:
        """Let everything through again."""
        for host in self.hosts.values():
            host.deaf_to, host.loss = set(), 0.0
        self._apply()

    def _apply(self) -> None:
        """Set all filters, in so short a time that it is all but one moment."""
        rules = [
            f"filter replace dev {host.cable} egress pref 1 handle 1 bpf da bytecode "
            f'"{filter_code(host.deaf_to, host.loss)}"'
            for host in self.hosts.values()
        ]
        _run("tc", "-netns", self._switch, "-batch", "-", text="\n".join(rules))

    # --- up and down ---------------------------------------------------------

    def up(self) -> None:
        """Make the namespaces and the cables.

        Raises
        ------
        CommandFailed
            When that is not permitted here.
        """
        remove_leftovers()
        _run("ip", "netns", "add", self._switch)
        bridge = f"link add name {SWITCH} type bridge\nlink set {SWITCH} up"
        _ip(self._switch, bridge)
        for host in self.hosts.values():
            self._plug_in(host)
        self._apply()

    def _plug_in(self, host: Host) -> None:
        _run("ip", "netns", "add", host.space)
        _ip(
            self._switch,
            f"link add name {host.cable} type veth peer name eth0 netns {host.space}\n"
            f"link set {host.cable} master {SWITCH} up",
        )
        # known for good, so that a cut is silent, as one beyond a router is
        neighbours = [
            f"neigh add {other.address} lladdr {other.hardware_address} dev eth0"
            for other in self.hosts.values()
            if other is not host
        ]
        _ip(
            host.space,
            "link set lo up\n"
            f"link set eth0 address {host.hardware_address} up\n"
            f"address add {host.address}/24 dev eth0\n" + "\n".join(neighbours),
        )
        _run("tc", "-netns", self._switch, "qdisc", "add", "dev", host.cable, "clsact")

    def down(self) -> None:
        """Remove everything."""
        for space in SPACES.glob(f"{self._mark}*"):
            _run("ip", "netns", "del", space.name)


@contextmanager
def network(*names: str) -> Iterator[Network]:
    """Yield a network of such hosts; skip the test where that is not permitted."""
    made = Network(names)
    try:
        try:
            made.up()
        except CommandFailed as error:
            pytest.skip(f"no virtual network can be made here: {error}")
        yield made
    finally:
        made.down()


def filter_code(deaf_to: Iterable[int], loss: float) -> str:
    """Return the filter's program, in the notation of tc.

    It drops frames by the last byte of the sender's hardware address, then a share of
    all that are left, drawn at random.
    """
    drop, accept = "6 0 0 2", "6 0 0 0"
    lines = []
    senders = sorted(deaf_to)
    if senders:
        lines.append("48 0 0 11")
        for number in senders:
            lines += [f"21 0 1 {number}", drop]
    if loss:
        # the kernel's own source of random numbers, read as if from the frame
        lines += ["32 0 0 4294963256", f"53 1 0 {int(loss * 0xFFFFFFFF)}", drop]
    lines.append(accept)
    return f"{len(lines)},{','.join(lines)}"


def remove_leftovers() -> None:
    """Remove the namespaces of runs that were killed."""
    for space in SPACES.glob(f"{PREFIX}*-*"):
        owner = space.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            subprocess.run(["ip", "netns", "del", space.name], check=False)


class CommandFailed(Exception):
    """A command did not do what it should."""


def _ip(space: str, lines: str) -> None:
    _run("ip", "-netns", space, "-batch", "-", text=lines)


def _run(*command: str, text: str = "") -> None:
    try:
        done = subprocess.run(
            command,
            input=text.encode(),
            capture_output=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
    except OSError as error:
        raise CommandFailed(f"{command[0]}: {error}") from None
    if done.returncode != 0:
        raise CommandFailed(f"{' '.join(command)}: {done.stderr.decode().strip()}")


def _enter(space: Path) -> None:
    """Move the calling thread into a network namespace, for good."""
    fd = os.open(space, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter {space}")
    finally:
        os.close(fd)


def environment_of(settings: Mapping[str, object]) -> dict[str, str]:
    """Return settings as environment variables."""
    return {
        f"OPENCLUSTER_{name.replace('.', '_', 1).upper()}": str(value)
        for name, value in settings.items()
    }
