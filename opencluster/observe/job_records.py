"""Records of jobs, wherever the job ran: from this computer, else from its workshop."""

from __future__ import annotations

from typing import Any

from opencluster.core.timeline import Timeline
from opencluster.errors import OpenClusterError, RecordError
from opencluster.net.control import Control
from opencluster.place import Place
from opencluster.store import job_records
from opencluster.store.job_records import MAX_BYTES

LAST = "last"
MOST = 200
"""Records that a computer is asked for."""


def list_records(place: Place, control: Control | None = None) -> list[dict[str, Any]]:
    """Return the jobs that are recorded, the newest first.

    Parameters
    ----------
    place : Place
        The cluster's directory on this computer.
    control : Control, optional
        The way to the other computers.

    Returns
    -------
    list of dict
        Jobs as their records begin; they may have gone on since.
    """
    found = {job["id"]: job for job in job_records.jobs(place.jobs, MOST)}
    for shop in [] if control is None else _workshops(control):
        try:
            answer = control.workshop(shop, "jobs", {}) if control else {}
        except OpenClusterError:
            # one that is away, or of another version, has nothing to say
            continue
        for job in answer["jobs"]:
            found.setdefault(str(job["id"]), dict(job))
    return sorted(found.values(), key=lambda job: -float(job["started_at"]))


def find_record(place: Place, id: str, control: Control | None = None) -> Timeline:
    """Return the record of a job.

    Parameters
    ----------
    place : Place
        The cluster's directory on this computer.
    id : str
        Its identity, the beginning of it, or ``last``.
    control : Control, optional
        The way to the other computers.

    Raises
    ------
    RecordError
        When there is none, or several begin so.
    """
    jobs = list_records(place, control)
    if id == LAST:
        jobs = jobs[:1]
    else:
        jobs = [job for job in jobs if id and str(job["id"]).startswith(id)]
        jobs = [job for job in jobs if job["id"] == id] or jobs
    if not jobs:
        raise RecordError(
            f"no job {id!r} is recorded here or at a workshop that answers; see "
            "`opencluster job list` for those that are. The record of a job stays on "
            "the computer of its script: without a workshop there, ask on that computer"
        )
    if len(jobs) > 1:
        some = ", ".join(str(job["id"]) for job in jobs[:5])
        raise RecordError(f"{len(jobs)} jobs begin with {id!r}: {some}; say more")
    identity = str(jobs[0]["id"])
    try:
        return job_records.read_file(job_records.path_of(place.jobs, identity))
    except RecordError:
        if control is None:
            raise
    for shop in _workshops(control):
        data = _fetched(control, shop, identity)
        if data:
            return job_records.read(data)
    raise RecordError(f"the record of job {identity} was removed a moment ago")


def _workshops(control: Control) -> list[dict[str, Any]]:
    return list(control.factory("find", {"kind": "workshop"}))


def _fetched(control: Control, shop: dict[str, Any], id: str) -> bytes:
    """Return a record in the hands of a workshop; nothing, if it has none."""
    data = bytearray()
    while len(data) < MAX_BYTES:
        try:
            asked = {"id": id, "position": len(data)}
            part = bytes(control.workshop(shop, "jobs", asked)["data"])
        except OpenClusterError:
            return b""
        if not part:
            break
        data += part
    return bytes(data)
