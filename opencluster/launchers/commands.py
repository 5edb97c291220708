"""Run commands for a limited time, several at once, and end them all on Ctrl-C.

What they print goes into files and not through pipes: ssh leaves processes behind for
later connections, and those keep a pipe open.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from opencluster.errors import LaunchFailed

MAX_OUTPUT_BYTES = 1 << 20
"""What is read of the output of a command; nobody wants more."""

KILLED_S = 5.0
"""How long a command that is killed is waited for."""


@dataclass(frozen=True)
class Ran:
    """What came of a command.

    Attributes
    ----------
    code : int or None
        Its exit code; ``None`` when it took too long, or was stopped.
    output, errors : str
        What it printed.
    """

    code: int | None
    output: str
    errors: str


class Commands:
    """Commands that run now; for use by many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._is_stopped = False

    def run(
        self,
        argv: Sequence[str],
        text: str,
        limit_s: float,
        environment: Mapping[str, str] | None = None,
        is_apart: bool = False,
    ) -> Ran:
        """Run one with a text on standard input, and wait for its end.

        Parameters
        ----------
        argv : sequence of str
            The program and its arguments.
        text : str
            What it reads.
        limit_s : float
            After this long it is killed.
        environment : mapping of str to str, optional
            Added to ours.
        is_apart : bool
            Let it end its work when Ctrl-C is pressed on our terminal.

        Raises
        ------
        LaunchFailed
            When there is no such command.
        """
        with (
            tempfile.TemporaryFile() as given,
            tempfile.TemporaryFile() as output,
            tempfile.TemporaryFile() as errors,
        ):
            given.write(text.encode())
            given.seek(0)
            with self._lock:
                if self._is_stopped:
                    return Ran(None, "", "")
                try:
                    process = subprocess.Popen(
                        argv,
                        stdin=given,
                        stdout=output,
                        stderr=errors,
                        env=os.environ | dict(environment or {}),
                        start_new_session=is_apart,
                    )
                except OSError as error:
                    raise LaunchFailed(
                        f"cannot run {argv[0]}: {error.strerror}"
                    ) from None
                self._running.add(process)
            code: int | None = None
            try:
                code = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                process.kill()
                # one that hangs in the kernel is left to itself
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(KILLED_S)
            finally:
                with self._lock:
                    self._running.discard(process)
            said = []
            for file in (output, errors):
                file.seek(0)
                said.append(file.read(MAX_OUTPUT_BYTES).decode(errors="replace"))
        return Ran(code, *said)

    def stop(self) -> None:
        """End those that run, and start none any more."""
        with self._lock:
            self._is_stopped = True
            for process in self._running:
                process.terminate()
