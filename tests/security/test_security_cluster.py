"""A whole cluster with keys over TCP, each computer with its own certificates alone."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from security_tools import DEADLINE_S, loaded, secrets_of, wait_until

from opencluster import Manager, WorkPiece
from opencluster.config import load
from opencluster.core.registry import Entry
from opencluster.core.roles import ROLES
from opencluster.engines import directory as directories
from opencluster.engines.cluster import ClusterEngine
from opencluster.errors import RequestRefused
from opencluster.net.keyfiles import certificates
from opencluster.net.keys import Keyring
from opencluster.net.reactor import Reactor
from opencluster.net.transport import Received, TransportEvent
from opencluster.net.zmq_transport import ZmqTransport
from opencluster.place import Place
from opencluster.wire import codec, frames, kinds

pytestmark = pytest.mark.processes

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
        done = subprocess.run(
            self._argv(arguments),
            env=self._whole_environment(environment),
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
                self._argv(arguments),
                env=self._whole_environment({}),
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
    def _argv(arguments: Sequence[str]) -> list[str]:
        return [sys.executable, "-m", "opencluster", *arguments]

    def _whole_environment(self, more: dict[str, str]) -> dict[str, str]:
        mine = {n: v for n, v in os.environ.items() if not n.startswith("OPENCLUSTER_")}
        return mine | {"PYTHONPATH": str(ROOT)} | self.environment | more


class Site:
    """Computers of one cluster, and the keys that its operator has."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.computers: list[Computer] = []
        self.head = self.computer("head")
        self.ok(self.head, "keys", "new")
        for name, role in {
            "node7": "workshop",
            "solo": "worker",
            "alice": "manager",
            "bob": "manager",
            "guest": "observer",
        }.items():
            self.ok(self.head, "keys", "add", name, "--role", role)
        self.head.start("factory", "--port", "0")
        found = wait_until(
            lambda: re.search(r"factory at tcp://([\d.]+:\d+)", self.head.said())
        )
        self.address = found[1]
        self.head.environment["OPENCLUSTER_CLUSTER_FACTORIES"] = self.address
        self.node = self.computer("node", "node7", "worker")
        self.node.start(
            "workshop",
            *("--workers", f"{PROGRAMS}:SquareWorker=2"),
            *("--workers", f"{PROGRAMS}:AskingWorker=1"),
            *("--workers", f"{PROGRAMS}:AdderService=1"),
        )
        self.solo = self.computer("solo", "solo")
        alone = ["--foreground", "--type", "Solo"]
        self.solo.start("worker", f"{PROGRAMS}:SquareWorker", *alone)

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
        """Return what `opencluster status` says, asked by an observer."""
        done = subprocess.run(
            self.head._argv(["status", "--json"]),
            env=self.head._whole_environment({}),
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=True,
        )
        status: dict[str, Any] = json.loads(done.stdout)
        return status

    def worker(self, type: str) -> dict[str, Any]:
        """Return the row of one worker."""
        rows = [row for row in self.status()["workers"] if row["type"] == type]
        return rows[0] if rows else {}


class KeyedManager(Manager):
    """Uses a certain engine, instead of the one of this process."""

    def __init__(self, engine: ClusterEngine) -> None:
        super().__init__()
        self._own_engine = engine

    @property
    def engine(self) -> ClusterEngine:
        return self._own_engine


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    path = Path(tempfile.mkdtemp())
    made = Site(path)
    try:
        yield made
    finally:
        for computer in reversed(made.computers):
            computer.stop()
        shutil.rmtree(path)


