"""Count the words of a text file on a cluster: the user's view of OpenCluster."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from opencluster import Manager, Worker, WorkPiece

PART_BYTES = 1 << 20
WORD = re.compile(rb"[A-Za-z]+")


class WordCountWorker(Worker):
    """Counts the words of one part of a file."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        with open(work["filepath"], "rb") as file:
            file.seek(work["offset"])
            text = file.read(work["size"])
        words = Counter(word.lower().decode() for word in WORD.findall(text))
        return WorkPiece(words=words)


class WordCountManager(Manager):
    """Splits a file at line ends, and adds up the counts of its parts."""

    def schedule(self, task: WorkPiece) -> WorkPiece:
        total: Counter[str] = Counter()
        for part in self.map("WordCount", split(task["filepath"])):
            total.update(part["words"])
        return WorkPiece(words=total)


def split(filepath: Path) -> Iterator[WorkPiece]:
    """Yield parts of about a megabyte that end where a line ends."""
    with open(filepath, "rb") as file:
        offset = 0
        while file.seek(offset + PART_BYTES) and file.readline():
            size = file.tell() - offset
            yield WorkPiece(filepath=filepath, offset=offset, size=size)
            offset += size
        size = filepath.stat().st_size - offset
        if size:
            yield WorkPiece(filepath=filepath, offset=offset, size=size)


if __name__ == "__main__":
    task = WorkPiece(filepath=Path(sys.argv[1]).absolute())
    result = WordCountManager().run(task)
    for word, count in result["words"].most_common(10):
        print(f"{count:8d}  {word}")
