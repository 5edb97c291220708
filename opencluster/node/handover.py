"""What a workshop and the processes that it starts have agreed on."""

from __future__ import annotations

from pathlib import Path

SCOREBOARD_VARIABLE = "OPENCLUSTER_SCOREBOARD"
"""Names the scoreboard's file to a process that a workshop started."""
NAME_VARIABLE = "OPENCLUSTER_NAME"
"""Gives a process the name of its slot."""
WORKSHOP_VARIABLE = "OPENCLUSTER_MARKER"
"""Marks the processes of a workshop, for one that starts after it was killed."""
OWNER_DIGITS = 8
"""Characters of a workshop's identity that the names of its processes' files have."""


def board_name(workshop: str, slot: str) -> str:
    """Return the name of the scoreboard's file of a slot."""
    return f"{workshop[:OWNER_DIGITS]}-{slot}.board"


def socket_name(board_path: Path, pid: int) -> str:
    """Return the name of the local socket of a process, without its suffix.

    The workshop knows it too, and removes the socket of a process that could not.

    Parameters
    ----------
    board_path : Path
        The process's scoreboard.
    pid : int
        Its process id.
    """
    return f"w-{board_path.name[:OWNER_DIGITS]}-{pid}"


def entry_path(board_path: Path) -> Path:
    """Return where a process leaves its registry entry for its workshop.

    Parameters
    ----------
    board_path : Path
        The process's scoreboard.
    """
    return board_path.with_suffix(".entry")
