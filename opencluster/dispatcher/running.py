"""A task that runs in a process of its own, as its dispatcher sees it.

Owns the process, what it prints and what it reports. Must not know the queue, nor
decide whether a task should go on.
"""

from __future__ import annotations

import logging
import math
import os
import select
import signal
import sys
import tempfile
from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgpack

from opencluster.config import Config
from opencluster.node.diagnosis import diagnose
from opencluster.node.launch import ProcessSpec
from opencluster.node.output import OutputLog
from opencluster.node.process import ChildProcess, ExitStatus
from opencluster.place import DIRECTORY_VARIABLE, Place
from opencluster.taskqueue import Leased
from opencluster.taskrun import DONE, FAILED, PROGRESS, order

log = logging.getLogger(__name__)

READ_BYTES = 1 << 20
PUMP_BYTES = 1 << 20
"""Most that is read at a time, so that nobody keeps the dispatcher from the others."""
ROOM_BYTES = 1 << 20
"""What a report may take beyond the result that is in it."""
KILLED_S = 5.0
"""How long the system may take to end a process that is killed."""
EXIT_S = 10.0
"""How long a process that has reported may take to end."""


class Verdict(Enum):
    """How a run ended."""

    DONE = "done"
    FAILED = "failed"
    LOST = "lost"
    """Its process died."""
    GIVEN_BACK = "given back"
    """It was stopped, and can be run by somebody else."""


@dataclass(frozen=True)
class Ending:
    """How a run ended, and what is to be written down of it.

    Attributes
    ----------
    verdict : Verdict
        How.
    result : bytes
        What came of it, when it is done.
    error, output : str
        What people are told, when it is not.
    """

    verdict: Verdict
    result: bytes = b""
    error: str = ""
    output: str = ""


