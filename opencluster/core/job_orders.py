"""What somebody else may order for a job that runs, and what a manager owes to it.

An order is no message that can get lost: it is a state of the job, kept in the job's
row by the factories and told to its manager with the answer to every report. The
manager compares it with what it has carried out. So an order may be given, and told,
any number of times; and whoever leads next tells it too.

Rules that this module keeps:

1. A job has at most one order of each kind: the newest one.
2. What is over is over: a job that ended takes no orders, nor one that is lost.
3. A cancelled job stays cancelled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from opencluster.core.elastic_report import is_report
from opencluster.errors import RegistryError

CANCEL = "cancel"
PRIORITY = "priority"
ORDERS = (CANCEL, PRIORITY)
"""What can be ordered."""
RESUME = "resume"
"""What can be ordered of who launches workers, and has given it up."""

MAX_PRIORITY = 2**63 - 1
MAX_BY = 200
"""Characters of the name of who orders."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """End all pieces of the job."""

    by: str


@dataclass(frozen=True, slots=True)
class Prioritise:
    """Give all pieces of the job another priority, and those that come."""

    priority: int


Duty = Cancel | Prioritise


def ordered_by(said: Any, name: str) -> str:
    """Return who orders something, as its user will read it.

    Parameters
    ----------
    said : object
        What the program of who orders says.
    name : str
        The name of its certificate, which is proved; empty without keys.
    """
    who = said if isinstance(said, str) and said.isprintable() else ""
    who = who[: MAX_BY // 2]
    if not name or who == name:
        return who or name
    return f"{who} (with the key {name})" if who else name


def with_order(
    job: Mapping[str, Any], order: Any, value: Any, by: str, at: float
) -> dict[str, Any]:
    """Return the row of a job with an order in it.

    Parameters
    ----------
    job : mapping
        Its row, as the factory keeps it.
    order : str
        One of `ORDERS`; `RESUME` for one who launches workers, which is no job.
    value : object
        The priority; of no meaning otherwise.
    by : str
        Who orders it.
    at : float
        When, in seconds since 1970.

    Raises
    ------
    RegistryError
        When there is no such order, or nobody could carry it out.
    """
    known = (RESUME,) if is_report(job) else ORDERS
    if order not in known:
        what = "elasticity" if is_report(job) else "a job"
        raise RegistryError(
            f"{what} takes no order {order!r:.40}; there are: {', '.join(known)}"
        )
    if order == PRIORITY and not _is_priority(value):
        raise RegistryError(
            f"a priority is an integer of 64 bits, not {value!r:.40}: the higher goes "
            "first, and 0 is usual"
        )
    check_running(job)
    row: dict[str, Any] = {"by": by[:MAX_BY], "at": at}
    if order == PRIORITY:
        row["value"] = value
    return {**job, "orders": {**orders_of(job), order: row}}


def check_running(job: Mapping[str, Any]) -> None:
    """Refuse a job that nobody can do anything about any more.

    Raises
    ------
    RegistryError
        When it ended, or its manager is not heard any more.
    """
    state, name = job.get("state"), f"job {job.get('id', '')!s:.80}"
    if state == "lost":
        raise RegistryError(
            f"{name} is lost: its manager does not report any more, so nobody can "
            "carry out an order; should it come back, order it again"
        )
    if state != "running":
        raise RegistryError(f"{name} has ended already: it is {state!s:.40}")


def orders_of(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return the orders in the row of a job."""
    orders = job.get("orders")
    return dict(orders) if isinstance(orders, Mapping) else {}


def duties(answer: Any, priority: int | None) -> list[Duty]:
    """Return what a manager has to do for a job that runs.

    Parameters
    ----------
    answer : object
        What a factory answered to the report of the job; an older one says nothing.
    priority : int or None
        The last priority that was ordered, and carried out.
    """
    orders = orders_of(answer) if isinstance(answer, Mapping) else {}
    cancel, change = orders.get(CANCEL), orders.get(PRIORITY)
    if isinstance(cancel, Mapping):
        return [Cancel(str(cancel.get("by", ""))[:MAX_BY])]
    value = change.get("value") if isinstance(change, Mapping) else None
    if _is_priority(value) and value != priority:
        return [Prioritise(value)]
    return []


def _is_priority(value: Any) -> TypeGuard[int]:
    return type(value) is int and -MAX_PRIORITY <= value <= MAX_PRIORITY
