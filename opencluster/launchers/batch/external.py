"""The commands of a batch system: asked within a time limit.

Owns how their failure is told. Knows none of them.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence

from opencluster.errors import LaunchFailed
from opencluster.launchers.commands import Commands

TIMEOUT_S = 30.0


def ask(
    command: Sequence[str],
    timeout_s: float = TIMEOUT_S,
    environment: Mapping[str, str] | None = None,
    good_codes: Collection[int] = (0,),
) -> str:
    """Run a command and return what it prints.

    Parameters
    ----------
    command : sequence of str
        The program and its arguments.
    timeout_s : float
        After this long it is killed.
    environment : mapping of str to str, optional
        Added to ours.
    good_codes : collection of int
        The exit codes with which it has answered.

    Raises
    ------
    LaunchFailed
        When there is no such program, it fails, or it does not end in time.
    """
    shown = shlex.join(command)
    try:
        # one that is cut short may have submitted a job already
        ran = Commands().run(command, "", timeout_s, environment, is_apart=True)
    except LaunchFailed as error:
        raise LaunchFailed(
            f"{error}; use a computer on which jobs are submitted, and check PATH"
        ) from None
    if ran.code is None:
        raise LaunchFailed(
            f"`{shown}` did not end within {timeout_s:g} s: the batch system does not "
            "answer; try again later"
        )
    if ran.code not in good_codes:
        said = ran.errors.strip() or ran.output.strip()
        last = said.rpartition("\n")[2] or "no word"
        raise LaunchFailed(f"`{shown}` ended with status {ran.code}: {last}", said)
    return ran.output
