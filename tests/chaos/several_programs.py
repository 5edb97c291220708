"""What runs on several computers: a worker, and managers that say what they saw.

The worker counts words and works on arrays, and says where it is, and whether it shares
memory with anybody. A manager prints a line of JSON after each part.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from opencluster import Manager, Worker, WorkPiece
from opencluster.demo.words import count_words
from opencluster.errors import NoSuitableWorker
from opencluster.node.host import host_id

PROGRAM = str(Path(__file__).absolute())
TARGET = f"{PROGRAM}:LabWorker"
BLOCK = 5 * 1000**2 // 8
"""Numbers in an array of 5 MB."""
TEXT = "the quick brown fox jumps over the lazy dog\n"


class LabWorker(Worker):
    """Counts words, or doubles an array."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        """Do either."""
        found = WorkPiece(at=host_id(), shares=shares_memory())
        if "text" in work:
            found["words"] = dict(count_words(work["text"].encode()))
        else:
            found["block"] = work["block"] * 2
        return found


def shares_memory() -> bool:
    """Return whether a segment of shared memory is mapped here."""
    return "/memfd:opencluster" in Path("/proc/self/maps").read_text()


def work() -> dict[str, Any]:
    """Have words counted and arrays doubled, and return what came of it."""
    manager = Manager()
    words: Counter[str] = Counter()
    places = set()
    texts = [WorkPiece(text=TEXT * n) for n in range(1, 21)]
    for result in manager.map("Lab", texts, progress=False):
        words.update(result["words"])
    blocks = (WorkPiece(block=np.arange(n, BLOCK + n, dtype=float)) for n in range(8))
    sums, far_shares = [], False
    for result in manager.map("Lab", blocks, progress=False):
        sums.append(float(result["block"].sum()))
        places.add(result["at"])
        far_shares |= result["shares"] and result["at"] != host_id()
    return {
        "words": words,
        "sums": sums,
        "places": sorted(places),
        "here": host_id(),
        "shares": shares_memory(),
        "far_shares": far_shares,
    }


def wait(healed: str) -> None:
    """Say why there is no worker, then, when a file is there, that there is one."""
    manager = Manager()
    try:
        list(manager.map("Lab", [WorkPiece(text=TEXT)], progress=False))
    except NoSuitableWorker as error:
        tell({"error": str(error)})
    while not Path(healed).exists():
        time.sleep(0.05)
    (result,) = manager.map("Lab", [WorkPiece(text=TEXT)], progress=False)
    tell({"words": result["words"]})


def tell(found: dict[str, Any]) -> None:
    """Print a line."""
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "work":
        tell(work())
    else:
        wait(sys.argv[2])
