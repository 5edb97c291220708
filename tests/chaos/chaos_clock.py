"""Computers whose clocks are wrong, jump, or run too fast: by libfaketime."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

LIBRARIES = ("lib/*", "lib*", "local/lib")
PRELOADED = Path(__file__).parent / "preloaded"
RIGHT = "+0"
PROBER = "prober"


def library() -> Path:
    """Return the library that lies about the time; skip the test where there is none.

    The one for programs with threads.
    """
    for pattern in LIBRARIES:
        for found in Path("/usr").glob(f"{pattern}/faketime/libfaketimeMT.so.1"):
            return found
    pytest.skip("libfaketime is not installed (Debian package libfaketime)")


class Clocks:
    """A clock for each program, except for the one by which interruptions are measured.

    Parameters
    ----------
    is_monotonic_too : bool
        Whether the clock that should never jump lies as well, as it does on a virtual
        machine that was halted.
    """

    def __init__(self, is_monotonic_too: bool = False) -> None:
        self._library = library()
        self._is_monotonic_too = is_monotonic_too
        self._files: dict[str, Path] = {}
        self._first: dict[str, str] = {}

    def begin(self, program: str, time: str) -> None:
        """Say what time it is for a program from its start."""
        self._first[program] = time

    def set(self, program: str, time: str) -> None:
        """Set the clock of a program while it runs.

        Parameters
        ----------
        program : str
            Which one; its children have the same clock.
        time : str
            In the notation of libfaketime, as ``+3600`` or ``-1d``.
        """
        self._write(self._files[program], time)

    def around(self, program: str, directory: Path) -> Sequence[str]:
        """Return the command that runs a program by its clock."""
        if program == PROBER:
            return []
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = self._files[program] = directory / "clock"
        self._write(file, self._first.get(program, RIGHT))
        variables = {
            "LD_PRELOAD": self._library,
            "FAKETIME_TIMESTAMP_FILE": file,
            "FAKETIME_NO_CACHE": 1,
            "FAKETIME_DONT_FAKE_MONOTONIC": int(not self._is_monotonic_too),
            # else waits for a condition end at once, or never
            "FAKETIME_FORCE_MONOTONIC_FIX": int(self._is_monotonic_too),
            "PYTHONPATH": os.pathsep.join(_python_path()),
        }
        # the library leaves files there when its process is killed
        mount = 'mount -t tmpfs shm /dev/shm && exec "$0" "$@"'
        apart = ["unshare", "--mount", "sh", "-c", mount]
        return [*apart, "env", *(f"{k}={v}" for k, v in variables.items())]

    def _write(self, file: Path, time: str) -> None:
        draft = file.with_suffix(".new")
        draft.write_text(f"{time}\n")
        # in one step: it is read at any moment
        draft.replace(file)


def _python_path() -> list[str]:
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [str(PRELOADED), *filter(None, given)]
