"""What a manager may ask of an engine, and what it gets back."""

from __future__ import annotations

import math
import operator
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from opencluster.core.chunks import Moved
from opencluster.core.timeline import Recorder
from opencluster.errors import WorkError
from opencluster.references import DataRef
from opencluster.wire import codec


@dataclass(frozen=True, slots=True)
class Options:
    """How a piece is to be run.

    Attributes
    ----------
    priority : int
        Higher goes first within a type and a class.
    timeout_s : float
        Time limit of one run, 0 for none.
    retries : int
        How often it runs again after the loss of its worker.
    error_retries : int
        How often it runs again after ``perform()`` raised.
    worker : str
        Identity of the worker that should have it, or empty.
    on_progress : callable or None
        Called with (done, total) when the worker reports progress.
    keep : bool
        The worker keeps the result, and a `DataRef` comes in its place.
    recompute : bool
        A kept result that is lost is made again when it is needed.
    deadline_s : float or None
        How long a real-time piece may wait before batch pieces are cut short for it;
        ``None`` makes it a batch piece.
    max_kills : int or None
        How many workers it may end before it is quarantined; ``None`` means what
        ``[manager] max_kills`` says.
    """

    priority: int = 0
    timeout_s: float = 0.0
    retries: int = 3
    error_retries: int = 0
    worker: str = ""
    on_progress: Callable[[float, float], None] | None = None
    keep: bool = False
    recompute: bool = False
    deadline_s: float | None = None
    max_kills: int | None = None

    @property
    def may_be_bundled(self) -> bool:
        """Whether it may be sent and answered with others, when pieces are short.

        What needs to be seen to by itself may not: a time limit, a run after an error,
        a worker of its own, no time to wait; nor a piece that must not run again, as
        nobody knows of a lost bundle what was done of it.
        """
        is_plain = not (self.timeout_s or self.error_retries or self.worker)
        is_watched = self.on_progress is not None or self.keep
        is_urgent = self.deadline_s is not None
        return is_plain and not (is_watched or is_urgent) and self.retries > 0

    def __post_init__(self) -> None:
        """Refuse what a worker could not take; an endless time limit is none."""
        if self.recompute and not self.keep:
            raise ValueError("recompute is for results that are kept: add keep=True")
        for name in ("priority", "retries", "error_retries", "max_kills"):
            value = getattr(self, name)
            if value is None and name == "max_kills":
                continue
            try:
                number = operator.index(value)
            except TypeError:
                raise TypeError(f"{name} must be an integer, not {value!r}") from None
            if not -MAX_NUMBER <= number <= MAX_NUMBER:
                raise ValueError(f"{name} must be within 64 bits, not {value!r}")
            if name == "max_kills" and number < 1:
                raise ValueError(f"max_kills must be at least 1, not {value!r}")
            object.__setattr__(self, name, number)
        limit_s = _time("timeout_s", self.timeout_s)
        object.__setattr__(self, "timeout_s", 0.0 if math.isinf(limit_s) else limit_s)
        if self.deadline_s is not None:
            wait_s = _time("deadline_s", self.deadline_s)
            object.__setattr__(self, "deadline_s", wait_s)


def _time(name: str, value: float) -> float:
    time_s = float(value)
    if math.isnan(time_s) or time_s < 0:
        raise ValueError(f"{name} must be a time in seconds, not {time_s!r}")
    return time_s


MAX_NUMBER = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Where:
    """Who is to hold a value.

    Attributes
    ----------
    type : str
        Workers of this type; empty for all.
    workers : tuple of str
        These workers, by identity; empty for all.
    everywhere : bool
        One of them on each computer, not one alone.
    """

    type: str = ""
    workers: tuple[str, ...] = ()
    everywhere: bool = False


@dataclass(slots=True)
class Outcome:
    """How a piece ended: with an encoded result, or with an error; never changed.

    Attributes
    ----------
    payload, buffers
        The encoded result.
    error : WorkError or None
        What to raise instead.
    elapsed_s : float
        How long it ran.
    worker : str
        The name of the worker that ran it.
    ref : DataRef or None
        What stands for the result, if its worker keeps it.
    on_ref : callable or None
        Makes references in the result ones that hold their values.
    """

    payload: bytes = b""
    buffers: Sequence[Any] = ()
    error: WorkError | None = None
    elapsed_s: float = 0.0
    worker: str = ""
    ref: DataRef | None = None
    on_ref: Callable[[DataRef], DataRef] | None = None

    def value(self) -> Any:
        """Decode the result, or raise the error."""
        if self.error is not None:
            raise self.error
        if self.ref is not None:
            return self.ref
        return codec.decode(self.payload, self.buffers, self.on_ref)

    @property
    def nbytes(self) -> int:
        """Size of the encoded result in bytes."""
        nbytes = len(self.payload)
        return nbytes + sum(map(len, self.buffers)) if self.buffers else nbytes


