"""What the tests of faults have in common."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import zmq

from opencluster import Manager, WorkPiece
from opencluster.core.entries import Entry
from opencluster.node.host import host_id
from opencluster.testing import LocalCluster
from opencluster.wire import frames, kinds

HERE = Path(__file__).parent
DEADLINE_S = 30.0
"""By then what is waited for has happened, on a busy machine too."""

FAST: Mapping[str, object] = {
    "cluster.heartbeat_interval_s": 0.2,
    "network.zmtp_heartbeat_s": 0.5,
    "network.zmtp_timeout_s": 2,
    "worker.interrupt_grace_s": 0.3,
    "worker.kill_grace_s": 0.5,
    "worker.drain_timeout_s": 5,
    "workshop.stop_grace_s": 1,
    "workshop.poll_interval_s": 0.1,
    "workshop.restart_delay_s": 0.05,
    "workshop.restart_delay_max_s": 0.1,
    "manager.worker_wait_s": 10,
}
"""Settings under which faults are noticed soon."""

Value = TypeVar("Value")


def target(name: str) -> str:
    """Return what names a class of ``fault_workers.py`` to a workshop."""
    return f"{HERE / 'fault_workers.py'}:{name}"


def cluster(
    settings: Mapping[str, object] | None = None, **counts: int
) -> LocalCluster:
    """Return a cluster of so many of each class, to be entered."""
    workers = {target(name): count for name, count in counts.items()}
    return LocalCluster(workers, dict(FAST) | dict(settings or {}))


def wait_until(
    condition: Callable[[], Value], what: str = "", timeout_s: float = DEADLINE_S
) -> Value:
    """Wait until a condition holds, and return what it returned."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            what = what or getattr(condition, "__name__", "it")
            raise AssertionError(f"waited {timeout_s:g} s in vain: {what}")
        time.sleep(0.02)
    return value


def fault(do: str, **items: Any) -> WorkPiece:
    """Return a piece for a `FaultWorker`."""
    return WorkPiece(do=do, **items)


def perform(work: WorkPiece, type: str = "Fault", **options: Any) -> WorkPiece:
    """Have one piece performed, and return its result."""
    return Manager("cluster").submit(type, work, **options).result(DEADLINE_S)


def entries(here: LocalCluster, kind: str = "worker", type: str = "") -> list[Any]:
    """Return what is registered."""
    return here.ask_factory("find", {"kind": kind, "type": type})


def zmq_endpoint(entry: Any) -> str:
    """Return where a process of the registry listens with ZeroMQ."""
    found: str = next(e for e in entry["endpoints"] if not e.startswith("unix://"))
    return found


def pids(here: LocalCluster, type: str = "Fault") -> set[int]:
    """Return the processes that are registered for a type."""
    return {entry["pid"] for entry in entries(here, "", type)}


def figures(here: LocalCluster, pid: int) -> dict[str, Any]:
    """Return what the newest heartbeat said of a worker process."""
    status = here.ask_factory("status")
    found = [e["id"] for e in status["entries"] if e["pid"] == pid]
    return status["figures"].get(found[0], {}) if found else {}


def all_idle(here: LocalCluster, count: int, type: str = "Fault") -> bool:
    """Return whether so many workers are here and none has anything to do."""
    states = [figures(here, pid).get("state") for pid in pids(here, type)]
    return states == ["idle"] * count


def log_of(here: LocalCluster, name: str) -> str:
    """Return the newest log file of a daemon or of a worker."""
    path = here.place.logs / f"{name}.log"
    return path.read_text(errors="replace") if path.exists() else ""


def runs(path: Path) -> list[tuple[str, int]]:
    """Return which pieces were run, and by which process, in order."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [(line.split()[0], int(line.split()[1])) for line in lines]


def counts(path: Path) -> Counter[str]:
    """Return how often each piece was run."""
    return Counter(name for name, _ in runs(path))


def is_running(pid: int) -> bool:
    """Return whether a process is there and is no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def peak_bytes(pid: int) -> int:
    """Return the largest resident size that a process had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"no memory is known of process {pid}")


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process for as long as the block lasts, or it does."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


class Liar:
    """A worker that says what the test wants to the manager who sent it a piece."""

    def __init__(self, endpoint: str) -> None:
        self._context = zmq.Context()
        self._sock: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        self._sock.set(zmq.LINGER, 0)
        # a manager that comes back before its old connection is known to be dead
        self._sock.set(zmq.ROUTER_HANDOVER, 1)
        self._sock.set(zmq.RCVTIMEO, int(DEADLINE_S * 1000))
        self._sock.bind(endpoint)
        self.endpoint = self._sock.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        self._manager = b""
        self.meant = ""
        self.rows: list[Any] = []

    def take(self) -> int:
        """Return the number of the next piece."""
        self._manager, header = self._sock.recv_multipart()
        kind, self.rows, self.meant = frames.unpack(header)
        assert kind == kinds.PIECES
        number: int = self.rows[0][0]
        return number

    def say(self, *parts: bytes) -> None:
        """Send a message."""
        self._sock.send_multipart([self._manager, *parts])

    def answer(self, *row: Any, buffers: Sequence[bytes] = ()) -> None:
        """Send one result."""
        self.say(frames.pack(kinds.RESULTS, [list(row)]), *buffers)

    def __enter__(self) -> Liar:
        return self

    def __exit__(self, *exception: object) -> None:
        self._sock.close()
        self._context.term()


@contextmanager
def registered(here: LocalCluster, endpoint: str) -> Iterator[str]:
    """Let a worker of type Liar be known to listen at an endpoint; give its id."""
    entry = Entry(
        id=uuid.uuid4().hex,
        kind="worker",
        type="Liar",
        name="Liar-1",
        host_id=host_id(),
        endpoints=(endpoint,),
    )
    here.ask_factory("register", {"entries": [entry.to_fields()]})
    yield entry.id
    here.ask_factory("deregister", {"id": entry.id})
