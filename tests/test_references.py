"""References: what they are, how they compare, and how long they count."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref

import pytest

from opencluster import DataRef
from opencluster.references import Holder, size_text

HOLDER = Holder("Tool-1.0123456789ab", "here", ("ipc:///run/w.sock",), "key")


def ref(number: int = 1, nbytes: int = 12_000_000, piece: int | None = None) -> DataRef:
    return DataRef(number.to_bytes(16), nbytes, HOLDER, piece)


def test_a_reference_tells_what_it_stands_for() -> None:
    assert repr(ref()) == "<DataRef 00000001: 12.0 MB on Tool-1>"
    again = repr(ref(nbytes=7, piece=3))
    assert again == "<DataRef 00000001: 7 bytes on Tool-1, can be made again>"


def test_equal_identities_are_equal_wherever_the_value_was() -> None:
    moved = DataRef(ref().id, 1, Holder("Tool-2.ab"))
    assert ref() == moved
    assert hash(ref()) == hash(moved)
    assert len({ref(), moved, ref(2)}) == 2
    assert ref() != ref(2)
    assert ref() != ref().id


@pytest.mark.parametrize("name", ["id", "nbytes", "holder", "piece", "lease", "other"])
def test_a_reference_never_changes(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(ref(), name, None)


def test_copies_are_the_same() -> None:
    one = ref()
    assert copy.copy(one) is one
    assert copy.deepcopy([one])[0] is one


def test_it_cannot_be_stored_beyond_its_manager() -> None:
    with pytest.raises(TypeError, match="gather the value"):
        pickle.dumps(ref())


class Lease:
    """Something that can be seen dying."""


def test_a_lease_lives_as_long_as_the_last_reference() -> None:
    lease = Lease()
    seen = weakref.ref(lease)
    one, other = ref().under(lease), ref().under(lease)
    assert one == ref()
    assert one.lease is lease
    del lease, one
    gc.collect()
    assert seen() is not None
    del other
    gc.collect()
    assert seen() is None


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (2_500_000_000, "2.5 GB")]
    + [(7 * 10**15, "7000.0 TB")],
)
def test_sizes_for_people(nbytes: int, text: str) -> None:
    assert size_text(nbytes) == text


def test_a_holder_has_a_name_for_people() -> None:
    assert HOLDER.name == "Tool-1"
    assert Holder("lonely").name == "lonely"
