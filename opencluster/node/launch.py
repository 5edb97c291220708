"""What to start, under which limits, and the first moment of it.

Owns the description of a process (`ProcessSpec`, `Limits`) and the way from it to a
running child. Must not watch, end or reap what it started: that is
`opencluster.node.process`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from opencluster.errors import StartFailed

PIPE_BYTES = 256 * 1024
"""Output that a worker can print while its workshop is busy, before it must wait."""

_CHILD = Path(__file__).with_name("child.py")
# Isolated, so that no setting of the user's Python reaches the script; without site
# for speed; in UTF-8 mode, so that arguments arrive as they are in any locale.
_INTERPRETER_OPTIONS = ("-I", "-S", "-X", "utf8")


@dataclass(frozen=True)
class Limits:
    """What one process may use.

    Attributes
    ----------
    cpus : tuple of int
        CPUs that it may run on; empty for all.
    memory_bytes : int
        Memory that it may use, 0 for no limit. Held by a control group if one is
        given, and then the kernel ends the process that goes beyond. Else held as a
        limit of the address space, so that an allocation beyond it fails
        (`MemoryError`); that counts memory that is reserved and never used as well,
        and needs to be generous for programs with many threads or with CUDA.
    oom_score_adj : int
        How much rather than others it is killed when the computer runs out of memory,
        up to 1000. A value below the workshop's own changes nothing.
    """

    cpus: tuple[int, ...] = ()
    memory_bytes: int = 0
    oom_score_adj: int = 0


@dataclass(frozen=True)
class ProcessSpec:
    """A process to start.

    Attributes
    ----------
    argv : tuple of str
        The program, looked up in the PATH of `environment`, and its arguments.
    environment : mapping of str to str
        The whole environment, not an addition to that of the workshop.
    directory : str
        Working directory; empty for that of the workshop.
    limits : Limits
        What it may use.
    descriptors : tuple of int
        Open files that it gets, under the same numbers.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    directory: str = ""
    limits: Limits = field(default_factory=Limits)
    descriptors: tuple[int, ...] = ()


def launch(
    spec: ProcessSpec, procs_paths: Sequence[Path] = ()
) -> tuple[subprocess.Popen[bytes], int]:
    """Start a process in its own session, its output going into a pipe.

    On Linux it ends when the calling thread ends, so call this from a thread that
    lives as long as the workshop.

    Parameters
    ----------
    spec : ProcessSpec
        What to start.
    procs_paths : sequence of Path
        ``cgroup.procs`` files of the control groups that it enters, which then limit
        its memory.

    Returns
    -------
    process : subprocess.Popen
        The child.
    output_fd : int
        The read end of the pipe of its standard output and error, non-blocking.

    Raises
    ------
    StartFailed
        The system refused a new process. A program that cannot be run is no such
        case: its process prints the reason and exits with 126 or 127.
    """
    try:
        output_fd, write_end = os.pipe()
    except OSError as error:
        raise _start_failed(spec, error) from error
    try:
        os.set_blocking(output_fd, False)
        _enlarge(output_fd)
        process = subprocess.Popen(
            _command(spec, procs_paths),
            stdin=subprocess.DEVNULL,
            stdout=write_end,
            stderr=write_end,
            env=dict(spec.environment),
            start_new_session=True,
            pass_fds=spec.descriptors,
        )
    except (OSError, ValueError) as error:
        os.close(output_fd)
        raise _start_failed(spec, error) from error
    except BaseException:
        os.close(output_fd)
        raise
    finally:
        os.close(write_end)
    return process, output_fd


def _command(spec: ProcessSpec, procs_paths: Sequence[Path]) -> list[str]:
    limits = spec.limits
    order = (
        os.getpid(),
        spec.directory,
        " ".join(map(str, limits.cpus)),
        limits.oom_score_adj,
        "\n".join(map(str, procs_paths)),
        0 if procs_paths else limits.memory_bytes,
    )
    script = [sys.executable, *_INTERPRETER_OPTIONS, str(_CHILD)]
    return [*script, *map(str, order), *spec.argv]


def _start_failed(spec: ProcessSpec, error: Exception) -> StartFailed:
    return StartFailed(
        f"cannot start {spec.argv[0]!r}: {error}; the limits of this user on "
        "processes and open files are shown by 'ulimit -a'"
    )


def _enlarge(pipe_fd: int) -> None:
    option = getattr(fcntl, "F_SETPIPE_SZ", None)
    if option is not None:
        # Refused when the user's pipes hold too much already; a small one will do.
        with contextlib.suppress(OSError):
            fcntl.fcntl(pipe_fd, option, PIPE_BYTES)