Done = Callable[[int, Outcome], None]
"""Called once for each piece, with its number and its outcome, from any thread."""


@dataclass(frozen=True)
class WorkerInfo:
    """A worker that is available.

    Attributes
    ----------
    id, name, type, host : str
        Who, what and where.
    """

    id: str
    name: str
    type: str
    host: str


@dataclass
class JobStatistics:
    """What happened to the pieces of one job so far.

    Batch pieces that were cut short for real-time pieces are counted each time.
    """

    pieces_submitted: int = 0
    pieces_done: int = 0
    pieces_failed: int = 0
    pieces_retried: int = 0
    pieces_cut: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0

    def to_fields(self) -> dict[str, int]:
        """Return the figures as plain types."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass
class Job:
    """One run of a task.

    Attributes
    ----------
    id, name : str
        Identity, and the manager's class for people.
    state : str
        ``running``, ``done``, ``failed`` or ``cancelled``; a factory says ``lost``
        when the manager is gone.
    started_at, ended_at : float
        Seconds since 1970; 0 while it runs.
    statistics : JobStatistics
        Kept up to date by the engine.
    priority : int or None
        What its pieces have by an order from outside, whatever they were given.
    cancelled_by : str
        Who ordered its end from outside.
    recorder : Recorder or None
        What records its pieces: as long as it, since pieces may outlive the run.
    coming : dict of int to (str, int)
        Of each mapping that runs and knows how many pieces there are: their type, and
        how many of them it has not handed in yet. Each writes its own row.
    """

    id: str
    name: str
    state: str = "running"
    started_at: float = 0.0
    ended_at: float = 0.0
    statistics: JobStatistics = field(default_factory=JobStatistics)
    priority: int | None = None
    cancelled_by: str = ""
    recorder: Recorder | None = field(default=None, repr=False, compare=False)
    coming: dict[int, tuple[str, int]] = field(default_factory=dict, repr=False)

    def end(self, state: str) -> None:
        """Note that it is over; one that was cancelled stays so."""
        if self.state == "running":
            self.state = state
            self.ended_at = time.time()


class Engine(Protocol):
    """Runs pieces; every method may be called from any thread.

    Attributes
    ----------
    is_immediate : bool
        Pieces are performed while they are submitted, in the thread that does it: it
        is of no use to submit several at a time, and a debugger may want the terminal.
    """

    is_immediate: bool

    def submit(
        self,
        type: str,
        pieces: Iterable[tuple[Any, Options]],
        done: Done,
        job: Job | None = None,
        is_awaited: bool = False,
    ) -> list[int]:
        """Take pieces, and return their numbers; `done` may be called before.

        Who says that they are awaited calls `wait` next.
        """

    def wait(self, is_over: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait until something holds that a `Done` brings about; tell whether it does.

        The caller's thread does the engine's work meanwhile, where that is possible.

        Raises
        ------
        RuntimeError
            When a `Done` calls it: what it waits for could never come.
        """

    def nudge(self) -> None:
        """Have whoever waits look again at what it waits for."""

    def cancel(self, pieces: Iterable[int]) -> None:
        """Give up pieces: drop what waits, interrupt what runs."""

    def interrupt(self, pieces: Iterable[int]) -> None:
        """Interrupt pieces that run."""

    def interrupt_worker(self, worker: str) -> None:
        """Interrupt what this manager's piece a worker runs."""

    def workers(self, type: str, wait_s: float) -> list[WorkerInfo]:
        """Return the workers of a type, the least loaded first, at least one."""

    def types(self) -> Mapping[str, int]:
        """Return the worker types that are here, with how many of each."""

    def call(
        self, service: str, method: str, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Any:
        """Call a method of a service, and wait for what it returns."""

    def scatter(self, values: Sequence[Any], where: Where) -> list[DataRef]:
        """Give values to workers to hold, and wait until they do."""

    def fetch(self, refs: Sequence[DataRef]) -> list[Any]:
        """Return the values that references stand for, and wait for them."""

    def release(self, refs: Sequence[DataRef]) -> None:
        """Let go of values, although there are references to them."""

    def moved(self) -> Moved:
        """Return how far the large pieces and results are that are under way."""

    def report(self, job: Job) -> None:
        """Let the cluster know how a job stands."""

    def close(self) -> None:
        """Give up everything that is unfinished, and release what the engine has."""


def perform(
    engine: Engine, type: str, work: Any, options: Options, job: Job | None = None
) -> Any:
    """Submit one piece, wait for it in this thread, and return its result.

    A future would cost as much again as the piece does.

    Raises
    ------
    WorkError
        What the piece ended with, if not with a result.
    """
    outcomes: list[Outcome] = []
    numbers = engine.submit(
        type,
        [(work, options)],
        lambda number, outcome: outcomes.append(outcome),
        job,
        is_awaited=True,
    )
    try:
        engine.wait(lambda: bool(outcomes))
        return outcomes[0].value()
    except BaseException:
        engine.cancel(numbers)
        raise
