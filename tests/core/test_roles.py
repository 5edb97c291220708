"""Who may say what: the table, its sentences, and who owns an entry."""

from __future__ import annotations

from dataclasses import replace

import pytest

from opencluster.core.entries import Entry
from opencluster.core.registry import Registry
from opencluster.core.roles import (
    ASKER,
    FACTORY,
    MANAGER,
    OBSERVER,
    ROLES,
    RULES,
    SERVICE,
    TRUSTED,
    WORKER,
    WORKSHOP,
    Credential,
    check,
    claim,
    permits,
    refusal,
)
from opencluster.errors import RegistryError, SecurityError

MAY_SAY = {
    (FACTORY, "hello"): set(ROLES),
    (FACTORY, "find"): set(ROLES),
    (FACTORY, "status"): set(ROLES),
    (FACTORY, "subscribe"): set(ROLES),
    (FACTORY, "roll"): set(ROLES),
    (FACTORY, "epoch"): set(ROLES) - {OBSERVER},
    (FACTORY, "register"): {WORKSHOP, WORKER},
    (FACTORY, "renew"): {WORKSHOP, WORKER},
    (FACTORY, "deregister"): {WORKSHOP, WORKER},
    (FACTORY, "pulse"): {WORKSHOP, WORKER},
    (FACTORY, "job"): {MANAGER, WORKER},
    (FACTORY, "order_job"): {MANAGER},
    (FACTORY, "factory"): {FACTORY},
    (FACTORY, "enroll"): {FACTORY},
    (WORKSHOP, "status"): set(ROLES),
    (WORKSHOP, "logs"): {MANAGER, OBSERVER},
    (WORKSHOP, "letters"): {MANAGER, OBSERVER},
    (WORKSHOP, "jobs"): {MANAGER, OBSERVER},
    (WORKSHOP, "letter_work"): {MANAGER},
    (WORKSHOP, "delete_letter"): {MANAGER},
    (WORKSHOP, "start"): {MANAGER},
    (WORKSHOP, "scale"): {MANAGER},
    (WORKSHOP, "stop"): {MANAGER},
    (WORKSHOP, "restart"): {MANAGER},
    (WORKSHOP, "kill"): {MANAGER},
    (WORKSHOP, "drain"): {MANAGER},
    (WORKSHOP, "undrain"): {MANAGER},
    (WORKSHOP, "enforce"): {MANAGER, WORKER},
    (WORKER, "pieces"): {MANAGER},
    (WORKER, "withdraw"): {MANAGER},
    (WORKER, "cancel"): {MANAGER},
    (WORKER, "interrupt"): {MANAGER},
    (WORKER, "end"): {MANAGER},
    (WORKER, "put"): {MANAGER},
    (WORKER, "copy"): {MANAGER},
    (WORKER, "refer"): {MANAGER},
    (WORKER, "references"): {MANAGER},
    (WORKER, "release"): {MANAGER},
    (WORKER, "unsaved"): {MANAGER},
    (WORKER, "fetch"): {MANAGER, WORKER},
    (WORKER, "part"): {MANAGER, WORKER},
    (WORKER, "value"): {MANAGER, WORKER},
    (WORKER, "chunk"): {MANAGER, WORKER},
    (WORKER, "lost"): {MANAGER, WORKER},
    (SERVICE, "pieces"): {MANAGER, WORKER},
    (SERVICE, "withdraw"): {MANAGER, WORKER},
    (SERVICE, "cancel"): {MANAGER, WORKER},
    (SERVICE, "interrupt"): {MANAGER, WORKER},
    (SERVICE, "end"): {MANAGER},
    (SERVICE, "value"): {WORKER},
    (SERVICE, "chunk"): {WORKER},
    (SERVICE, "lost"): {WORKER},
    (MANAGER, "results"): {WORKER},
    (MANAGER, "returned"): {WORKER},
    (MANAGER, "progress"): {WORKER},
    (MANAGER, "draining"): {WORKER},
    (MANAGER, "gone"): {WORKER},
    (MANAGER, "alive"): {WORKER},
    (MANAGER, "kept"): {WORKER},
    (MANAGER, "unkept"): {WORKER},
    (MANAGER, "missing"): {WORKER},
    (MANAGER, "fetch"): {WORKER},
    (MANAGER, "part"): {WORKER},
    (MANAGER, "value"): {WORKER},
    (MANAGER, "chunk"): {WORKER},
    (MANAGER, "lost"): {WORKER},
    (ASKER, "reply"): {FACTORY, WORKSHOP},
    (ASKER, "delta"): {FACTORY},
    (ASKER, "beat"): {FACTORY},
    (ASKER, "moved"): {FACTORY},
    (ASKER, "forgotten"): {FACTORY},
}
"""Written out a second time, so that a change of the table is made on purpose."""


def key(role: str, name: str = "") -> Credential:
    return Credential(name or role, role)


