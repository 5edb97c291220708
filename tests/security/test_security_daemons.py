"""Workshops, workers and services keep out whom factories keep out: real clients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from security_site import KeyedManager, Site, Speaker, number
from security_tools import (
    DEADLINE_S,
    keys_named,
    loaded,
    self_made,
    settings,
    settled,
    wait_until,
)

from opencluster import WorkPiece
from opencluster.core.entries import Entry
from opencluster.errors import FactoryUnreachable, OpenClusterError, RequestRefused
from opencluster.net.control import Control
from opencluster.net.keys import Keyring
from opencluster.wire import codec, frames, kinds

pytestmark = pytest.mark.processes

RECEIVERS = ("workshop", "Square", "Solo", "adder")
"""A daemon, a worker that it vouches for, one that speaks for itself, and a service."""


def entry_of(engine: Any, what: str) -> Entry:
    """Return what a daemon or process has registered, as a manager learned it."""

    def found() -> Entry | None:
        directory = engine._desk.roster.directory
        if what == "workshop":
            return next(iter(directory.workshops.values()), None)
        entries = (contact.entry for contact in list(directory.contacts.values()))
        return next((entry for entry in entries if entry.type == what), None)

    entry = wait_until(found)
    assert entry is not None
    return entry


def row_of(site: Site, identity: str) -> dict[str, Any]:
    status = site.status()
    rows = [
        row for name in ("workshops", "workers", "services") for row in status[name]
    ]
    (row,) = (row for row in rows if row["id"] == identity)
    found: dict[str, Any] = row
    return found


def order(receiver: str, entry: Entry, log: Path) -> bytes:
    """Return a message that would leave a trace if anyone heeded it."""
    if receiver == "workshop":
        return frames.pack(kinds.REQUEST, 1, "stop", {"name": "Square-1"})
    path = str(log)
    value = ["note", [path], {}] if receiver == "adder" else number(6, log=path)
    payload, _ = codec.encode(value, "piece")
    return frames.pack(kinds.PIECES, [[1, 0, 0.0, payload, 0]], entry.id)


def keys_of_nobody(site: Site, _: Keyring) -> None:
    return None


def keys_made_by_oneself(site: Site, known: Keyring) -> Keyring:
    return self_made("manager", known.roll, known.factory_key)


def keys_of_a_revoked_manager(site: Site, known: Keyring) -> Keyring:
    return keys_named(site.head.keys, "eve", "manager")


def keys_of_an_observer(site: Site, known: Keyring) -> Keyring:
    return keys_named(site.head.keys, "guest", "observer")


OUTSIDERS: dict[Callable[[Site, Keyring], Keyring | None], str] = {
    keys_of_nobody: "rejected_handshakes",
    keys_made_by_oneself: "rejected_credentials",
    keys_of_a_revoked_manager: "rejected_credentials",
    keys_of_an_observer: "rejected_credentials",
}
"""Whose word is not taken, and what counts that."""


@pytest.mark.parametrize("receiver", RECEIVERS)
@pytest.mark.parametrize("outsider", OUTSIDERS)
def test_nobody_takes_orders_from_an_outsider(
    site: Site,
    alice: KeyedManager,
    tmp_path: Path,
    receiver: str,
    outsider: Callable[[Site, Keyring], Keyring | None],
) -> None:
    entry = entry_of(alice.engine, receiver)
    before = row_of(site, entry.id)
    log, counted = tmp_path / "log", OUTSIDERS[outsider]
    speaker = Speaker(outsider(site, loaded(site.head.keys, "manager")))
    try:
        speaker.say(entry, order(receiver, entry, log))
        wait_until(lambda: row_of(site, entry.id)[counted] > before[counted])
    finally:
        speaker.close()
    assert row_of(site, entry.id)["pid"] == before["pid"]
    assert not log.exists()
    assert all(fields[0] == kinds.REPLY and not fields[2] for fields in speaker.heard)
    done = alice.submit("Asking", WorkPiece(a=2, b=3)).result(DEADLINE_S)
    assert done["sum"] == 5


def test_a_workshop_says_why_it_takes_no_order(site: Site, alice: KeyedManager) -> None:
    shop = entry_of(alice.engine, "workshop")
    for role in ("observer", "worker", "workshop", "factory"):
        control = Control(
            settings(),
            lambda: [[f"tcp://{site.address}"]],
            loaded(site.head.keys, role),
        )
        with control, pytest.raises(RequestRefused, match="needs a manager's key"):
            control.workshop(over_tcp(shop), "stop", {"name": "Square-1"})


@pytest.mark.parametrize("receiver", ["workshop", "Solo"])
def test_a_manager_cannot_speak_as_a_factory_to_those_who_follow_one(
    site: Site, alice: KeyedManager, receiver: str
) -> None:
    entry = entry_of(alice.engine, receiver)
    before = settled(lambda: row_of(site, entry.id)["rejected_credentials"])
    messages = [
        frames.pack(kinds.MOVED),
        frames.pack(kinds.FORGOTTEN, [entry.id]),
        frames.pack(kinds.BEAT, [99, 0, 0], 1, 99),
        frames.pack(kinds.DELTA, [99, 0, 0], {"revision": 1, "id": entry.id}),
        frames.pack(kinds.REPLY, 1, True, {}),
    ]
    speaker = Speaker(keys_named(site.head.keys, "alice", "manager"))
    try:
        for message in messages:
            speaker.say(entry, message)
        wanted = before + len(messages)
        wait_until(lambda: row_of(site, entry.id)["rejected_credentials"] >= wanted)
    finally:
        speaker.close()


@pytest.mark.parametrize("receiver", RECEIVERS)
def test_revoking_takes_effect_at_whoever_a_manager_is_connected_to(
    site: Site, alice: KeyedManager, tmp_path: Path, receiver: str
) -> None:
    name, log = f"dave-{receiver}", tmp_path / "log"
    site.ok(site.head, "keys", "add", name, "--role", "manager")
    entry = entry_of(alice.engine, receiver)
    before = row_of(site, entry.id)
    speaker = Speaker(keys_named(site.head.keys, name, "manager"))

    def is_refused() -> bool:
        speaker.say(entry, question(receiver, entry))
        counted = "rejected_credentials"
        return bool(row_of(site, entry.id)[counted] > before[counted] + losses)

    try:
        # it may not have heard of this certificate yet
        wait_until(lambda: answered(speaker, receiver, entry))
        # each time it was refused till then was counted too
        losses = speaker.losses
        site.ok(site.head, "keys", "revoke", name)
        wait_until(is_refused)
        heard = len(speaker.heard)
        speaker.say(entry, order(receiver, entry, log))
        alice.submit("Asking", WorkPiece(a=2, b=3)).result(DEADLINE_S)
        assert row_of(site, entry.id)["pid"] == before["pid"]
        assert not log.exists()
        assert len(speaker.heard) == heard
    finally:
        speaker.close()


def question(receiver: str, entry: Entry) -> bytes:
    """Return a message that a manager may send, and that is answered at once."""
    if receiver == "workshop":
        return frames.pack(kinds.REQUEST, 2, "status", {})
    value = ["add", [1, 2], {}] if receiver == "adder" else number(2)
    payload, _ = codec.encode(value, "piece")
    return frames.pack(kinds.PIECES, [[2, 0, 0.0, payload, 0]], entry.id)


def answered(speaker: Speaker, receiver: str, entry: Entry) -> bool:
    """Ask, and return whether an answer came, and not the end of the connection."""
    heard, losses = len(speaker.heard), speaker.losses
    speaker.say(entry, question(receiver, entry))
    wait_until(lambda: len(speaker.heard) > heard or speaker.losses > losses)
    return len(speaker.heard) > heard


def over_tcp(entry: Entry) -> dict[str, Any]:
    """Return what a workshop registered, as seen from another computer."""
    fields = entry.to_fields()
    fields["endpoints"] = [e for e in entry.endpoints if e.startswith("tcp://")]
    return fields


def test_who_has_no_keys_learns_so_from_a_workshop_as_well(
    site: Site, alice: KeyedManager
) -> None:
    shop = over_tcp(entry_of(alice.engine, "workshop"))
    control = Control(settings(), lambda: [], None)
    with control, pytest.raises(FactoryUnreachable, match="wants keys"):
        control.workshop(shop, "status", {})


def test_who_has_keys_says_nothing_to_one_that_tells_none(
    site: Site, alice: KeyedManager
) -> None:
    shop = over_tcp(entry_of(alice.engine, "workshop")) | {"public_key": ""}
    keys = loaded(site.head.keys, "manager")
    control = Control(settings(), lambda: [], keys)
    with control, pytest.raises(OpenClusterError, match="started without keys"):
        control.workshop(shop, "status", {})
