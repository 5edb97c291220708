"""A whole cluster with keys: who works in it, who is kept out, and what is told."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from security_site import PROGRAMS, KeyedManager, Site, Speaker, number
from security_tools import (
    DEADLINE_S,
    Client,
    keys_named,
    loaded,
    secrets_of,
    wait_until,
)

from opencluster import WorkPiece
from opencluster.core.entries import Entry
from opencluster.core.roles import ROLES
from opencluster.errors import RequestRefused
from opencluster.net.keyfiles import certificates, read_roll
from opencluster.wire import codec, frames, kinds

pytestmark = pytest.mark.processes


def test_a_map_runs_over_tcp_with_keys(alice: KeyedManager) -> None:
    alice.submit("Square", number(0)).result(DEADLINE_S)
    contacts = alice.engine._desk.roster.directory.contacts.values()
    assert {c.endpoint[:6] for c in contacts} == {"tcp://"}
    assert all(c.entry.public_key for c in contacts)
    results = alice.map("Square", [number(n) for n in range(200)])
    assert [r["square"] for r in results] == [n * n for n in range(200)]


def test_a_worker_calls_a_service_with_its_own_key(alice: KeyedManager) -> None:
    done = alice.submit("Asking", WorkPiece(a=2, b=3)).result(DEADLINE_S)
    assert done["sum"] == 5


def test_workers_fetch_values_from_each_other_with_their_keys(
    alice: KeyedManager,
) -> None:
    two = alice.scatter(2, to="Square")
    # from another process, whose key is that of another computer
    three = alice.scatter(3, to="Solo")
    done = alice.submit("Asking", WorkPiece(a=two, b=three)).result(DEADLINE_S)
    assert done["sum"] == 5
    kept = alice.submit("Square", number(7), keep=True).result(DEADLINE_S)
    assert alice.gather(kept)["square"] == 49
    assert alice.gather([two, three]) == [2, 3]
    assert kept.holder.public_key


def test_a_worker_on_its_own_has_a_heart_that_beats_with_its_key(
    site: Site, alice: KeyedManager
) -> None:
    alice.submit("Solo", number(1)).result(DEADLINE_S)
    before = site.worker("Solo")
    # twice the lease, in which no thread of its Python runs
    done = alice.submit("Solo", number(3, hold_s=4.0)).result(DEADLINE_S)
    assert done["square"] == 9
    after = site.worker("Solo")
    assert (after["id"], after["pid"]) == (before["id"], before["pid"])
    assert not [d for d in site.status()["deaths"] if d["id"] == before["id"]]


def test_an_observer_cannot_start_a_worker(site: Site) -> None:
    # the workshop of this computer is the one of the site
    guest = site.computer("guest", "guest")
    text, code = guest.command("worker", f"{PROGRAMS}:SquareWorker", "--type", "Mine")
    assert code == 1
    assert "an observer may not ask a workshop to start workers" in text
    assert "this needs a manager's key" in text
    assert site.worker("Mine") == {}
    # looking is what it is for
    assert "Square" in site.ok(guest, "status")


def test_one_without_keys_is_told_so_within_the_time_allowed(site: Site) -> None:
    nobody = site.computer("nobody")
    text, code = nobody.command(
        "status",
        OPENCLUSTER_CLUSTER_KEYS="",
        OPENCLUSTER_FACTORY_REQUEST_TIMEOUT_S="2",
    )
    assert code == 3
    # that it ended at that moment cannot always be told apart
    assert re.search(f"let us in: tcp://{site.address} (broke .* )?wants keys", text)
    assert "[cluster] keys" in text


@pytest.mark.parametrize("role", [r for r in ROLES if r != "manager"])
def test_nobody_but_a_manager_hands_pieces_to_a_worker(
    site: Site, alice: KeyedManager, role: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    alice.submit("Solo", number(1)).result(DEADLINE_S)
    (contact,) = (
        c
        for c in alice.engine._desk.roster.directory.contacts.values()
        if c.type == "Solo"
    )
    payload, _ = codec.encode(number(666, log=str(log)), "piece")
    before = site.worker("Solo")["rejected_credentials"]
    speaker = Speaker(loaded(site.head.keys, role))
    try:
        header = frames.pack(kinds.PIECES, [[1, 0, 0.0, payload, 0]], contact.entry.id)
        speaker.say(contact.entry, header)
        wait_until(lambda: site.worker("Solo")["rejected_credentials"] > before)
    finally:
        speaker.close()
    alice.submit("Solo", number(2, log=str(log))).result(DEADLINE_S)
    assert log.read_text() == "2\n"
    assert speaker.heard == []


def test_a_manager_cannot_register_in_the_name_of_a_worker(
    site: Site, alice: KeyedManager
) -> None:
    entry = Entry("x", "worker", "Square", "Square-1")
    asked = alice.engine._link.request("register", {"entries": [entry.to_fields()]})
    with pytest.raises(RequestRefused, match="a manager may not register"):
        asked.result(DEADLINE_S)


def test_a_worker_cannot_push_another_from_its_address(
    site: Site, alice: KeyedManager
) -> None:
    alice.submit("Solo", number(1)).result(DEADLINE_S)
    contacts = alice.engine._desk.roster.directory.contacts
    (solo,) = (c for c in list(contacts.values()) if c.type == "Solo")
    before = site.worker("Solo")
    keys = keys_named(site.head.keys, "node7-worker", "worker")
    mallory = Client(f"tcp://{site.address}", keys)
    try:
        fields = {"type": "Solo", "endpoints": (solo.endpoint,)}
        mallory.register("mallory-1", **fields)
        wait_until(lambda: "mallory-1" in alice.engine._desk.roster._unmet)
        results = alice.map("Solo", [number(n) for n in range(20)])
        assert {r["pid"] for r in results} == {before["pid"]}
        assert contacts[solo.id] is solo
        mallory.ask("deregister", id="mallory-1")
    finally:
        mallory.close()


def test_revoking_takes_effect_everywhere_while_all_of_it_runs(
    site: Site, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    bob_at = site.computer("bob", "bob")
    admin_at = site.computer("admin", "manager")
    bobs, others = bob_at.engine(), admin_at.engine()
    try:
        bob, other = KeyedManager(bobs), KeyedManager(others)
        bob.submit("Solo", number(1, log=str(log))).result(DEADLINE_S)
        other.submit("Solo", number(2)).result(DEADLINE_S)
        before = site.worker("Solo")
        # what he has under way is given up as well
        bob.submit("Solo", number(3, sleep_s=10 * DEADLINE_S))
        wait_until(lambda: site.worker("Solo")["state"] == "busy")
        text = site.ok(site.head, "keys", "revoke", "bob")
        assert f"told tcp://{site.address}" in text
        # the worker of another computer has heard of it within its next heartbeats
        wait_until(lambda: read_roll(site.solo.keys).holder("bob").is_revoked)
        late = bob.submit("Solo", number(666, log=str(log)))
        wait_until(
            lambda: (
                site.worker("Solo")["rejected_credentials"]
                > before["rejected_credentials"]
            )
        )
        assert other.submit("Solo", number(4)).result(DEADLINE_S)["square"] == 16
        assert not late.done()
        assert log.read_text() == "1\n"
        assert site.worker("Solo")["pid"] == before["pid"]
    finally:
        bobs.close()
        others.close()
    # nor does he come back
    text, code = bob_at.command("status", OPENCLUSTER_FACTORY_REQUEST_TIMEOUT_S="1")
    assert code != 0
    assert "does not admit the certificate" in text


def test_a_certificate_that_is_added_is_admitted_at_once(site: Site) -> None:
    site.ok(site.head, "keys", "add", "carol", "--role", "manager")
    engine = site.computer("carol", "carol").engine()
    try:
        done = KeyedManager(engine).submit("Solo", number(7)).result(DEADLINE_S)
        assert done["square"] == 49
    finally:
        engine.close()


def processes_of(site: Site) -> list[str]:
    """Return the command line and environment of each process of the site."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            environment = (path / "environ").read_text(errors="replace")
            command = (path / "cmdline").read_text(errors="replace")
            if str(site.path) in environment:
                found.append(f"{command}\n{environment}")
    return found


