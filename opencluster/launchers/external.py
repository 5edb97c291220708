"""Commands of others, such as those of a batch system: asked within a time limit.

Owns how they are run, and how their failure is told. Knows none of them.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence

from opencluster.errors import LaunchFailed

TIMEOUT_S = 30.0
MAX_OUTPUT_BYTES = 16 << 20
"""Of one answer; more is cut off."""


def ask(
    command: Sequence[str],
    timeout_s: float = TIMEOUT_S,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a command and return what it prints.

    Parameters
    ----------
    command : sequence of str
        The program and its arguments.
    timeout_s : float
        After this long it is killed, with all that it started.
    environment : mapping of str to str, optional
        Added to ours.

    Raises
    ------
    LaunchFailed
        When there is no such program, it fails, or it does not end in time.
    """
    shown = shlex.join(command)
    # files, since a pipe would stay open as long as a grandchild that hangs
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env=os.environ | dict(environment or {}),
                start_new_session=True,
            )
        except OSError as error:
            raise LaunchFailed(
                f"cannot run `{command[0]}` on this computer: {error.strerror}; use a "
                "computer on which jobs are submitted, and check PATH"
            ) from None
        try:
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            _kill(process)
            raise LaunchFailed(
                f"`{shown}` did not end within {timeout_s:g} s: the batch system does "
                "not answer; try again later"
            ) from None
        except BaseException:
            _kill(process)
            raise
        texts = []
        for file in (output, errors):
            file.seek(0)
            texts.append(file.read(MAX_OUTPUT_BYTES).decode(errors="replace"))
    if status != 0:
        said = (texts[1].strip() or texts[0].strip()).splitlines()
        raise LaunchFailed(
            f"`{shown}` ended with status {status}: {said[-1] if said else 'no word'}",
            "\n".join(said),
        )
    return texts[0]


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # one that hangs in the kernel is left to itself
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(1.0)
