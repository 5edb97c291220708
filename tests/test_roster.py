"""What a manager believes of what a worker says about itself."""

from __future__ import annotations

from typing import Any

import pytest

from opencluster.core.entries import Entry, with_attributes
from opencluster.engines.roster import MAX_CONCURRENCY, concurrency_of

SERVICE = Entry("e1", "service", type="ephemeris")


@pytest.mark.parametrize(
    ("said", "believed"),
    [
        *((n, n) for n in (0, 1, 8, MAX_CONCURRENCY)),
        (MAX_CONCURRENCY + 1, MAX_CONCURRENCY),
        (2**63, MAX_CONCURRENCY),
        *((wrong, 0) for wrong in (-1, True, None, "8", 1.5, [8], {})),
    ],
)
def test_how_many_pieces_a_process_runs_at_a_time(said: Any, believed: int) -> None:
    assert concurrency_of(with_attributes(SERVICE, concurrency=said)) == believed


def test_by_default_that_is_one() -> None:
    assert concurrency_of(SERVICE) == 0