def test_a_factory_that_knows_of_nobody_says_so_and_learns_it_at_the_next_change(
    site: Site,
) -> None:
    second = site.computer("second", "factory", "alice")
    second.environment["OPENCLUSTER_CLUSTER_FACTORIES"] = ""
    second.start("factory", "--port", "0")
    found = wait_until(
        lambda: re.search(r"factory at tcp://([\d.]+:\d+)", second.said())
    )
    assert f"there is no roll in {second.keys}" in second.said()
    second.environment["OPENCLUSTER_CLUSTER_FACTORIES"] = found[1]
    text, code = second.command("status", OPENCLUSTER_FACTORY_REQUEST_TIMEOUT_S="2")
    assert (code, "not on the roll there" in text) == (3, True)
    told = {"OPENCLUSTER_CLUSTER_FACTORIES": found[1]}
    text, code = site.head.command("keys", "revoke", "spare", **told)
    assert code == 0, text
    site.ok(second, "status")


def test_no_secret_is_in_any_log_status_or_list(
    site: Site, alice: KeyedManager
) -> None:
    alice.submit("Square", number(1)).result(DEADLINE_S)
    shown = [site.ok(site.head, "status", "--json"), site.ok(site.head, "status")]
    shown += [site.ok(site.head, "keys", "show"), site.ok(site.head, "config", "show")]
    shown += [computer.said() for computer in site.computers]
    processes = processes_of(site)
    # a factory, a workshop, what that runs, and a worker on its own
    assert len(processes) >= 7
    shown += processes
    secrets = {s for computer in site.computers for s in secrets_of(computer.keys)}
    assert len(secrets) >= len(certificates(site.head.keys))
    assert not any(secret in text for secret in secrets for text in shown)
