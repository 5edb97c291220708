"""Work that is kept account of: a worker, a manager program, and the account.

The worker notes each run of a piece in a file of its own computer's, the manager notes
each result that it gets, and `account` compares the two with what was asked for.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from opencluster import Manager, Worker, WorkPiece

PROGRAM = str(Path(__file__).absolute())
TARGET = f"{PROGRAM}:LedgerWorker"
RUNS_VARIABLE = "PYTEST_LEDGER_RUNS"
"""Names the file in which workers note what they run."""


class LedgerWorker(Worker):
    """Takes its time, and returns a number that only the right piece gives."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        with Path(os.environ[RUNS_VARIABLE]).open("ab") as file:
            file.write(f"{work['n']}\n".encode())
        time.sleep(work["s"])
        return WorkPiece(n=work["n"], value=value_of(work["n"]))


def value_of(n: int) -> int:
    """Return what the result of a piece must be."""
    return n * n + 7


class LedgerManager(Manager):
    """Runs pieces until there were enough of them and a file is gone."""

    def schedule(self, task: WorkPiece) -> WorkPiece:
        with Path(task["results"]).open("a", buffering=1) as file:
            for result in self.map("Ledger", self.pieces(task), progress=False):
                file.write(f"{result['n']} {result['value']}\n")
        return WorkPiece(asked=self.asked)

    def pieces(self, task: WorkPiece) -> Iterator[WorkPiece]:
        """Yield at least `count` pieces, and more while the file `until` is there."""
        until = Path(task["until"])
        self.asked = 0
        while self.asked < task["count"] or until.exists():
            yield WorkPiece(n=self.asked, s=task["s"])
            self.asked += 1


def run(results: str, count: str, seconds: str, until: str) -> None:
    """Run the manager, and note at the end how many pieces there were."""
    task = WorkPiece(results=results, count=int(count), s=float(seconds), until=until)
    done = LedgerManager("cluster").run(task)
    Path(f"{results}.asked").write_text(str(done["asked"]))


@dataclass(frozen=True)
class Account:
    """What became of the pieces.

    Attributes
    ----------
    asked, runs : int
        How many pieces there were, and how often one was begun.
    lost, duplicated, wrong : int
        Pieces without a result, results that came again, results of other pieces
        than those that they are for, or out of order.
    """

    asked: int
    runs: int
    lost: int
    duplicated: int
    wrong: int

    def check(self) -> None:
        """Fail when a piece was lost, or a result was no good."""
        assert (self.lost, self.duplicated, self.wrong) == (0, 0, 0), self

    def __str__(self) -> str:
        return (
            f"{self.lost} lost, {self.duplicated} duplicated, {self.wrong} wrong "
            f"of {self.asked} pieces in {self.runs} runs"
        )


def account(results: Path, runs: list[Path]) -> Account:
    """Compare what was asked for, run and delivered."""
    asked = int(Path(f"{results}.asked").read_text())
    rows = [tuple(map(int, line.split())) for line in results.read_text().splitlines()]
    delivered = Counter(n for n, _ in rows)
    return Account(
        asked=asked,
        runs=sum(len(p.read_text().splitlines()) for p in runs if p.exists()),
        lost=sum(n not in delivered for n in range(asked)),
        duplicated=sum(times - 1 for times in delivered.values()),
        wrong=sum(
            value != value_of(n) or n != place for place, (n, value) in enumerate(rows)
        ),
    )


if __name__ == "__main__":
    run(*sys.argv[1:])
