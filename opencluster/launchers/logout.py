"""Whether a host ends at log-out what a session has started, as some are set up to.

Owns what systemd-logind is asked. A daemon with a session of its own (``setsid``) is
still in the control group of the log-in, which logind ends with all in it if it has
KillUserProcesses=yes.
"""

from __future__ import annotations

import os
import pwd
import re
from pathlib import Path

from opencluster.errors import LaunchFailed
from opencluster.launchers.commands import Commands

CGROUP = Path("/proc/self/cgroup")
"""Where the control groups of this process stand."""
LIMIT_S = 5.0
REASON = (
    "systemd-logind ends there what a log-in leaves (KillUserProcesses=yes): run "
    "`loginctl enable-linger` there, and name a script in `python:` that starts Python "
    "by `systemd-run --user --scope` (docs/launch.md)"
)
REASON_HERE = (
    "what looks after them ends when you log out, as systemd-logind has "
    "KillUserProcesses=yes here: run `loginctl enable-linger`, and give this command "
    "again behind `systemd-run --user --scope`"
)
_OF_A_LOG_IN = re.compile(r"/session-[^/\n]+\.scope")


def ends_processes() -> bool:
    """Return whether logind will end what this process leaves behind at its end.

    ``False`` also where that cannot be told.
    """
    try:
        if not _OF_A_LOG_IN.search(CGROUP.read_text()):
            return False
        # without a session's name it tells of the manager itself
        ran = Commands().run(["loginctl", "show-session", "--all"], "", LIMIT_S)
    except (OSError, LaunchFailed):
        return False
    told = dict(line.partition("=")[::2] for line in ran.output.splitlines())
    if told.get("KillUserProcesses") != "yes":
        return False
    only, excluded = told.get("KillOnlyUsers", ""), told.get("KillExcludeUsers", "")
    own = _user()
    return own not in excluded.split() and (not only or own in only.split())


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
