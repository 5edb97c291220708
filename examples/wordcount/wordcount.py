"""Count the words of a text file: a worker, a manager, and what splits the task."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from opencluster import Manager, Worker, WorkPiece

PART_BYTES = 1 << 20


class WordCountWorker(Worker):
    """Counts the words of one part of a file."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        """Return how often each word occurs between two places of the file."""
        with work["filepath"].open("rb") as file:
            file.seek(work["offset"])
            text = file.read(work["size"]).decode(errors="replace")
        return WorkPiece(words=Counter(re.findall(r"\w+", text.lower())))


class WordCountManager(Manager):
    """Splits a file into parts, and adds up their counts."""

    def schedule(self, task: WorkPiece) -> WorkPiece:
        """Return how often each word occurs in the whole file."""
        total: Counter[str] = Counter()
        for part in self.map("WordCount", split(task["filepath"])):
            total.update(part["words"])
        return WorkPiece(words=total)


def split(filepath: Path) -> Iterator[WorkPiece]:
    """Yield parts of about a megabyte, each ending where a line ends."""
    offset, end = 0, filepath.stat().st_size
    with filepath.open("rb") as file:
        while offset < end:
            file.seek(offset + PART_BYTES)
            file.readline()
            size = min(file.tell(), end) - offset
            yield WorkPiece(filepath=filepath, offset=offset, size=size)
            offset += size


if __name__ == "__main__":
    task = WorkPiece(filepath=Path(sys.argv[1]).absolute())
    result = WordCountManager().run(task)
    for word, count in result["words"].most_common(10):
        print(f"{count:8d}  {word}")
