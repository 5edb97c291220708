"""What can be seen of another process of this computer from outside.

A process that stands still, or whose code keeps Python to itself, does not answer.
The kernel tells the two apart, where a question would not.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

RUNNING, STOPPED, GONE, UNKNOWN = "running", "stopped", "gone", "unknown"
"""What becomes of a process. One that sleeps, for whatever reason, is running."""

_STATES = {"T": STOPPED, "t": STOPPED, "Z": GONE, "X": GONE, "x": GONE}
_START = 19
"""Place of the time of its start among the fields behind the name."""


class Onlooker:
    """Looks at a process now and then.

    Parameters
    ----------
    pid : int
        Of the process; 0 for one that this process cannot see.
    """

    def __init__(self, pid: int) -> None:
        self._path = Path(f"/proc/{pid}/stat")
        self._started = ""
        if pid:
            with contextlib.suppress(OSError):
                self._started = self._read()[1]

    def look(self) -> str:
        """Return what the process does: one of the names above."""
        if not self._started:
            return UNKNOWN
        try:
            state, started = self._read()
        except (FileNotFoundError, ProcessLookupError):
            return GONE
        except OSError:
            # that says something of this process, such as that it has no descriptor
            return UNKNOWN
        # another process may have got its number since
        return _STATES.get(state, RUNNING) if started == self._started else GONE

    def _read(self) -> tuple[str, str]:
        """Return the state, and when the process was started."""
        text = self._path.read_text(errors="replace")
        fields = text.rpartition(")")[2].split()
        return fields[0], fields[_START]
