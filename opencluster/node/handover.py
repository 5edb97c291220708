"""What a workshop and the processes that it starts have agreed on."""

from __future__ import annotations

from pathlib import Path

SCOREBOARD_VARIABLE = "OPENCLUSTER_SCOREBOARD"
"""Names the scoreboard's file to a process that a workshop started."""
NAME_VARIABLE = "OPENCLUSTER_NAME"
"""Gives a process the name of its slot."""
WORKSHOP_VARIABLE = "OPENCLUSTER_MARKER"
"""Marks the processes of a workshop, for one that starts after it was killed."""


def entry_path(board_path: Path) -> Path:
    """Return where a process leaves its registry entry for its workshop.

    Parameters
    ----------
    board_path : Path
        The process's scoreboard.
    """
    return board_path.with_suffix(".entry")
