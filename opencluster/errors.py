"""Every exception that a user of OpenCluster can meet, in one tree.

Each message says what was seen, what was expected and what to do next. A lost
message or a lost peer inside the framework is an event, never an exception; what
stands here reaches user code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class OpenClusterError(Exception):
    """Base of everything that OpenCluster raises."""


class ConfigError(OpenClusterError):
    """A setting is unknown, has the wrong type or cannot be read.

    The message names the file, the section and the key.
    """


class SecurityError(OpenClusterError):
    """Something was refused because it would open the cluster to strangers."""


# --- the wire ---------------------------------------------------------------


class ProtocolError(OpenClusterError):
    """Bytes and values do not fit together; the subclass says whose fault it is."""


class LocalProtocolError(ProtocolError, TypeError):
    """A value of ours cannot be sent; the message names its key path."""


class RemoteProtocolError(ProtocolError):
    """The peer sent something malformed, oversized, foreign or of another version."""


# --- the registry -----------------------------------------------------------


class RegistryError(OpenClusterError):
    """Looking up or registering failed."""


class FactoryUnreachable(RegistryError):
    """No factory answered within the time allowed."""


class RequestRefused(RegistryError):
    """A daemon understood a request and declined it; the message says why."""


class NotLeader(RequestRefused):
    """A factory that does not lead was asked for what only a leader may do.

    Attributes
    ----------
    leader : str
        The endpoint of the factory that leads, as far as the other one knows, or
        empty.
    """

    def __init__(self, message: str, leader: str = "") -> None:
        super().__init__(message)
        self.leader = leader


class StartFailed(RegistryError):
    """A worker or service process ended before it registered.

    Attributes
    ----------
    output : str
        The last lines that it printed.
    """

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output


class LaunchFailed(OpenClusterError):
    """Daemons could not be brought onto computers, or ended there.

    Attributes
    ----------
    output : str
        What the commands said that were run for it.
    """

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output


# --- what was ---------------------------------------------------------------


class HistoryError(OpenClusterError):
    """What a cluster was like cannot be kept, or looked at."""


class RecordError(OpenClusterError):
    """What became of a job's pieces cannot be kept, or looked at."""


class LetterError(OpenClusterError):
    """A dead letter cannot be kept, read or put back; the message says why."""


# --- who may do what -------------------------------------------------------


class AccountError(OpenClusterError):
    """An account cannot be made or changed as asked."""


# --- the task queue ---------------------------------------------------------


class QueueError(OpenClusterError):
    """The task queue refuses what it was asked; the message says why."""


class QueueUnavailable(QueueError):
    """The database of the task queue cannot be reached, or has no room."""


class NoSuchTask(QueueError):
    """There is no task of that number in the queue."""


class TaskFailed(QueueError):
    """A task of the queue ended without a result.

    Attributes
    ----------
    state : str
        ``failed`` or ``cancelled``.
    output : str
        The last lines that its manager printed.
    """

    def __init__(self, message: str, state: str = "failed", output: str = "") -> None:
        super().__init__(message)
        self.state = state
        self.output = output


# --- ingest -----------------------------------------------------------------


class IngestError(OpenClusterError):
    """What comes in over TCP cannot be served, or an item cannot be sent."""


# --- work -------------------------------------------------------------------


@dataclass(frozen=True)
class DeathEvidence:
    """What the workshop knows about the end of a process.

    Attributes
    ----------
    reason : str
        One line for people, such as ``"killed by signal SIGKILL (out of memory)"``.
    exit_code : int or None
        Exit code, or ``None`` when a signal ended it or when nobody reaped it.
    signal : str
        Name of the signal, such as ``"SIGSEGV"``, or an empty string.
    out_of_memory : bool
        The kernel killed it for memory.
    peak_memory_bytes : int
        Largest resident size, 0 when unknown.
    piece : str
        The piece that it was running, or an empty string.
    exceeded : str
        ``"time"`` or ``"memory"`` when it was ended for a limit, else empty.
    output : str
        The last lines that it printed.
    worker, host : str
        The process and its computer, as far as whoever tells of it knows.
    """

    reason: str
    exit_code: int | None = None
    signal: str = ""
    out_of_memory: bool = False
    peak_memory_bytes: int = 0
    piece: str = ""
    exceeded: str = ""
    output: str = ""
    worker: str = ""
    host: str = ""

    @classmethod
    def from_fields(cls, fields: Mapping[str, object]) -> DeathEvidence:
        """Build it from a message, ignoring fields of newer versions or wrong types."""
        known = {"reason": "for an unknown reason"} | {
            name: value
            for name, value in fields.items()
            if isinstance(value, _EVIDENCE_TYPES.get(name, ()))
        }
        return cls(**known)

    def describe(self) -> str:
        """Return the evidence as text, the output last."""
        head = self.reason
        if self.peak_memory_bytes:
            head += f"; peak memory {self.peak_memory_bytes / 1e6:.0f} MB"
        if self.output:
            return f"{head}\nlast output:\n{indent(self.output)}"
        return head


