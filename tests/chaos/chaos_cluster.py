"""A cluster on a virtual network: each program on a host of its own, to be harmed.

Factories, workshops and programs are started as users start them, and found again by
name. One host, the eye, takes part in no fault: from there it is observed who says
what.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
from chaos_net import Network, environment_of

from opencluster.config import load
from opencluster.config.loading import PREFIX
from opencluster.errors import FactoryUnreachable, OpenClusterError
from opencluster.net.control import Control

DEADLINE_S = 60.0
"""By then what is waited for has happened, on a busy machine too."""
FACTORY_PORT = 9100
TOLD_CHARACTERS = 4000
EYE = "eye"
STARTER = "opencluster.start"
"""The module that a worker process runs."""

Value = TypeVar("Value")

Around = Callable[[str, Path], Sequence[str]]
"""Returns, for a program and the cluster's directory on its host, a command that runs
another one, which follows as its arguments, in surroundings of the test's choice."""

BASE: Mapping[str, object] = {
    "cluster.insecure": True,
    "manager.worker_wait_s": 120,
    # a piece may lose many workers here, and each loss is the test's fault
    "manager.retries": 1000,
    "manager.max_kills": 1000,
    # so that a map comes to its end soon after it was told to
    "manager.window": 200,
    "workshop.restart_delay_s": 0.1,
    "workshop.restart_delay_max_s": 0.5,
    "workshop.stop_grace_s": 1,
}
"""Settings without which faults on purpose would count as faults of the user's code;
those that matter for how soon a fault is noticed are the defaults."""


