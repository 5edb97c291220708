"""The leases of one segment: what lies where, and a table that is quick to search."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from opencluster.core.slots import PAGE_BYTES, Slot
from opencluster.net.leases import OWN, Leases
from opencluster.net.segments import GIVEN, IN_USE, RETURNED, UNUSED, make_segment

SIZE = 16 * PAGE_BYTES


@pytest.fixture
def leases() -> Iterator[Leases]:
    made = Leases(*make_segment(SIZE))
    yield made
    made.close()


def slot(page: int, pages: int = 1) -> Slot:
    return Slot(1, page * PAGE_BYTES, pages * PAGE_BYTES)


def test_memory_of_the_user_is_found_from_its_address(leases: Leases) -> None:
    first, second = slot(2), slot(5, 3)
    leases.give(second, OWN)
    leases.give(slot(4), "another")
    lease = leases.give(first, OWN)
    start = leases.segment.address
    for found, pages in ((first, (2, 3)), (second, (5, 8))):
        begin, end = (page * PAGE_BYTES for page in pages)
        for offset, nbytes in [(begin, 0), (begin, end - begin), (end - 1, 1)]:
            assert leases.find_own(start + offset, nbytes) == (found, offset)
        for offset, nbytes in [(begin - 1, 1), (begin, end - begin + 1), (end, 1)]:
            assert leases.find_own(start + offset, nbytes) is None
    for address in (0, start - 10_000, start + SIZE, start + 100 * SIZE):
        assert leases.find_own(address, 1) is None
    leases.segment.raw[lease] = RETURNED
    leases.collect(lambda slot: None)
    assert leases.has_own
    assert leases.find_own(start + first.offset, 1) is None


def test_table_has_nothing_left_to_find_after_a_search(leases: Leases) -> None:
    given = [leases.give(slot(page), "r") for page in range(1, 9)]
    raw = leases.segment.raw
    for lease in (given[2], given[5]):
        raw[lease] = RETURNED
    released: list[Slot] = []
    leases.collect(released.append)
    assert [it.offset for it in released] == [3 * PAGE_BYTES, 6 * PAGE_BYTES]
    assert [raw[lease] for lease in given].count(UNUSED) == 2
    leases.collect(released.append)
    assert len(released) == 2
    assert leases.give(slot(6), "r") == given[5]
    assert raw[given[5]] == GIVEN


def test_table_is_used_from_its_beginning_again_when_all_came_back(
    leases: Leases,
) -> None:
    given = [leases.give(slot(page), "r") for page in range(1, 9)]
    for lease in given:
        leases.segment.raw[lease] = RETURNED
    leases.collect(lambda slot: None)
    assert [leases.give(slot(page), "r") for page in range(1, 9)] == given


def test_leases_pass_to_another_holder_and_end_by_their_use(leases: Leases) -> None:
    given = [leases.give(slot(page), "r") for page in range(1, 4)]
    other = leases.give(slot(5), "other")
    leases.segment.raw[given[1]] = IN_USE
    leases.hand_over("r", "heir")
    assert leases.has("heir") and leases.has("other") and not leases.has("r")
    released: list[Slot] = []
    leases.end_of("heir", False, released.append)
    assert [it.offset for it in released] == [PAGE_BYTES, 3 * PAGE_BYTES]
    leases.end_of("heir", True, released.append)
    assert released[-1].offset == 2 * PAGE_BYTES
    assert not leases.has("heir")
    assert leases.segment.raw[other] == GIVEN
