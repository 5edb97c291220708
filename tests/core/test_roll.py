"""The roll: who is admitted, how it changes, and what is no roll."""

from __future__ import annotations

from typing import Any

import pytest

from opencluster.core.roles import Credential
from opencluster.core.roll import MAX_HOLDERS, Holder, Roll
from opencluster.errors import SecurityError


def key(letter: str) -> str:
    return letter * 40


ANN, BOB = Holder("ann", "manager", key("a")), Holder("bob", "worker", key("b"))


@pytest.fixture
def roll() -> Roll:
    return Roll().with_holder(ANN).with_holder(BOB)


def test_who_is_on_the_roll_is_known_by_the_key(roll: Roll) -> None:
    assert roll.credential(key("a")) == Credential("ann", "manager")
    assert roll.credential(key("c")) is None
    assert roll.key_of(Credential("bob", "worker")) == key("b")
    assert roll.key_of(Credential("eve", "worker")) == ""


def test_every_change_makes_a_higher_version(roll: Roll) -> None:
    assert [Roll().version, roll.version, roll.without("bob").version] == [0, 2, 3]


def test_who_is_revoked_is_admitted_no_more_and_stays_on_the_roll(roll: Roll) -> None:
    later = roll.without("ann")
    assert later.credential(key("a")) is None
    assert later.credential(key("b")) is not None
    # the roll before is as it was
    assert roll.credential(key("a")) is not None
    with pytest.raises(SecurityError, match="another name"):
        later.with_holder(Holder("ann", "manager", key("c")))


def test_nobody_of_an_unknown_name_is_revoked(roll: Roll) -> None:
    with pytest.raises(SecurityError, match="'eve'.*ann, bob"):
        roll.without("eve")


@pytest.mark.parametrize(
    "holder",
    [Holder("ann", "worker", key("c")), Holder("eve", "worker", key("a"))],
    ids=["name", "key"],
)
def test_names_and_keys_are_unique(roll: Roll, holder: Holder) -> None:
    with pytest.raises(SecurityError, match="same name or key"):
        roll.with_holder(holder)


def test_a_roll_survives_the_wire(roll: Roll) -> None:
    later = roll.without("bob")
    assert Roll.from_fields(later.to_fields()) == later
    assert Roll.from_fields(later.to_fields()).credential(key("b")) is None


GOOD = {"name": "ann", "role": "manager", "public": key("a"), "revoked": False}


@pytest.mark.parametrize(
    "fields",
    [
        None,
        [],
        {},
        {"version": 1},
        {"version": -1, "certificates": []},
        {"version": True, "certificates": []},
        {"version": 2**60, "certificates": []},
        {"version": 1, "certificates": "ann"},
        {"version": 1, "certificates": ["ann"]},
        {"version": 1, "certificates": [GOOD, GOOD]},
        *(
            {"version": 1, "certificates": [GOOD | {name: value}]}
            for name, value in [
                ("name", ""),
                ("name", "../ann"),
                ("name", ".ann"),
                ("name", "a" * 65),
                ("name", 7),
                ("role", "pirate"),
                ("role", ["manager"]),
                ("public", key("a")[1:]),
                ("public", key('"')),
                ("public", 7),
                ("revoked", 0),
                ("revoked", None),
            ]
        ),
    ],
)
def test_what_is_no_roll_is_refused(fields: Any) -> None:
    with pytest.raises(SecurityError):
        Roll.from_fields(fields)


def test_a_roll_is_bounded() -> None:
    rows = [
        GOOD | {"name": f"n{i}", "public": f"{i:040d}"} for i in range(MAX_HOLDERS + 1)
    ]
    assert Roll.from_fields({"version": 1, "certificates": rows[:-1]}).version == 1
    with pytest.raises(SecurityError, match="at most"):
        Roll.from_fields({"version": 1, "certificates": rows})


def test_rolls_that_were_changed_apart_are_joined_without_loss(roll: Roll) -> None:
    eve, joe = Holder("eve", "manager", key("e")), Holder("joe", "worker", key("j"))
    here = roll.without("ann").with_holder(eve)
    there = roll.without("bob").with_holder(joe)
    for joined in (here.joined(there), there.joined(here)):
        assert joined.version == here.version + 1
        assert {h.name for h in joined.holders} == {"ann", "bob", "eve", "joe"}
        assert {h.name for h in joined.holders if h.is_revoked} == {"ann", "bob"}
        # whoever is asked next agrees
        assert joined.joined(here) == joined.joined(there) == joined
        assert here.joined(joined) == joined


def test_of_a_roll_and_a_later_one_the_later_is_what_they_say(roll: Roll) -> None:
    later = roll.without("ann")
    assert roll.joined(later) is later
    assert later.joined(roll) is later
    assert Roll().joined(roll) is roll


def test_of_two_keys_of_one_name_the_newer_roll_has_the_right_one(roll: Roll) -> None:
    here = roll.with_holder(Holder("eve", "manager", key("e")))
    there = roll.without("bob").with_holder(Holder("eve", "worker", key("f")))
    joined = here.joined(there)
    assert joined.credential(key("f")) == Credential("eve", "worker")
    assert joined.credential(key("e")) is None
