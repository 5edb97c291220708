"""A process of a workshop from its start to its end.

Owns signals and reaping. Must not decide when a process is stopped or started again.
One thread uses a `ChildProcess`, the one that started it.
"""

from __future__ import annotations

import contextlib
import os
import signal as signals
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from opencluster.node.cgroup import Group
from opencluster.node.launch import ProcessSpec, launch

SWEEP_ROUNDS = 10
"""Looks for orphans; more than two are needed only when they keep forking."""
_MAXRSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class ExitStatus:
    """How a process ended.

    Attributes
    ----------
    exit_code : int or None
        Its exit code; ``None`` when a signal ended it or somebody else reaped it.
    signal : str
        Name of that signal, or an empty string.
    peak_memory_bytes : int
        Largest resident size. The kernel counts what exec replaced too, so this is
        never below the size of the workshop when it started the process.
    cpu_s : float
        CPU seconds that it and the children it waited for used.
    """

    exit_code: int | None
    signal: str = ""
    peak_memory_bytes: int = 0
    cpu_s: float = 0.0


class ChildProcess:
    """A running process of the workshop; make it with `start`.

    Its whole process group ends with it: what it forked and left behind is killed
    before it is reaped.

    Attributes
    ----------
    pid : int
        Its process id, also that of its process group and session.
    pidfd : int
        A descriptor that becomes readable when it ends; -1 where the system has none.
    output_fd : int
        Non-blocking read end of the pipe of its standard output and error.
    """

    def __init__(self, popen: subprocess.Popen[bytes], output_fd: int) -> None:
        self._popen = popen
        self._status: ExitStatus | None = None
        self.pid = popen.pid
        self.output_fd = output_fd
        self.pidfd = _open_pidfd(popen.pid)

    @classmethod
    def start(cls, spec: ProcessSpec, cgroup: Group | None = None) -> ChildProcess:
        """Start a process; see `opencluster.node.launch.launch`.

        Parameters
        ----------
        spec : ProcessSpec
            What to start.
        cgroup : Group, optional
            The control group that limits its memory. Without one the limit is put on
            its address space.
        """
        return cls(*launch(spec, [cgroup.procs_path] if cgroup else []))

    def poll(self) -> ExitStatus | None:
        """Return how it ended, or ``None`` while it runs."""
        if self._status is None:
            self._status = self._reap()
            if self._status is not None:
                # Popen must not wait for a pid that may be somebody else's now.
                code = self._status.exit_code
                self._popen.returncode = -1 if code is None else code
        return self._status

    def signal(self, number: int) -> None:
        """Send it a signal; nothing happens when it has ended."""
        # Until it is reaped its pid cannot be given to another process.
        if self._status is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, number)

    def kill_group(self, number: int = signals.SIGKILL) -> None:
        """Send a signal to it and to everything that it forked."""
        if self._status is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def close(self) -> None:
        """Close the descriptors; call it after the end, when the output was read."""
        for fd in (self.output_fd, self.pidfd):
            if fd >= 0:
                os.close(fd)
        self.output_fd = self.pidfd = -1

    def _reap(self) -> ExitStatus | None:
        try:
            if sys.platform != "darwin":
                options = os.WEXITED | os.WNOHANG | os.WNOWAIT
                if os.waitid(os.P_PID, self.pid, options) is None:
                    return None
                # Now, while the dead leader still keeps the number of the group.
                self.kill_group()
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        except ChildProcessError:
            return ExitStatus(None)
        if not pid:
            return None
        code = os.waitstatus_to_exitcode(status)
        return ExitStatus(
            exit_code=None if code < 0 else code,
            signal=_signal_name(-code) if code < 0 else "",
            peak_memory_bytes=usage.ru_maxrss * _MAXRSS_UNIT_BYTES,
            cpu_s=usage.ru_utime + usage.ru_stime,
        )


def sweep_orphans(marker: str, value: str) -> list[int]:
    """Kill the processes that an earlier workshop left behind.

    Parameters
    ----------
    marker, value : str
        The environment variable that the workshop gave them, and what it held. Found
        are processes of this user that were started with it, this one excepted.

    Returns
    -------
    list of int
        The process ids that were killed.
    """
    killed: list[int] = []
    for _ in range(SWEEP_ROUNDS):
        found = [pid for pid in _marked(marker, value) if pid not in killed]
        if not found:
            break
        killed += [pid for pid in found if _kill_marked(pid, marker, value)]
    return killed


def _marked(marker: str, value: str) -> Iterator[int]:
    proc = Path("/proc")
    if not (proc / "self/environ").exists():
        yield from _marked_elsewhere(marker, value)
        return
    for entry in proc.iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                is_ours = entry.stat().st_uid == os.geteuid()
                if is_ours and _has_marker(int(entry.name), marker, value):
                    yield int(entry.name)


def _has_marker(pid: int, marker: str, value: str) -> bool:
    wanted = os.fsencode(f"{marker}={value}")
    try:
        return wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it ended, or its environment is none of our business
        return False


def _kill_marked(pid: int, marker: str, value: str) -> bool:
    """Kill a process found by its marker, and not another that got its pid since."""
    pidfd = _open_pidfd(pid)
    try:
        if sys.platform != "linux" or pidfd < 0:
            os.kill(pid, signals.SIGKILL)
        elif _has_marker(pid, marker, value):
            signals.pidfd_send_signal(pidfd, signals.SIGKILL)
        else:
            return False
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        if pidfd >= 0:
            os.close(pidfd)
    return True


def _marked_elsewhere(marker: str, value: str) -> Iterator[int]:
    import psutil

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            is_ours = process.uids().effective == os.geteuid()
            is_marked = is_ours and process.environ().get(marker) == value
            if is_marked and process.pid != os.getpid():
                yield process.pid


def _open_pidfd(pid: int) -> int:
    if sys.platform != "linux":
        return -1
    try:
        return os.pidfd_open(pid)
    except (OSError, AttributeError):  # an old kernel or Python, or no such process
        return -1


def _signal_name(number: int) -> str:
    try:
        return signals.Signals(number).name
    except ValueError:
        return f"signal {number}"
