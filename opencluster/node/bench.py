"""The place of one process in a workshop: start it, watch it, end it, explain its end.

Owns the process, its scoreboard, its log and its control group for as long as it
lives. Must not decide whether it is started again.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgpack

from opencluster.config import CatalogueEntry, Config
from opencluster.core.entries import Entry
from opencluster.core.piece_names import is_meant
from opencluster.errors import DeathEvidence
from opencluster.node.cgroup import Cgroups, oom_kills_of_machine
from opencluster.node.diagnosis import diagnose
from opencluster.node.handover import (
    NAME_VARIABLE,
    SCOREBOARD_VARIABLE,
    WORKSHOP_VARIABLE,
    board_name,
    entry_path,
    socket_name,
)
from opencluster.node.launch import Limits, ProcessSpec
from opencluster.node.measure import process_sample
from opencluster.node.output import OutputLog
from opencluster.node.process import ChildProcess
from opencluster.node.scoreboard import LastError, Reading, Scoreboard, State

PUMP_BYTES = 256 * 1024
"""Output taken from one process before the others get their turn."""

ARENA_PART = 8
"""One in so many bytes of a process's memory limit may be shared memory, which counts
towards the limit for as long as a receiver keeps what was sent."""
KEPT_PART = 4
"""One in so many bytes may be values that it keeps for managers."""


@dataclass(frozen=True)
class Death:
    """How a process ended.

    Attributes
    ----------
    evidence : DeathEvidence
        What is known of it.
    is_recycled : bool
        It ended on purpose, with nothing amiss.
    """

    evidence: DeathEvidence
    is_recycled: bool


class Bench:
    """One process of a workshop.

    Parameters
    ----------
    name : str
        The slot's name, such as ``WordCount-3``.
    catalogued : CatalogueEntry
        What runs here.
    config : Config
        The workshop's settings.
    sockets, logs : Path
        Where scoreboards and log files go.
    workshop : str
        The workshop's identity.
    marker : str
        Value of `WORKSHOP_VARIABLE`.
    cgroups : Cgroups or None
        Where memory limits can be had that hold.
    """

    def __init__(
        self,
        name: str,
        catalogued: CatalogueEntry,
        config: Config,
        sockets: Path,
        logs: Path,
        workshop: str,
        marker: str,
        cgroups: Cgroups | None,
    ) -> None:
        self.name = name
        self.entry: Entry | None = None
        self._catalogued = catalogued
        self._config = config
        self._workshop = workshop
        self._marker = marker
        self._board_path = sockets / board_name(workshop, name)
        self._scoreboard = Scoreboard.create(self._board_path)
        settings = config.workshop
        self._output = OutputLog(
            logs / f"{name}.log", settings.log_bytes, settings.log_files
        )
        self._cgroup = (
            cgroups.create(name, catalogued.memory_bytes)
            if cgroups is not None and catalogued.memory_bytes
            else None
        )
        self._reading = self._scoreboard.read()
        self._oom_kills = oom_kills_of_machine()
        self._asked = ""
        self._exceeded = ""
        self._kill_at: float | None = None
        self.process: ChildProcess

    @property
    def worker_id(self) -> str:
        """Its identity in the registry, empty before it has registered."""
        return self.entry.id if self.entry else ""

    def start(self, gpus: Sequence[str] | None) -> None:
        """Start the process, with these GPUs for itself.

        Parameters
        ----------
        gpus : sequence of str or None
            UUIDs of the GPUs that it may see; ``None`` on a computer that has none.

        Raises
        ------
        StartFailed
            When the system refuses a new process; nothing is left of it then.
        """
        try:
            self.process = ChildProcess.start(self._spec(gpus), self._cgroup)
        except BaseException:
            self._release()
            raise

    def poll(self, now: float) -> bool:
        """Read the scoreboard, and enforce what is overdue.

        Returns
        -------
        bool
            Whether the process has just become ready for work.
        """
        self._reading = reading = self._scoreboard.read()
        if reading.piece:
            self._enforce_limits(now, reading)
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            self.process.kill_group(signal.SIGKILL)
        if self.entry is not None or not reading.worker_id:
            return False
        fields = msgpack.unpackb(self._entry_path.read_bytes())
        self.entry = replace(Entry.from_fields(fields), workshop=self._workshop)
        return True

    def enforce(self, now: float, piece: str, reason: str) -> bool:
        """End the process if it still runs this piece; ``False`` if it does not."""
        if not is_meant(self._scoreboard.read().piece, piece):
            return False
        if not self._asked:
            self._asked = f"piece {piece} {reason}"
            self.process.signal(signal.SIGTERM)
            self._kill_at = now + self._config.worker.kill_grace_s
        return True

    def asked_to_end(self, number: signal.Signals) -> None:
        """End the process on somebody's request."""
        self._asked = self._asked or f"asked to end with {number.name}"
        if number is signal.SIGKILL:
            self.process.kill_group(number)
        else:
            self.process.signal(number)

    def condemn(self, reason: str) -> None:
        """Kill the process, and give a reason as the cause of its end."""
        self._asked = self._asked or reason
        self.process.kill_group(signal.SIGKILL)

    def pump(self) -> bool:
        """Move some output to the log; ``False`` at its end."""
        return self._output.pump(self.process.output_fd, PUMP_BYTES) is not None

    def end(self) -> Death | None:
        """Return how the process ended, or ``None`` while it lives."""
        status = self.process.poll()
        if status is None:
            return None
        self.process.kill_group(signal.SIGKILL)
        for _ in range(64):
            if not self._output.pump(self.process.output_fd, PUMP_BYTES):
                break
        # what cannot be read must not keep its end from being noticed
        with contextlib.suppress(ValueError):
            self._reading = self._scoreboard.read()
        reading = self._reading
        stopped_well = reading.state is State.STOPPED and status.exit_code == 0
        evidence = diagnose(
            status,
            asked=self._asked,
            oom_kills=self._cgroup.oom_kills() if self._cgroup else 0,
            machine_oom_kills=(
                0 if self._cgroup else oom_kills_of_machine() - self._oom_kills
            ),
            memory_limit_bytes=self._catalogued.memory_bytes,
        )
        evidence = replace(
            evidence,
            piece=reading.piece,
            exceeded=self._exceeded,
            output=self._output.tail(),
        )
        return Death(evidence, stopped_well)

    def close(self) -> None:
        """Release what the process had."""
        self.process.close()
        name = socket_name(self._board_path, self.process.pid)
        sockets = [
            self._board_path.with_name(f"{name}{suffix}")
            for suffix in (".sock", ".lane")
        ]
        for endpoint in self.entry.endpoints if self.entry else ():
            scheme, _, path = endpoint.partition("://")
            if scheme in ("ipc", "unix"):
                sockets.append(Path(path))
        self._release(*sockets)

    @property
    def is_handing_over(self) -> bool:
        """Whether it ends, and the values that it keeps are on their way to others."""
        return self._reading.state is State.HANDING_OVER

    @property
    def last_error(self) -> LastError | None:
        """The piece that failed here last."""
        return self._reading.last_error

    def figures(self) -> dict[str, Any]:
        """Return what the heartbeat says about the process."""
        reading = self._reading
        sample = process_sample(self.process.pid)
        is_stopped = sample.get("is_stopped", False)
        figures = reading.figures() | sample
        return figures | {"state": "lost"} if is_stopped else figures

    # --- inside --------------------------------------------------------------

    def _release(self, *sockets: Path) -> None:
        self._scoreboard.close()
        self._output.close()
        if self._cgroup is not None:
            self._cgroup.remove()
        for path in (self._board_path, self._entry_path, *sockets):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    @property
    def _entry_path(self) -> Path:
        return entry_path(self._board_path)

    def _enforce_limits(self, now: float, reading: Reading) -> None:
        graces_s = (
            self._config.worker.interrupt_grace_s + self._config.worker.kill_grace_s
        )
        if reading.deadline and now >= reading.deadline + graces_s:
            if self.enforce(now, reading.piece, "ran past its time limit"):
                self._exceeded = "time"
        elif reading.piece == reading.enforce_piece and now >= reading.enforce_at:
            self.enforce(now, reading.piece, "was interrupted and did not stop")

    def _spec(self, gpus: Sequence[str] | None) -> ProcessSpec:
        entry = self._catalogued
        return ProcessSpec(
            argv=entry.command or self._command(),
            environment=self._environment(gpus),
            directory=entry.directory,
            limits=Limits(
                tuple(entry.cpus),
                entry.memory_bytes,
                self._config.workshop.oom_score_adj,
            ),
        )

    def _command(self) -> tuple[str, ...]:
        entry = self._catalogued
        options = {"type": entry.type, "arguments": dict(entry.arguments)}
        target = entry.target
        return (
            sys.executable,
            "-m",
            "opencluster.start",
            target,
            json.dumps(options),
        )

    def _environment(self, gpus: Sequence[str] | None) -> Mapping[str, str]:
        entry = self._catalogued
        environment = dict(os.environ) | {
            "PYTHONUNBUFFERED": "1",
            "PYTHONFAULTHANDLER": "1",
            SCOREBOARD_VARIABLE: str(self._board_path),
            NAME_VARIABLE: self.name,
            WORKSHOP_VARIABLE: self._marker,
        }
        if entry.max_pieces is not None:
            environment["OPENCLUSTER_WORKER_MAX_PIECES"] = str(entry.max_pieces)
        if entry.max_memory is not None:
            environment["OPENCLUSTER_WORKER_MAX_MEMORY"] = str(entry.max_memory)
        if entry.memory_bytes:
            most = entry.memory_bytes // ARENA_PART
            arena_bytes = min(self._config.memory.arena_bytes, most)
            environment["OPENCLUSTER_MEMORY_ARENA_BYTES"] = str(arena_bytes)
            most = entry.memory_bytes // KEPT_PART
            kept_bytes = min(self._config.memory.kept_bytes or most, most)
            environment["OPENCLUSTER_MEMORY_KEPT_BYTES"] = str(kept_bytes)
        if gpus is not None:
            # empty for a process that leased none: it must not take a card of others
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)
        return environment | dict(entry.environment)