class Running:
    """One run of a task.

    Parameters
    ----------
    leased : Leased
        The task.
    config : Config
        The settings.
    place : Place
        The cluster's directory, in which the log goes.
    slot : int
        Names the log: of the runs in one slot there is one at a time.

    Attributes
    ----------
    valid_until : float
        By the monotonic clock, when the lease may have been given to another.
    progress : tuple of (float, float) or None
        How far it is, if it has said so since this was set to ``None``.

    Raises
    ------
    StartFailed, OSError
        When the system refuses a new process.
    """

    def __init__(self, leased: Leased, config: Config, place: Place, slot: int) -> None:
        self.lease = leased.lease
        self.task = leased.task
        self.slot = slot
        self.valid_until = math.inf
        self.progress: tuple[float, float] | None = None
        self._kill_at = math.inf
        self._is_killed = False
        self._asked = self._fault = ""
        self._is_heard = self._is_printing = True
        self._report: tuple[str, Any] | None = None
        limit = config.taskqueue.max_bytes + ROOM_BYTES
        self._reports = msgpack.Unpacker(max_buffer_size=limit)
        self._report_fd, self.process = _start(leased, config, place)
        self._output = OutputLog(
            place.logs / f"manager-{slot}.log",
            config.workshop.log_bytes,
            config.workshop.log_files,
            config.workshop.output_lines_kept,
        )
        self._output.write(f"--- {leased.lease}: {self.task.name}\n".encode())

    @property
    def descriptors(self) -> list[int]:
        """What becomes readable when something has happened."""
        found = [self.process.pidfd]
        if self._is_heard:
            found.append(self._report_fd)
        if self._is_printing:
            found.append(self.process.output_fd)
        return [fd for fd in found if fd >= 0]

    def poll(self, now_s: float) -> Ending | None:
        """Take in what it printed and reported; return how it ended, if it has.

        Parameters
        ----------
        now_s : float
            The monotonic clock.
        """
        status = self.process.poll()
        self._read(status is not None)
        if status is not None:
            ending = self._ending(status)
            self.close()
            return ending
        if self._report is not None:
            self._kill_at = min(self._kill_at, now_s + EXIT_S)
        if now_s >= self._kill_at:
            self._kill()
        return None

    def ask_to_end(self, why: str, now_s: float, grace_s: float) -> None:
        """Interrupt it as Ctrl-C would, and kill it when that takes too long.

        Parameters
        ----------
        why : str
            For the log.
        now_s : float
            The monotonic clock.
        grace_s : float
            How long it has.
        """
        if not self._asked:
            log.info("%s is stopped: %s", self.lease, why)
            self.process.signal(signal.SIGINT)
        self._asked = self._asked or why
        self._kill_at = min(self._kill_at, now_s + grace_s)

    def end(self, now_s: float) -> None:
        """Kill it, and wait a moment for its end.

        Parameters
        ----------
        now_s : float
            The monotonic clock.
        """
        self._kill()
        ended = select.poll()
        ended.register(self.process.pidfd, select.POLLIN)
        ended.poll(KILLED_S * 1000)
        self.poll(now_s)

    def next_look(self) -> float:
        """Return when it must be looked after although nothing happens."""
        return math.inf if self._is_killed else min(self._kill_at, self.valid_until)

    def close(self) -> None:
        """Close the descriptors, after the end."""
        self._output.close()
        if self._report_fd >= 0:
            os.close(self._report_fd)
            self._report_fd = -1
        self.process.close()

    # --- inside --------------------------------------------------------------

    def _kill(self) -> None:
        self.process.kill_group()
        self._is_killed = True

    def _read(self, has_ended: bool) -> None:
        """Read what is there; all of it, when it has ended."""
        is_more = True
        while is_more:
            moved = self._output.pump(self.process.output_fd, PUMP_BYTES)
            self._is_printing = moved is not None
            is_more = self._read_reports() or moved == PUMP_BYTES
            is_more = is_more and has_ended

    def _read_reports(self) -> bool:
        """Take in reports; return whether there were any."""
        try:
            data = os.read(self._report_fd, READ_BYTES)
        except BlockingIOError:
            return False
        self._is_heard = bool(data)
        try:
            self._reports.feed(data)
            for fields in self._reports:
                self._take_in(fields)
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            # user code has written into a file that is not its own
            self._fault = f"its manager has spoilt its reports: {error}"
            self._kill()
        return bool(data)

    def _take_in(self, fields: Any) -> None:
        match fields:
            case [str(kind), float(done), float(total)] if kind == PROGRESS:
                # databases do not take what is no number
                if math.isfinite(done) and math.isfinite(total):
                    self.progress = done, total
            case [str(kind), bytes(result)] if kind == DONE:
                self._report = DONE, result
            case [str(kind), str(error)] if kind == FAILED:
                # else it comes of being stopped
                if not self._asked:
                    self._report = FAILED, error
            case _:
                raise ValueError(f"no report: {fields!r:.80}")

    def _ending(self, status: ExitStatus) -> Ending:
        output = self._output.tail()
        match self._report:
            case (kind, what) if kind == DONE:
                return Ending(Verdict.DONE, what)
            case (_, what):
                return Ending(Verdict.FAILED, error=what, output=output)
        if self._asked:
            return Ending(Verdict.GIVEN_BACK)
        ended = f"its manager's process ended: {diagnose(status).reason}"
        reason = self._fault or ended
        return Ending(Verdict.LOST, error=reason, output=output)


def _start(leased: Leased, config: Config, place: Place) -> tuple[int, ChildProcess]:
    """Start a process, and return the file in which it reports, and the process."""
    task = leased.task
    environment = dict(os.environ) | {
        DIRECTORY_VARIABLE: str(place.path),
        "PYTHONUNBUFFERED": "1",
    }
    with tempfile.TemporaryFile() as file:
        size = config.taskqueue.max_bytes
        what = (task.manager, task.engine, size, leased.arguments, task.piece_class)
        file.write(order(*what))
        file.seek(0)
        report_fd, write_end = os.pipe()
        try:
            os.set_blocking(report_fd, False)
            files = (file.fileno(), write_end)
            argv = (sys.executable, "-m", "opencluster.taskrun", *map(str, files))
            spec = ProcessSpec(argv, environment, task.directory, descriptors=files)
            process = ChildProcess.start(spec)
        except BaseException:
            os.close(report_fd)
            raise
        finally:
            os.close(write_end)
    return report_fd, process
