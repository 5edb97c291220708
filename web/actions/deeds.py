"""What can be done, in words and by whom: one table for the pages and for programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from flask import current_app

from opencluster.config import Config
from opencluster.errors import RegistryError
from opencluster.launchers.connection import connect
from opencluster.net.control import Control
from opencluster.node.orders import MAX_PROCESSES
from opencluster.observe import actions
from opencluster.place import Place
from opencluster_web.accounts.guard import Role, audited

PATIENCE_S = 2.0
"""How long an answer waits for what was begun; what takes longer goes on by itself."""
START_PATIENCE_S = 10.0

Given = Mapping[str, Any]
"""What a form, or a program, has filled in."""


@dataclass(frozen=True)
class Hands:
    """How the application reaches the cluster to change something.

    Attributes
    ----------
    config : Config
        The settings, which may name the factories.
    place : Place
        The cluster's directory, when they do not.
    """

    config: Config
    place: Place

    @contextmanager
    def reach(self) -> Iterator[Control]:
        """Open the way to the daemons.

        Raises
        ------
        FactoryUnreachable
            When there is no cluster.
        """
        with connect(self.config, self.place) as control:
            yield control


def hands() -> Hands:
    """Return those of the application that answers."""
    found: Hands = current_app.extensions["opencluster_hands"]
    return found


@dataclass(frozen=True)
class Field:
    """What has to be filled in.

    Attributes
    ----------
    name, label : str
        For programs, and for people.
    help : str
        What to write.
    type : str
        Of the input: ``text`` or ``number``, or ``choice``.
    choices : tuple of str
        What can be chosen.
    default : str
        What stands there at first.
    is_needed : bool
        Whether it cannot be left out.
    """

    name: str
    label: str
    help: str = ""
    type: str = "text"
    choices: tuple[str, ...] = ()
    default: str = ""
    is_needed: bool = True


@dataclass(frozen=True)
class Deed:
    """Something that can be done.

    Attributes
    ----------
    name : str
        In addresses.
    verb : str
        What it is, on a button and in the audit log.
    explains : str
        What will happen.
    what : str
        To what it is done, in words.
    do : callable
        Does it to a subject, with what was filled in, and says what was done.
    role : Role
        Who may.
    is_grave : bool
        Whether something ends by it.
    fields : tuple of Field
        What has to be filled in.
    """

    name: str
    verb: str
    explains: str
    what: str
    do: Callable[[Control, str, Given], str]
    role: Role = Role.OPERATOR
    is_grave: bool = False
    fields: tuple[Field, ...] = ()


def carry_out(deed: Deed, subject: str, given: Given, name: str = "") -> str:
    """Do something, write down who did it, and return what was done in a sentence.

    Parameters
    ----------
    deed : Deed
        What.
    subject : str
        To whom; a name or an identity.
    given : mapping
        What was filled in.
    name : str
        How people call the subject; by default as it is.

    Raises
    ------
    OpenClusterError
        When it cannot be done.
    """
    # an empty field is one that was left out, and stands for the default
    details = {f.name: given[f.name] for f in deed.fields if given.get(f.name)}
    with (
        audited(f"{deed.verb.lower()} {deed.what}", name or subject, **details),
        hands().reach() as control,
    ):
        return deed.do(control, subject, given)


# --- inside -----------------------------------------------------------------


def _stop(control: Control, subject: str, given: Given) -> str:
    return actions.stop(control, [subject], hands().config, PATIENCE_S)


def _drain(control: Control, subject: str, given: Given) -> str:
    return actions.drain(control, subject, hands().config, PATIENCE_S)


def _interrupt(control: Control, subject: str, given: Given) -> str:
    return actions.interrupt(control, subject, PATIENCE_S)


def _scale(control: Control, subject: str, given: Given) -> str:
    count = whole(given.get("count"), "count")
    return actions.scale(
        control, subject, count, str(given.get("computer") or ""), START_PATIENCE_S
    )


def _start(control: Control, subject: str, given: Given) -> str:
    shop = actions.find_computer(control, subject)
    target, kind = str(given.get("target", "")), str(given.get("kind") or "worker")
    name = str(given.get("type") or "") or actions.name_in(target, kind)
    arguments = given.get("arguments") or {}
    entry = {
        **{"kind": kind, "name": name, "type": name, "target": target},
        "arguments": arguments,
    }
    count = whole(given.get("count") or 1, "count")
    names = actions.start(control, shop, entry, count, START_PATIENCE_S)
    return f"started {', '.join(names) or 'nothing'} on {shop['name']}"


def whole(given: Any, name: str) -> int:
    """Return a number of processes that was filled in.

    Raises
    ------
    RegistryError
        When it is none.
    """
    text = str(given)
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_PROCESSES))):
        raise RegistryError(
            f"{name}: got {text[:40]!r}, expected a whole number from 0 to "
            f"{MAX_PROCESSES}"
        )
    return int(text)


_COUNT = Field("count", "How many", f"0 to {MAX_PROCESSES}", "number", default="1")

DEEDS: Mapping[str, Deed] = {
    deed.name: deed
    for deed in (
        Deed(
            "restart",
            "Restart",
            "It finishes what it has in hand, and a fresh process takes its place.",
            "process",
            lambda control, subject, _: actions.restart(control, subject),
        ),
        Deed(
            "stop",
            "Stop",
            "It finishes what it has in hand, and none takes its place.",
            "process",
            _stop,
            is_grave=True,
        ),
        Deed(
            "kill",
            "Kill",
            "It ends at once. What it has in hand runs again elsewhere, and a fresh "
            "process takes its place. This is for one that hangs.",
            "process",
            lambda control, subject, _: actions.kill(control, subject),
            is_grave=True,
        ),
        Deed(
            "interrupt",
            "Interrupt",
            "The piece that it runs is stopped and does not run again: its program "
            "meets an Interrupted. The worker goes on with the next piece.",
            "process",
            _interrupt,
            is_grave=True,
        ),
        Deed(
            "drain",
            "Drain",
            "What runs there ends when it has done what it has in hand, and nothing "
            "starts there until you let the computer work again.",
            "computer",
            _drain,
            is_grave=True,
        ),
        Deed(
            "undrain",
            "Let work again",
            "As many workers and services start as before.",
            "computer",
            lambda control, subject, _: actions.undrain(control, subject),
        ),
        Deed(
            "scale",
            "Set the number of",
            "So many run. What is too many finishes what it has in hand.",
            "type",
            _scale,
            fields=(
                _COUNT,
                Field(
                    "computer",
                    "Computer",
                    "Empty for all together that know the type.",
                    is_needed=False,
                ),
            ),
        ),
        Deed(
            "start",
            "Start a program on",
            "The class must be there on that computer. This runs code, so only "
            "administrators may do it.",
            "computer",
            _start,
            role=Role.ADMINISTRATOR,
            fields=(
                Field("target", "Class", "MODULE:CLASS, or /path/file.py:CLASS"),
                Field("kind", "Kind", type="choice", choices=("worker", "service")),
                Field("type", "Type", "Empty for that of the class.", is_needed=False),
                _COUNT,
            ),
        ),
    )
}
"""All of them, by name."""
