"""Who may say what to whom: the roles of certificates, and one table of rules.

Every process of a cluster with keys holds a certificate of one role. Whoever receives
a request or a message looks here, with what the sender's key proves, before it acts.

Rules that this module keeps:

1. What stands in no row of `RULES` may be said by nobody.
2. Without keys nobody can be told apart: everyone is `TRUSTED`, and may say
   everything. Only addresses that strangers cannot reach are served that way.
3. An entry of the registry belongs to the certificate that registered it. Its owner
   is never taken from a message.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from opencluster.core.entries import Entry
from opencluster.errors import RegistryError, SecurityError

FACTORY = "factory"
WORKSHOP = "workshop"
WORKER = "worker"
MANAGER = "manager"
OBSERVER = "observer"
ROLES = (FACTORY, WORKSHOP, WORKER, MANAGER, OBSERVER)
"""What a certificate can be for."""

SERVICE = "service"
"""A receiver, and no role: a service holds a worker's certificate."""
ASKER = "asker"
"""A receiver: whoever has asked a daemon, or subscribed to a factory."""


class Credential(NamedTuple):
    """Who a peer is, by the key that it has proved to hold.

    Attributes
    ----------
    name : str
        The certificate's name.
    role : str
        One of `ROLES`.
    """

    name: str
    role: str


TRUSTED = Credential("", "")
"""Everyone, on a cluster without keys."""


class Rule(NamedTuple):
    """One row of the table.

    Attributes
    ----------
    roles : frozenset of str
        Who may say it.
    deed : str
        What they do by it, behind "may not": ``"ask a workshop to start workers"``.
    """

    roles: frozenset[str]
    deed: str


def _rules(
    receiver: str, roles: tuple[str, ...], deeds: Mapping[str, str]
) -> dict[tuple[str, str], Rule]:
    return {(receiver, what): Rule(frozenset(roles), d) for what, d in deeds.items()}


_ORDERS = {
    "pieces": "hand out pieces",
    "withdraw": "take pieces back",
    "cancel": "cancel pieces",
    "interrupt": "interrupt pieces",
}

_ENDING = {"end": "interrupt pieces of others"}

_VALUES = {
    "value": "send a value that was asked for",
    "chunk": "send a part of a value",
    "lost": "tell that a value is not here",
}
_QUESTIONS = {
    "fetch": "ask for a value",
    "part": "ask for a part of a value",
}

