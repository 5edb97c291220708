"""A whole cluster with keys over TCP, each computer with its own certificates alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from security_tools import DEADLINE_S, wait_until

from opencluster import Manager, WorkPiece
from opencluster.cli.status import ask
from opencluster.config import load
from opencluster.core.entries import Entry
from opencluster.engines.cluster import ClusterEngine
from opencluster.launchers.connection import connect
from opencluster.net.keyfiles import (
    add_certificate,
    make_keys,
    revoke_certificate,
)
from opencluster.net.keys import Keyring
from opencluster.net.reactor import Reactor
from opencluster.net.transport import PeerLost, Received, TransportEvent
from opencluster.net.zmq_transport import ZmqTransport
from opencluster.place import Place
from opencluster.wire import frames

PROGRAMS = Path(__file__).with_name("security_programs.py")
ROOT = Path(__file__).parent.parent.parent
QUICK = {
    "CLUSTER_HEARTBEAT_INTERVAL_S": "0.2",
    "CLUSTER_LEASE_S": "2",
    "WORKER_DRAIN_TIMEOUT_S": "1",
    "MANAGER_WORKER_WAIT_S": str(DEADLINE_S),
}


class Computer:
    """A directory of a cluster and one of keys, as if on a computer of its own."""

    def __init__(self, path: Path, factories: str = "") -> None:
        self.path = path
        self.keys = path / "k"
        self.keys.mkdir(parents=True, mode=0o700)
        path.chmod(0o700)
        self.log = path / "log"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.environment = {
            "OPENCLUSTER_DIR": str(path / "c"),
            "OPENCLUSTER_CLUSTER_KEYS": str(self.keys),
            "OPENCLUSTER_CLUSTER_FACTORIES": factories,
            **{f"OPENCLUSTER_{name}": value for name, value in QUICK.items()},
        }

    def hand(self, source: Path, *names: str) -> Computer:
        """Copy certificates here, as an operator would."""
        for name in names:
            shutil.copy(source / f"{name}.key", self.keys)
        return self

    def command(self, *arguments: str, **environment: str) -> tuple[str, int]:
        """Run a command to its end; return what it printed and its exit code."""
        return self._run(self.argv(arguments), environment)

    def program(self, code: str) -> tuple[str, int]:
        """Run a user's program to its end, as `command` does."""
        return self._run([sys.executable, "-c", code], {})

    def _run(self, argv: Sequence[str], environment: dict[str, str]) -> tuple[str, int]:
        done = subprocess.run(
            argv,
            env=self.whole_environment(environment),
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        return done.stdout + done.stderr, done.returncode

    def start(self, *arguments: str) -> None:
        """Run a command for as long as the test does."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                self.argv(arguments),
                env=self.whole_environment({}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.processes.append(process)

    def said(self) -> str:
        """Return what its processes have logged."""
        logs = [self.log, *(self.path / "c" / "logs").glob("*.log")]
        return "".join(log.read_text() for log in logs if log.exists())

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            process.wait(DEADLINE_S)

    def engine(self) -> ClusterEngine:
        """Return a manager's engine on this computer."""
        config = load(files=[], environ=self.environment)
        return ClusterEngine(config, Place(self.path / "c"))

    @staticmethod
    def argv(arguments: Sequence[str]) -> list[str]:
        return [sys.executable, "-m", "opencluster", *arguments]

    def whole_environment(self, more: dict[str, str]) -> dict[str, str]:
        mine = {n: v for n, v in os.environ.items() if not n.startswith("OPENCLUSTER_")}
        return mine | {"PYTHONPATH": str(ROOT)} | self.environment | more


class Site:
    """Computers of one cluster, and the keys that its operator has."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.computers: list[Computer] = []
        self.head = self.computer("head")
        make_keys(self.head.keys)
        for name, role in {
            "node7": "workshop",
            "node7-worker": "worker",
            "solo": "worker",
            "alice": "manager",
            "bob": "manager",
            "guest": "observer",
            "spare": "observer",
            "eve": "manager",
        }.items():
            add_certificate(self.head.keys, name, role)
        # nobody has ever admitted her
        revoke_certificate(self.head.keys, "eve")
        self.head.start("factory", "--port", "0")
        found = wait_until(
            lambda: re.search(r"factory at tcp://([\d.]+:\d+)", self.head.said())
        )
        self.address = found[1]
        self.head.environment["OPENCLUSTER_CLUSTER_FACTORIES"] = self.address
        config = load(files=[], environ=self.head.environment)
        self.control = connect(config, Place(self.head.path / "c"))
        self.node = self.computer("node", "node7", "node7-worker")
        self.node.start(
            "workshop",
            *("--workers", f"{PROGRAMS}:SquareWorker=2"),
            *("--workers", f"{PROGRAMS}:AskingWorker=1"),
            *("--workers", f"{PROGRAMS}:AdderService=1"),
        )
        self.solo = self.computer("solo", "solo")
        alone = ["--foreground", "--type", "Solo"]
        self.solo.start("worker", f"{PROGRAMS}:SquareWorker", *alone)
        wanted = {"Square", "Asking", "adder", "Solo"}
        wait_until(lambda: {row["type"] for row in self.members()} >= wanted)

    def computer(self, name: str, *certificates: str) -> Computer:
        """Return one more computer, with copies of these certificates and no roll."""
        address = getattr(self, "address", "")
        made = Computer(self.path / name, address)
        self.computers.append(made)
        return made.hand(self.head.keys, *certificates) if certificates else made

    def ok(self, computer: Computer, *arguments: str) -> str:
        text, code = computer.command(*arguments)
        assert code == 0, text
        return text

    def status(self) -> dict[str, Any]:
        """Return what `opencluster status` says, asked by an observer.

        In the way of the command, but without a process and a connection for each look.
        """
        status: dict[str, Any] = json.loads(json.dumps(ask(self.control)))
        return status

    def members(self) -> list[dict[str, Any]]:
        """Return the rows of all workers and services."""
        status = self.status()
        return [*status["workers"], *status["services"]]

    def worker(self, type: str) -> dict[str, Any]:
        """Return the row of one worker."""
        rows = [row for row in self.status()["workers"] if row["type"] == type]
        return rows[0] if rows else {}


class KeyedManager(Manager):
    """Uses a certain engine, instead of the one of this process."""

    def __init__(self, engine: ClusterEngine) -> None:
        super().__init__()
        self._own_engine = engine
        self._config = engine.config

    @property
    def engine(self) -> ClusterEngine:
        return self._own_engine


class Speaker:
    """Somebody with certain keys who says anything to anybody."""

    def __init__(self, keys: Keyring | None) -> None:
        self.transport = ZmqTransport(keys=keys)
        self.heard: list[list[Any]] = []
        self.losses = 0
        self.reactor = Reactor(self.transport, self._event, is_vital=False)
        self.reactor.start()

    def say(self, entry: Entry, header: bytes) -> None:
        done: Future[bool] = Future()
        tcp = next(e for e in entry.endpoints if e.startswith("tcp://"))

        def send() -> None:
            peer = self.transport.connect(tcp, entry.public_key)
            done.set_result(self.transport.send(peer, header))

        self.reactor.post(send)
        assert done.result(DEADLINE_S)

    def close(self) -> None:
        self.reactor.stop()
        self.reactor.join(DEADLINE_S)

    def _event(self, event: TransportEvent) -> None:
        if isinstance(event, PeerLost):
            # libzmq does not ask again where it was refused
            self.transport.disconnect(event.peer)
            self.losses += 1
        if isinstance(event, Received):
            self.heard.append(frames.unpack(event.header))


def number(n: int, **more: Any) -> WorkPiece:
    """Return a piece for the square worker."""
    return WorkPiece(number=n, **more)
