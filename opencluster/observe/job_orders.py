"""Order something for a job that runs somewhere: end it, or let it go first.

The order goes to the leading factory, which tells it to the job's manager with the
answer to the manager's next report (see `core.job_orders`). Whoever waits here gives
the order again when a new leader does not know of it.
"""

from __future__ import annotations

import contextlib
import getpass
import time
from collections.abc import Mapping
from typing import Any

from opencluster.core.elastic_report import is_report
from opencluster.core.job_orders import (
    CANCEL,
    MAX_PRIORITY,
    ORDERS,
    PRIORITY,
    orders_of,
)
from opencluster.errors import RegistryError
from opencluster.net.control import Control
from opencluster.node.host import host_name

__all__ = [
    "CANCEL",
    "MAX_PRIORITY",
    "ORDERS",
    "PRIORITY",
    "find_job",
    "order_job",
    "whoami",
]

LAST = "last"
"""Stands for the job that began last."""
WAIT_S = 15.0
"""How long a manager may take: its reports are seconds apart at most."""
LOOK_EVERY_S = 0.2


def whoami() -> str:
    """Return who sits at this computer, as orders name it."""
    try:
        return f"{getpass.getuser()}@{host_name()}"
    except (KeyError, OSError):
        return host_name()


def find_job(control: Control, id: str) -> dict[str, Any]:
    """Return the row of a job.

    Parameters
    ----------
    control : Control
        The way to the cluster.
    id : str
        Its identity, the beginning of it, or ``last``.

    Raises
    ------
    RegistryError
        When there is no such job, or more than one.
    """
    jobs = _jobs(control)
    if id == LAST and jobs:
        newest = max(jobs, key=lambda job: float(job.get("started_at") or 0.0))
        return newest
    found = [job for job in jobs if id and str(job["id"]).startswith(id)]
    exact = [job for job in found if job["id"] == id]
    if len(exact or found) == 1:
        return (exact or found)[0]
    if found:
        some = ", ".join(str(job["id"]) for job in found[:5])
        raise RegistryError(f"{len(found)} jobs begin with {id!r}: {some}; say more")
    raise RegistryError(
        f"no job {id!r} is known to the factory; `opencluster status` lists the jobs"
    )


def order_job(
    control: Control,
    id: str,
    order: str,
    value: int | None = None,
    by: str = "",
    wait_s: float = WAIT_S,
) -> str:
    """Order something for a job, and wait until its manager has carried it out.

    Parameters
    ----------
    control : Control
        The way to the cluster.
    id : str
        The job, its beginning, or ``last``.
    order : str
        ``cancel`` or ``priority``.
    value : int, optional
        The priority.
    by : str
        Who orders it, for its user and the log; by default who runs this program.
    wait_s : float
        How long to wait, in seconds; 0 returns when the factory knows of it.

    Returns
    -------
    str
        What came of it, in a sentence.

    Raises
    ------
    RegistryError
        When there is no such job, it has ended, or nobody can carry this out.
    """
    identity = str(find_job(control, id)["id"])
    asked = {"id": identity, "order": order, "value": value, "by": by or whoami()}
    control.factory("order_job", asked)
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        # factories may choose another leader meanwhile, who hears of jobs in a moment
        with contextlib.suppress(RegistryError):
            row = next((job for job in _jobs(control) if job["id"] == identity), None)
            told = _outcome(row, order, value) if row is not None else ""
            if told:
                return told
            if row is not None and order not in orders_of(row):
                control.factory("order_job", asked)
        time.sleep(LOOK_EVERY_S)
    what = "to be cancelled" if order == CANCEL else f"to get the priority {value}"
    return f"job {identity} is {what}, as soon as its manager reports again"


def _jobs(control: Control) -> list[dict[str, Any]]:
    rows = control.factory("status")["jobs"]
    return [dict(row) for row in rows if not is_report(row)]


def _outcome(row: Mapping[str, Any], order: str, value: int | None) -> str:
    """Return what came of an order, or nothing as long as that is not known."""
    state = row.get("state")
    if order == CANCEL and state == "cancelled":
        return f"job {row['id']} is cancelled"
    if state != "running":
        return f"job {row['id']} had ended before: it is {state}"
    if order == PRIORITY and row.get("priority") == value:
        return f"job {row['id']} has the priority {value} now"
    return ""