RULES: Mapping[tuple[str, str], Rule] = {
    **_rules(
        FACTORY,
        ROLES,
        {
            "hello": "ask a factory who leads",
            "find": "ask a factory who is there",
            "status": "ask a factory for the status",
            "subscribe": "subscribe to a factory",
            "roll": "ask a factory who is admitted",
        },
    ),
    # part of a greeting; of an observer it is not heard, as it can end a leadership
    **_rules(
        FACTORY,
        (FACTORY, WORKSHOP, WORKER, MANAGER),
        {"epoch": "say who has led"},
    ),
    **_rules(
        FACTORY,
        (WORKSHOP, WORKER),
        {
            "register": "register anything",
            "renew": "renew a registration",
            "deregister": "take out a registration",
            "pulse": "give a sign of life",
        },
    ),
    **_rules(FACTORY, (MANAGER, WORKER), {"job": "report a job"}),
    # any manager's key, as it may stop any worker: an operator sees to others' jobs
    **_rules(FACTORY, (MANAGER,), {"order_job": "order something for a job"}),
    **_rules(
        FACTORY,
        (FACTORY,),
        {
            "factory": "speak as a factory",
            "enroll": "change who is admitted",
        },
    ),
    **_rules(WORKSHOP, ROLES, {"status": "ask a workshop for its status"}),
    **_rules(
        WORKSHOP,
        (MANAGER, OBSERVER),
        {
            "logs": "read the logs of a computer",
            "jobs": "read what became of the pieces of jobs",
            "letters": "read what is known of dead letters",
        },
    ),
    **_rules(
        WORKSHOP,
        (MANAGER,),
        {
            "start": "ask a workshop to start workers",
            "scale": "ask a workshop for more or fewer workers",
            "stop": "ask a workshop to stop a worker",
            "restart": "ask a workshop to restart a worker",
            "kill": "ask a workshop to kill a worker",
            "drain": "ask a workshop to end its workers and start none",
            "undrain": "ask a workshop to start its workers again",
            "letter_work": "read the work in a dead letter",
            "delete_letter": "delete a dead letter",
        },
    ),
    **_rules(
        WORKSHOP,
        (MANAGER, WORKER),
        {"enforce": "ask a workshop to end an overdue worker"},
    ),
    **_rules(WORKER, (MANAGER,), _ORDERS),
    **_rules(WORKER, (MANAGER,), _ENDING),
    **_rules(
        WORKER,
        (MANAGER,),
        {
            "put": "give a value to keep",
            "copy": "have a value copied",
            "refer": "refer to a value",
            "references": "say which values it refers to",
            "release": "let go of a value",
            "unsaved": "tell that nobody takes its values",
        },
    ),
    # a worker has values from other workers, and large ones that it is to keep from
    # the manager that gives them
    **_rules(WORKER, (MANAGER, WORKER), _QUESTIONS),
    **_rules(WORKER, (MANAGER, WORKER), _VALUES),
    **_rules(SERVICE, (MANAGER, WORKER), _ORDERS),
    **_rules(SERVICE, (MANAGER,), _ENDING),
    **_rules(SERVICE, (WORKER,), _VALUES),
    **_rules(
        MANAGER,
        (WORKER,),
        {
            "results": "give results",
            "returned": "give pieces back",
            "progress": "tell of progress",
            "draining": "tell that a worker takes no more pieces",
            "gone": "tell that a worker is gone",
            "alive": "ask whether a manager is there",
            "kept": "tell that it keeps a value",
            "unkept": "tell that it does not keep a value",
            "missing": "tell which values are not here",
        },
    ),
    **_rules(MANAGER, (WORKER,), _QUESTIONS),
    **_rules(MANAGER, (WORKER,), _VALUES),
    **_rules(ASKER, (FACTORY, WORKSHOP), {"reply": "answer requests"}),
    **_rules(
        ASKER,
        (FACTORY,),
        {
            "delta": "tell who comes and goes",
            "beat": "tell how the registry stands",
            "moved": "send away those who follow it",
            "forgotten": "tell what has to be registered again",
        },
    ),
}
"""Receiver and operation or kind of message: who may say that, and what it does."""


def permits(receiver: str, what: str, who: Credential) -> bool:
    """Return whether somebody may say something.

    Parameters
    ----------
    receiver : str
        A role, `SERVICE` or `ASKER`.
    what : str
        An operation, or a kind of message.
    who : Credential
        Who says it.
    """
    if who is TRUSTED:
        return True
    rule = RULES.get((receiver, what))
    return rule is not None and who.role in rule.roles


def refusal(receiver: str, what: str, who: Credential) -> str:
    """Return the sentence that tells somebody what they may not say, and who may."""
    rule = RULES.get((receiver, what))
    if rule is None:
        return f"nobody may say {what!r} to {_a(receiver)}"
    holders = " or ".join(_a(role) for role in ROLES if role in rule.roles)
    return f"{_a(who.role)} may not {rule.deed}; this needs {holders}'s key"


def check(receiver: str, what: str, who: Credential) -> None:
    """Refuse what somebody may not say.

    Raises
    ------
    SecurityError
        When they may not; with the sentence of `refusal`.
    """
    if not permits(receiver, what, who):
        raise SecurityError(refusal(receiver, what, who))


def claim(entry: Entry, who: Credential, public_key: str) -> Entry:
    """Return an entry as a factory keeps it, owned by the one who registers it.

    Parameters
    ----------
    entry : Entry
        What came in a message.
    who : Credential
        Who sent it.
    public_key : str
        Their public key.

    Raises
    ------
    RegistryError
        When their role does not allow them to register that.
    """
    if who is TRUSTED:
        return replace(entry, owner="")
    is_process = entry.kind in (WORKER, SERVICE)
    if who.role == WORKER and (not is_process or entry.workshop):
        raise RegistryError(
            f"a worker's key registers a worker or service that runs by itself, not "
            f"{entry.kind} {entry.name!r}; this needs a workshop's key"
        )
    speaks_for_itself = who.role == WORKER or entry.kind == WORKSHOP
    if speaks_for_itself and entry.public_key != public_key:
        raise RegistryError(
            f"{entry.kind} {entry.name!r} must register the public key of its own "
            f"certificate, which is {who.name!r}"
        )
    return replace(entry, owner=who.name)


def _a(noun: str) -> str:
    return f"{'an' if noun[:1] in 'aeio' else 'a'} {noun}"
