"""What a worker does with a piece, the same for OpenCluster and every peer.

Every block is a new array of which every byte is written, and whose value depends on
its number, so that nothing can be sent once and counted twice. Whoever gets a block
reads from every page of it and answers with a sum, which is checked.

NumPy is imported when the first block comes: an idle worker is measured without it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Block = np.ndarray[Any, np.dtype[np.uint8]]

STRIDE = 512
"""Of so many bytes one is read."""


def echo(number: int) -> int:
    """Return the number: the trivial piece."""
    return number


def fresh_block(number: int, size: int) -> Block:
    """Return a new array of so many bytes, each of them written.

    Parameters
    ----------
    number : int
        Which block it is; its bytes tell.
    size : int
        In bytes.
    """
    import numpy as np

    block = np.empty(size, np.uint8)
    block.fill(number & 0xFF)
    return block


def touch(block: Block) -> int:
    """Return the sum of every 512th byte: all pages are read."""
    return int(block[::STRIDE].sum(dtype="int64"))


def touch_bytes(data: Any) -> int:
    """Return what `touch` does, of an object that only shows its bytes."""
    import numpy as np

    return touch(np.frombuffer(data, np.uint8))


def expected(number: int, size: int) -> int:
    """Return what `touch` must say of the block of a number."""
    return (number & 0xFF) * ((size + STRIDE - 1) // STRIDE)


def check(sums: Iterable[tuple[int, int]], count: int, size: int) -> None:
    """Make sure that each of so many blocks came, whole and once.

    Parameters
    ----------
    sums : iterable of (int, int)
        Number of the block, and what `touch` said of it.
    count : int
        How many blocks there are.
    size : int
        Of each, in bytes.

    Raises
    ------
    WrongAnswer
        When a sum is wrong, or when a block is missing or came twice.
    """
    seen: set[int] = set()
    for number, answer in sums:
        if number in seen:
            raise WrongAnswer(f"block {number} of {size} bytes was answered twice")
        if answer != expected(number, size):
            raise WrongAnswer(
                f"block {number} of {size} bytes: the sum is {answer}, "
                f"not {expected(number, size)}"
            )
        seen.add(number)
    if seen != set(range(count)):
        raise WrongAnswer(f"{len(seen)} of {count} blocks were answered")


class WrongAnswer(Exception):
    """A peer lost, doubled or changed data: its time means nothing."""
