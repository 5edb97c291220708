"""What became of the work while something went wrong: one row of the table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from chaos_ledger import Account

TITLES = (
    "what happened",
    "pieces",
    "lost",
    "duplicated",
    "run again",
    "look-ups interrupted: median",
    "longest",
    "look-ups failed",
    "besides",
)


@dataclass(frozen=True)
class Outcome:
    """What one test has seen.

    Attributes
    ----------
    what : str
        What was done to the cluster.
    account : Account
        What became of the pieces.
    interruptions_s : sequence of float
        For how long nobody answered a look-up, for each fault; in seconds.
    failed_lookups : int
        How many came to nothing, so that a user would have seen it.
    notes : sequence of str
        What else there is to say.
    """

    what: str
    account: Account
    interruptions_s: Sequence[float]
    failed_lookups: int
    notes: Sequence[str] = field(default=())

    def __str__(self) -> str:
        times = f"median {self._median}, longest {self._longest}"
        lookups = f"look-ups interrupted {times}; {self.failed_lookups} failed"
        return "; ".join([f"{self.what}: {self.account}", lookups, *self.notes])

    @property
    def _median(self) -> str:
        return f"{statistics.median(self.interruptions_s):.2f} s"

    @property
    def _longest(self) -> str:
        return f"{max(self.interruptions_s):.2f} s"

    def to_row(self) -> str:
        """Return a row of a table in Markdown."""
        account = self.account
        cells = (
            self.what,
            account.asked,
            account.lost,
            account.duplicated,
            account.runs - account.asked,
            self._median if len(self.interruptions_s) > 1 else "",
            self._longest,
            self.failed_lookups,
            "; ".join(self.notes),
        )
        return _row(cells)


Tell = Callable[[Outcome], None]
"""The fixture that takes an outcome to whoever runs the tests."""


def table(rows: Iterable[str]) -> str:
    """Return a table in Markdown of rows that are ready."""
    return "\n".join([_row(TITLES), "|" + " --- |" * len(TITLES), *rows])


def _row(cells: Iterable[object]) -> str:
    return "".join(f"| {cell} " for cell in cells) + "|"