@dataclass(eq=False)
class Program:
    """One process, and how to start it again.

    Attributes
    ----------
    name, host : str
        What it is, and where it runs.
    command : sequence of str
        What is run.
    environment : dict of str to str
        Its environment.
    log : Path
        What it says.
    """

    name: str
    host: str
    command: Sequence[str]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None, f"{self.name} was never started"
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def said(self) -> str:
        """Return all that it said."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


@dataclass
class ChaosCluster:
    """What runs on the network.

    Parameters
    ----------
    net : Network
        Its hosts; the factories are on those whose names begin with ``f``.
    path : Path
        A short path, for the directories of all programs.
    settings : mapping of str to object
        For all of them.
    around : callable, optional
        What the programs run in.
    """

    net: Network
    path: Path
    settings: Mapping[str, object] = field(default_factory=dict)
    around: Around | None = None
    programs: dict[str, Program] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.list_factories([n for n in self.net.hosts if n.startswith("f")])
        config = load(environ=self._common)
        found = [[f"tcp://{self._address(name)}"] for name in self.factories]
        # a second one for what waits, so that who leads can be seen meanwhile
        self.client = self._on_eye(lambda: Control(config, lambda: found))
        self._eye = self._on_eye(lambda: Control(config, lambda: found))

    def _on_eye(self, make: Callable[[], Value]) -> Value:
        return self.net.host(EYE).call(make)

    def _address(self, factory: str) -> str:
        return f"{self.net.host(factory).address}:{FACTORY_PORT}"

    # --- programs --------------------------------------------------------------

    def list_factories(self, names: Sequence[str]) -> None:
        """Say what the list of factories is for programs that are started from now."""
        self.factories = list(names)
        addresses = ",".join(map(self._address, names))
        settings = dict(BASE) | dict(self.settings) | {"cluster.factories": addresses}
        self._common = environment_of(settings)

    def start_factory(self, name: str, **variables: str) -> Program:
        """Start a factory on the host of that name."""
        address = ["--host", self.net.host(name).address, "--port", str(FACTORY_PORT)]
        command = self._opencluster("factory", *address)
        return self._start(name, name, command, variables)

    def start_factories(self) -> None:
        """Start all factories, and return when they agree on who leads."""
        for name in self.factories:
            self.start_factory(name)
        self.leader()

    def start_workshop(
        self, name: str, target: str, workers: int, **variables: str
    ) -> Program:
        """Start a workshop on the host of that name, with so many workers."""
        options = ["--only", "--workers", f"{target}={workers}"]
        command = self._opencluster("workshop", *options)
        return self._start(name, name, command, variables)

    def start_python(
        self, name: str, host: str, *arguments: str, **variables: str
    ) -> Program:
        """Start a Python program on a host."""
        return self._start(name, host, [sys.executable, *arguments], variables)

    def restart(self, name: str) -> Program:
        """Start a program that has ended again, as it was started before."""
        program = self.programs[name]
        assert not program.is_running, f"{name} runs already"
        with program.log.open("ab") as log:
            program.process = self.net.host(program.host).popen(
                program.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=program.environment,
            )
        return program

    def _start(
        self,
        name: str,
        host: str,
        command: Sequence[str],
        variables: Mapping[str, str],
    ) -> Program:
        mine = environment_of(
            {"network.bind": self.net.host(host).address, "workshop.name": host}
        ) | {"OPENCLUSTER_DIR": str(self.directory(host))}
        outside = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
        environment = outside | self._common | mine | dict(variables)
        if self.around is not None:
            command = [*self.around(name, self.directory(host)), *command]
        log = self.path / f"{name}.log"
        self.programs[name] = Program(name, host, command, environment, log)
        return self.restart(name)

    def _opencluster(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "opencluster", *arguments]

    def directory(self, host: str) -> Path:
        """Return the directory of the cluster on a host."""
        return self.path / host

    # --- faults ------------------------------------------------------------------

    def kill(self, name: str) -> None:
        """End a program as a power failure does, and wait until it is gone."""
        program = self.programs[name]
        with contextlib.suppress(ProcessLookupError):
            os.kill(program.pid, signal.SIGKILL)
        assert program.process is not None
        program.process.wait(DEADLINE_S)

    def end(self, name: str) -> int:
        """Ask a program to end, and return its exit status."""
        program = self.programs[name]
        os.kill(program.pid, signal.SIGTERM)
        assert program.process is not None
        return program.process.wait(DEADLINE_S)

    def stop(self, name: str) -> None:
        """Have a program stand still."""
        os.kill(self.programs[name].pid, signal.SIGSTOP)

    def go_on(self, name: str) -> None:
        """Let a program that stands still go on."""
        os.kill(self.programs[name].pid, signal.SIGCONT)

    def workers_of(self, shop: str) -> list[int]:
        """Return the worker processes of a workshop."""
        try:
            children = psutil.Process(self.programs[shop].pid).children()
        except psutil.NoSuchProcess:
            return []
        return [child.pid for child in children if _is_worker(child)]

    # --- questions -----------------------------------------------------------------

    def ask(
        self,
        factory: str,
        operation: str,
        arguments: Mapping[str, Any] | None = None,
        timeout_s: float = 5.0,
    ) -> Any:
        """Ask one factory, whether it leads or not.

        Raises
        ------
        FactoryUnreachable
            When it does not answer.
        RequestRefused
            When it declines.
        """
        peer = {"name": factory, "endpoints": [f"tcp://{self._address(factory)}"]}
        return self._eye.workshop(peer, operation, arguments or {}, timeout_s)

    def hello(self, factory: str, timeout_s: float = 1.0) -> Mapping[str, Any] | None:
        """Return what a factory says of itself, or ``None`` when it is silent."""
        if factory not in self.programs or not self.programs[factory].is_running:
            return None
        try:
            said: Mapping[str, Any] = self.ask(factory, "hello", {}, timeout_s)
        except FactoryUnreachable:
            return None
        return said

    def roles(self) -> dict[str, str]:
        """Return what each factory that answers says it is."""
        said = {name: self.hello(name) for name in self.factories}
        return {name: hello["role"] for name, hello in said.items() if hello}

    def leader(self, of: Iterable[str] = (), timeout_s: float = DEADLINE_S) -> str:
        """Wait until the running factories, or some, agree; return who leads them."""
        names = list(of) or [n for n in self.factories if self.programs[n].is_running]

        def agreed() -> str:
            hellos = [self.hello(name) for name in names]
            roles = [hello["role"] if hello else "" for hello in hellos]
            epochs = {repr(hello["epoch"]) for hello in hellos if hello}
            is_one = roles.count("leader") == 1 and len(epochs) == 1
            is_whole = roles.count("follower") == len(names) - 1
            return names[roles.index("leader")] if is_one and is_whole else ""

        return wait_until(agreed, f"one leader of {names}", timeout_s)

    def registered(self, kind: str = "", type: str = "") -> list[Mapping[str, Any]]:
        """Return what the registry of whoever leads holds."""
        found: list[Mapping[str, Any]] = self.client.factory(
            "find", {"kind": kind, "type": type}
        )
        return found

    def await_workers(self, count: int, type: str = "Ledger") -> None:
        """Wait until exactly so many workers are registered, each of them alive."""

        def are_here() -> bool:
            try:
                pids = {entry["pid"] for entry in self.registered("worker", type)}
            except OpenClusterError:
                return False
            return len(pids) == count and all(map(is_running, pids))

        wait_until(are_here, f"{count} workers in the registry")

    # --- the end -------------------------------------------------------------------

    def tell_all(self) -> None:
        """Print the end of what each program said, for whoever reads of a failure."""
        for program in self.programs.values():
            print(f"--- {program.name}:\n{program.said()[-TOLD_CHARACTERS:]}")

    def close(self) -> None:
        """End everything."""
        for control in (self.client, self._eye):
            control.close()
        for program in self.programs.values():
            if program.process is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(program.pid, signal.SIGKILL)
                program.process.wait(DEADLINE_S)


@contextmanager
def chaos_cluster(
    net: Network,
    path: Path,
    settings: Mapping[str, object] | None = None,
    around: Around | None = None,
) -> Iterator[ChaosCluster]:
    """Yield a cluster without programs; end those that are started."""
    cluster = ChaosCluster(net, path, settings or {}, around)
    try:
        yield cluster
    except BaseException:
        cluster.tell_all()
        raise
    finally:
        cluster.close()


def _is_worker(process: psutil.Process) -> bool:
    """Return whether a child of a workshop is more than a look at a class."""
    try:
        return STARTER in process.cmdline()
    except psutil.Error:
        return False


def is_running(pid: int) -> bool:
    """Return whether a process is there and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def wait_until(
    condition: Callable[[], Value], what: str, timeout_s: float = DEADLINE_S
) -> Value:
    """Wait until a condition holds, and return what it returned."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:g} s in vain: {what}")
        time.sleep(0.05)
    return value