@pytest.fixture
def alice(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[KeyedManager]:
    """Yield a manager on another computer: what is local elsewhere it cannot reach."""
    monkeypatch.setattr(directories, "host_id", lambda: "another computer")
    computer = Computer(Path(tempfile.mkdtemp(dir=site.path)), site.address)
    engine = computer.hand(site.head.keys, "alice").engine()
    yield KeyedManager(engine)
    engine.close()


def number(n: int, **more: Any) -> WorkPiece:
    return WorkPiece(number=n, **more)


def test_a_map_runs_over_tcp_with_keys(alice: KeyedManager) -> None:
    alice.submit("Square", number(0)).result(DEADLINE_S)
    contacts = alice.engine._directory.contacts.values()
    assert {c.endpoint[:6] for c in contacts} == {"tcp://"}
    assert all(c.entry.public_key for c in contacts)
    results = alice.map("Square", [number(n) for n in range(200)])
    assert [r["square"] for r in results] == [n * n for n in range(200)]


def test_a_worker_calls_a_service_with_its_own_key(alice: KeyedManager) -> None:
    done = alice.submit("Asking", WorkPiece(a=2, b=3)).result(DEADLINE_S)
    assert done["sum"] == 5


def test_a_worker_on_its_own_has_a_heart_that_beats_with_its_key(
    site: Site, alice: KeyedManager
) -> None:
    alice.submit("Solo", number(1)).result(DEADLINE_S)
    before = site.worker("Solo")
    # twice the lease, in which no thread of its Python runs
    done = alice.submit("Solo", number(3, hold_s=4.0)).result(DEADLINE_S)
    assert done["square"] == 9
    after = site.worker("Solo")
    assert (after["id"], after["pid"]) == (before["id"], before["pid"])
    assert not [d for d in site.status()["deaths"] if d["id"] == before["id"]]


def test_an_observer_cannot_start_a_worker(site: Site) -> None:
    # the workshop of this computer is the one of the site
    guest = site.computer("guest", "guest")
    text, code = guest.command("worker", f"{PROGRAMS}:SquareWorker", "--type", "Mine")
    assert code == 1
    assert "an observer may not ask a workshop to start workers" in text
    assert "this needs a manager's key" in text
    assert site.worker("Mine") == {}
    # looking is what it is for
    assert "Square" in site.ok(guest, "status")


class Speaker:
    """Somebody with certain keys who says anything to anybody."""

    def __init__(self, keys: Keyring | None) -> None:
        self.transport = ZmqTransport(keys=keys)
        self.heard: list[list[Any]] = []
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
        if isinstance(event, Received):
            self.heard.append(frames.unpack(event.header))


@pytest.mark.parametrize("role", [r for r in ROLES if r != "manager"])
def test_nobody_but_a_manager_hands_pieces_to_a_worker(
    site: Site, alice: KeyedManager, role: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    alice.submit("Solo", number(1)).result(DEADLINE_S)
    (contact,) = (
        c for c in alice.engine._directory.contacts.values() if c.type == "Solo"
    )
    payload, _ = codec.encode(number(666, log=str(log)), "piece")
    before = site.worker("Solo")["rejected_credentials"]
    speaker = Speaker(loaded(site.head.keys, role))
    try:
        header = frames.pack(kinds.PIECES, [[1, 0, 0.0, payload, 0]])
        speaker.say(contact.entry, header)
        wait_until(lambda: site.worker("Solo")["rejected_credentials"] > before)
    finally:
        speaker.close()
    alice.submit("Solo", number(2, log=str(log))).result(DEADLINE_S)
    assert log.read_text() == "2\n"
    assert speaker.heard == []


def test_a_manager_cannot_register_in_the_name_of_a_worker(
    site: Site, alice: KeyedManager
) -> None:
    entry = Entry("x", "worker", "Square", "Square-1")
    asked = alice.engine._link.request("register", {"entries": [entry.to_fields()]})
    with pytest.raises(RequestRefused, match="a manager may not register"):
        asked.result(DEADLINE_S)


def test_revoking_takes_effect_everywhere_while_all_of_it_runs(
    site: Site, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    bob_at = site.computer("bob", "bob")
    admin_at = site.computer("admin", "manager")
    bobs, others = bob_at.engine(), admin_at.engine()
    try:
        bob, other = KeyedManager(bobs), KeyedManager(others)
        bob.submit("Solo", number(1, log=str(log))).result(DEADLINE_S)
        other.submit("Solo", number(2)).result(DEADLINE_S)
        before = site.worker("Solo")
        text = site.ok(site.head, "keys", "revoke", "bob")
        assert f"told tcp://{site.address}" in text
        # the worker of another computer has heard of it within its next heartbeats
        solo = site.solo.keys / "roll"
        wait_until(lambda: '"revoked": true' in solo.read_text())
        late = bob.submit("Solo", number(666, log=str(log)))
        wait_until(
            lambda: (
                site.worker("Solo")["rejected_credentials"]
                > before["rejected_credentials"]
            )
        )
        assert other.submit("Solo", number(4)).result(DEADLINE_S)["square"] == 16
        assert not late.done()
        assert log.read_text() == "1\n"
        assert site.worker("Solo")["pid"] == before["pid"]
    finally:
        bobs.close()
        others.close()
    # nor does he come back
    text, code = bob_at.command("status", OPENCLUSTER_FACTORY_REQUEST_TIMEOUT_S="1")
    assert code != 0
    assert "does not admit the certificate" in text


def test_a_certificate_that_is_added_is_admitted_at_once(site: Site) -> None:
    site.ok(site.head, "keys", "add", "carol", "--role", "manager")
    engine = site.computer("carol", "carol").engine()
    try:
        done = KeyedManager(engine).submit("Solo", number(7)).result(DEADLINE_S)
        assert done["square"] == 49
    finally:
        engine.close()


def test_no_secret_is_in_any_log_status_or_list(
    site: Site, alice: KeyedManager
) -> None:
    alice.submit("Square", number(1)).result(DEADLINE_S)
    shown = [site.ok(site.head, "status", "--json"), site.ok(site.head, "status")]
    shown += [site.ok(site.head, "keys", "show"), site.ok(site.head, "config", "show")]
    shown += [computer.said() for computer in site.computers]
    secrets = {s for computer in site.computers for s in secrets_of(computer.keys)}
    assert len(secrets) >= len(certificates(site.head.keys))
    assert not any(secret in text for secret in secrets for text in shown)


@pytest.mark.parametrize("command", ["factory", "workshop"])
def test_nothing_listens_to_strangers_without_keys(
    command: str, tmp_path: Path
) -> None:
    bare = Computer(tmp_path / "bare", "127.0.0.1:9100")
    text, code = bare.command(
        command,
        OPENCLUSTER_CLUSTER_KEYS="",
        OPENCLUSTER_CLUSTER_FACTORIES="" if command == "factory" else "127.0.0.1:9",
        OPENCLUSTER_NETWORK_BIND="0.0.0.0",
    )
    assert code == 1
    assert "opencluster keys new" in text
    assert "insecure = true" in text
