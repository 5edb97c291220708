"""What a factory tells people of itself and of the other factories.

Values only; `docs/status.md` says what each means.
"""

from __future__ import annotations

from typing import Any

from opencluster.core.election import Role
from opencluster.core.replication import FollowerState, ReplicatedRegistry

_PUBLIC = {Role.LEADING: "leader", Role.FOLLOWING: "follower"}


def public_role(role: Role) -> str:
    """Return a role in the words that everyone else knows."""
    return _PUBLIC.get(role, "looking")


def lineup(core: ReplicatedRegistry, now: float, at: float) -> list[dict[str, Any]]:
    """Return a row for each factory: those of the list, then those that joined.

    Parameters
    ----------
    core : ReplicatedRegistry
        What this factory knows.
    now : float
        The time, in seconds.
    at : float
        The time of day, in seconds since 1970.
    """
    election = core.election
    joined = [name for name in core.followers if name not in election.names]
    return [_row(core, now, at, name) for name in [*election.names, *joined]]


def _row(core: ReplicatedRegistry, now: float, at: float, name: str) -> dict[str, Any]:
    election = core.election
    if name == election.me:
        lag = 0 if election.may_write(now) else None
        own = FollowerState(now, core.registry.revision, core.about)
        row = _known(core, at, name, own, lag)
        silence_s = election.silence_s(now)
        return row | {"role": public_role(election.role), "silence_s": silence_s}
    state = core.followers.get(name)
    if state is None:
        is_missed = election.role is Role.LEADING
        unheard = "leader" if name == election.leader else "unknown"
        return {"endpoint": name, "role": "absent" if is_missed else unheard}
    silence_s = now - state.heard_at
    lag = core.registry.revision - state.revision
    row = _known(core, at, name, state, lag)
    role = "follower" if silence_s <= election.timeout_s else "absent"
    return row | {"role": role, "silence_s": silence_s}


def _known(
    core: ReplicatedRegistry,
    at: float,
    name: str,
    state: FollowerState,
    lag: int | None,
) -> dict[str, Any]:
    about = state.about
    return {
        "endpoint": name,
        "pid": about.get("pid", 0),
        "epoch": core.election.led,
        "revision": state.revision,
        "lag": lag,
        "uptime_s": at - float(about.get("started_at", 0.0)),
        "has_other_list": about.get("list", _list(core)) != _list(core),
    }


def _list(core: ReplicatedRegistry) -> float | None:
    return core.about.get("list")
