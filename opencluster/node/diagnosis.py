"""Why a process ended, in words.

Owns the words for a death. Must not ask the system anything: the evidence is given.
"""

from __future__ import annotations

from opencluster.errors import DeathEvidence
from opencluster.node.process import ExitStatus

_MEANINGS = {
    "SIGABRT": "it aborted itself",
    "SIGBUS": "bad memory access, or a full disk under a mapped file",
    "SIGFPE": "arithmetic error",
    "SIGILL": "illegal instruction, perhaps built for another CPU",
    "SIGSEGV": "invalid memory access",
    "SIGSYS": "forbidden system call",
    "SIGTRAP": "trap",
    "SIGXCPU": "CPU time limit",
    "SIGXFSZ": "file size limit",
}


def diagnose(
    status: ExitStatus,
    *,
    asked: str = "",
    oom_kills: int = 0,
    machine_oom_kills: int = 0,
    memory_limit_bytes: int = 0,
) -> DeathEvidence:
    """Return why a process ended; the caller adds its piece and its output.

    Parameters
    ----------
    status : ExitStatus
        How it ended.
    asked : str
        Why its workshop was ending it, or an empty string when it was not.
    oom_kills : int
        `Group.oom_kills` of its own control group, which was fresh when it started.
    machine_oom_kills : int
        How much `oom_kills_of_machine` grew during its life; give it only when it has
        no control group, as it counts what befell others too.
    memory_limit_bytes : int
        Its limit, 0 for none.
    """
    is_unasked_kill = status.signal == "SIGKILL" and not asked
    is_oom = is_unasked_kill and (oom_kills > 0 or machine_oom_kills > 0)
    if is_oom:
        reason = "killed by SIGKILL: " + _memory(oom_kills > 0, memory_limit_bytes)
    else:
        reason = _reason(status, asked)
        if oom_kills:
            reason += "; a process of its group was killed: out of memory"
    return DeathEvidence(
        reason=reason,
        exit_code=status.exit_code,
        signal=status.signal,
        out_of_memory=is_oom,
        peak_memory_bytes=status.peak_memory_bytes,
    )


def _memory(is_own_limit: bool, limit_bytes: int) -> str:
    if not is_own_limit:
        return "the computer ran out of memory"
    limit = f" (limit {limit_bytes / 1e6:.0f} MB)" if limit_bytes else ""
    return "out of memory" + limit


def _reason(status: ExitStatus, asked: str) -> str:
    is_as_asked = status.exit_code == 0 or status.signal in ("SIGTERM", "SIGKILL")
    if asked and is_as_asked:
        return f"ended by its workshop: {asked}"
    if status.signal:
        meaning = _MEANINGS.get(status.signal)
        how = f"({meaning})" if meaning else "from outside OpenCluster"
        reason = f"killed by {status.signal} {how}"
    elif status.exit_code is None:
        reason = "ended, nobody knows how: something else reaped it"
    else:
        reason = f"exited with code {status.exit_code}"
    return f"{reason} while its workshop ended it: {asked}" if asked else reason