_EVIDENCE_TYPES: Mapping[str, Any] = {
    **dict.fromkeys(("reason", "signal", "piece", "exceeded", "output"), str),
    **dict.fromkeys(("worker", "host"), str),
    "exit_code": int | None,
    "out_of_memory": bool,
    "peak_memory_bytes": int,
}


def indent(text: str, by: str = "    ") -> str:
    """Indent each line of a text that is quoted inside a message."""
    return "\n".join(by + line for line in text.rstrip().splitlines())


class WorkError(OpenClusterError):
    """A piece did not end with a result."""


class PieceFailed(WorkError):
    """``perform()`` (or a service's method) raised.

    Attributes
    ----------
    exception_type : str
        Name of the exception's class, such as ``"ValueError"``.
    remote_traceback : str
        The traceback as formatted where it was raised.
    worker : str
        Who ran it.
    """

    def __init__(
        self,
        message: str,
        *,
        exception_type: str = "",
        remote_traceback: str = "",
        worker: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.exception_type = exception_type
        self.remote_traceback = remote_traceback
        self.worker = worker

    def __str__(self) -> str:
        head = f"{self.exception_type or 'error'}: {self.message}"
        where = f" (on {self.worker})" if self.worker else ""
        if not self.remote_traceback:
            return head + where
        return f"{head}{where}\n\nremote traceback:\n{indent(self.remote_traceback)}"


class WorkerDied(WorkError):
    """A worker ended with the piece in its hands, more often than ``retries`` allows.

    Attributes
    ----------
    evidence : DeathEvidence
        Exit code or signal, memory and last output of the process.
    worker : str
        Who died.
    """

    def __init__(self, message: str, evidence: DeathEvidence, worker: str = "") -> None:
        super().__init__(message)
        self.evidence = evidence
        self.worker = worker


class PoisonPiece(WorkerDied):
    """A piece ended every worker that took it, and is quarantined.

    Attributes
    ----------
    deaths : sequence of DeathEvidence
        One for each worker that it ended.
    letter : str
        The dead letter that it is kept as, or empty.
    """

    def __init__(
        self,
        message: str,
        deaths: Sequence[DeathEvidence],
        worker: str = "",
        letter: str = "",
    ) -> None:
        super().__init__(message, deaths[-1], worker)
        self.deaths = tuple(deaths)
        self.letter = letter


class PieceTimeout(WorkError, TimeoutError):
    """A piece ran longer than its time limit."""


class Interrupted(WorkError):
    """A running piece was interrupted at somebody's request."""


class PieceCancelled(WorkError):
    """A piece was withdrawn before a result came.

    Attributes
    ----------
    ordered_by : str
        Who ordered that from outside, if somebody did.
    """

    def __init__(self, message: str = "", ordered_by: str = "") -> None:
        super().__init__(message)
        self.ordered_by = ordered_by


class NoSuitableWorker(WorkError):
    """No worker of the type came in time, or workers of the type fail to start."""


class DataLost(WorkError):
    """Values that workers held for this manager are gone.

    Attributes
    ----------
    reasons : mapping of str to str
        Why, for each of them, named as in the representation of its `DataRef`.
    """

    def __init__(self, reasons: Mapping[str, str]) -> None:
        told = "; ".join(f"{name}: {why}" for name, why in reasons.items())
        super().__init__(
            f"{len(reasons)} of the values that are needed are gone: {told}. Results "
            "that were kept with recompute=True are made again by themselves; others "
            "must be made or scattered again"
        )
        self.reasons = dict(reasons)