def test_the_table_says_who_may_say_what_and_nothing_more() -> None:
    said = {row: {r for r in ROLES if permits(*row, key(r))} for row in RULES}
    assert said == MAY_SAY


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("receiver", [FACTORY, WORKSHOP, WORKER, "nobody", ""])
def test_what_is_unknown_may_be_said_by_nobody(receiver: str, role: str) -> None:
    assert not permits(receiver, "explode", key(role))


def test_a_role_that_is_none_may_say_nothing() -> None:
    assert not any(permits(*row, Credential("x", "pirate")) for row in RULES)
    # only the one object stands for everyone, not whoever looks like it
    assert not any(permits(*row, Credential("", "")) for row in RULES)


def test_without_keys_everyone_may_say_everything() -> None:
    assert all(permits(*row, TRUSTED) for row in RULES)


def test_a_refusal_says_who_may_do_it() -> None:
    assert refusal(WORKSHOP, "start", key(OBSERVER)) == (
        "an observer may not ask a workshop to start workers; "
        "this needs a manager's key"
    )
    assert refusal(FACTORY, "job", key(WORKSHOP)) == (
        "a workshop may not report a job; this needs a worker or a manager's key"
    )
    assert refusal(WORKER, "explode", key(MANAGER)) == (
        "nobody may say 'explode' to a worker"
    )


def test_what_somebody_may_not_say_is_refused() -> None:
    check(FACTORY, "job", key(WORKER))
    with pytest.raises(SecurityError, match="a workshop may not report a job"):
        check(FACTORY, "job", key(WORKSHOP))


def worker(**fields: str) -> Entry:
    made = Entry("w1", "worker", "Word", "Word-1", public_key="K")
    return replace(made, **fields)


def test_the_owner_is_the_credential_and_never_the_message() -> None:
    entry = worker(owner="somebody else")
    assert claim(entry, key(WORKER, "w"), "K").owner == "w"
    assert claim(entry, TRUSTED, "").owner == ""


def test_a_worker_registers_itself_alone() -> None:
    who = key(WORKER)
    assert claim(worker(kind="service"), who, "K").owner == WORKER
    for wrong in (
        worker(kind="workshop"),
        worker(kind="failure"),
        worker(workshop="shop"),
        worker(public_key="L"),
        worker(public_key=""),
    ):
        with pytest.raises(RegistryError):
            claim(wrong, who, "K")


def test_a_workshop_registers_its_processes_and_itself() -> None:
    who = key(WORKSHOP)
    for entry in (worker(workshop="s"), worker(kind="failure", public_key="")):
        assert claim(entry, who, "S").owner == WORKSHOP
    shop = Entry("s", "workshop", public_key="S")
    assert claim(shop, who, "S").owner == WORKSHOP
    with pytest.raises(RegistryError, match="its own certificate"):
        claim(replace(shop, public_key="T"), who, "S")


@pytest.fixture
def registry() -> Registry:
    made = Registry(lease_s=10.0)
    made.register(0.0, worker(owner="a"))
    return made


def test_an_entry_is_changed_by_its_owner_alone(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="'a' registered"):
        registry.register(1.0, worker(owner="b", host="elsewhere"))
    assert registry.get("w1") == worker(owner="a")
    assert len(registry.register(1.0, worker(owner="a", host="moved"))) == 1


def test_an_entry_is_renewed_by_its_owner_alone(registry: Registry) -> None:
    assert registry.renew(9.0, ["w1"], owner="b") == ["w1"]
    assert [d.id for d in registry.expire(10.0)] == ["w1"]


def test_its_owner_renews_it(registry: Registry) -> None:
    assert registry.renew(9.0, ["w1"], owner="a") == []
    assert registry.expire(10.0) == []


def test_an_entry_is_taken_out_by_its_owner_alone(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="no other may change"):
        registry.remove("w1", owner="b")
    assert registry.get("w1") is not None
    assert registry.remove("nobody", owner="b") == []
    assert len(registry.remove("w1", owner="a")) == 1


def test_a_worker_cannot_have_the_name_of_anothers(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="the name Word-1"):
        registry.register(1.0, worker(id="w2", owner="b"))
    registry.register(1.0, worker(id="w2", owner="b", name="Word-2"))
    registry.register(1.0, worker(id="w3", owner="b", type="other"))
    registry.register(1.0, worker(id="w4", owner="a"))


def test_workshops_name_their_processes_each_for_itself(registry: Registry) -> None:
    # two computers may both have a Word-1, under different certificates
    registry.register(1.0, worker(id="w5", owner="s1", workshop="shop-1"))
    registry.register(1.0, worker(id="w6", owner="s2", workshop="shop-2"))


def test_a_name_is_free_when_its_lease_is_over(registry: Registry) -> None:
    registry.expire(10.0)
    registry.register(10.0, worker(id="w2", owner="b"))


def test_owner_and_key_survive_the_wire() -> None:
    entry = worker(owner="a")
    assert Entry.from_fields(entry.to_fields()) == entry
    with pytest.raises(RegistryError, match="public_key"):
        Entry.from_fields(entry.to_fields() | {"public_key": 7})
