"""Count the words of many files, with a cluster and without."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from opencluster import Manager, Worker, WorkPiece

WORD = re.compile(rb"[a-z]+")


class WordCountWorker(Worker):
    """Counts the words of one part of a file."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        """Read the part and count it."""
        with work["path"].open("rb") as file:
            file.seek(work["offset"])
            text = file.read(work["size"])
        return WorkPiece(words=dict(count_words(text)))


class WordCountManager(Manager):
    """Has the parts of files counted, and adds up the counts."""

    def schedule(self, task: WorkPiece) -> WorkPiece:
        """Count the words of all ``parts``."""
        words: Counter[str] = Counter()
        for counted in self.map("WordCount", task["parts"], ordered=False):
            words.update(counted["words"])
        return WorkPiece(words=words)


def count_words(text: bytes) -> Counter[str]:
    """Return how often each word stands in a text, in lower case."""
    words = Counter(WORD.findall(text.lower()))
    return Counter({word.decode(): count for word, count in words.items()})


def split(path: Path, part_bytes: int) -> Iterator[WorkPiece]:
    """Yield the parts of a file; each ends where a line ends, so no word is cut."""
    offset, size = 0, path.stat().st_size
    with path.open("rb") as file:
        while offset < size:
            file.seek(min(offset + part_bytes, size))
            file.readline()
            end = file.tell()
            yield WorkPiece(path=path, offset=offset, size=end - offset)
            offset = end


def count_plainly(paths: Iterable[Path]) -> Counter[str]:
    """Count the words of files in this process, one file after the other."""
    words: Counter[str] = Counter()
    for path in paths:
        words.update(count_words(path.read_bytes()))
    return words
