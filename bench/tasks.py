"""What a worker does with a piece, the same for OpenCluster and every peer.

Every block is a new array of which every byte is written, and whose value depends on
its number, so that nothing can be sent once and counted twice. Whoever gets a block
reads from every page of it and answers with a sum, which is checked.

NumPy is imported when the first block comes: an idle worker is measured without it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Block = np.ndarray[Any, np.dtype[np.uint8]]
    Array = np.ndarray[Any, np.dtype[np.float64]]

SMALL = 100 * 1024
LARGE = 5 * 1024 * 1024
"""Bytes of a block: the 100 KB and the 5 MB of the paper."""
STRIDE = 512
"""Of so many bytes one is read."""
FLOAT_BYTES = 8

Make = Callable[[int, int], Any]
"""Makes the block of a number and a size."""


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

    return filled(np.empty(size, np.uint8), number)


def block_in_place(number: int, size: int) -> Block:
    """Return a block like `fresh_block` in memory that OpenCluster hands out.

    Parameters
    ----------
    number, size : int
        As for `fresh_block`.
    """
    from opencluster import empty

    return filled(empty(size, "uint8"), number)


def filled(block: Block, number: int) -> Block:
    """Write every byte of a block, and return it."""
    block.fill(number & 0xFF)
    return block


def array_in_place(number: int, size: int) -> Array:
    """Return floats that are all the number, in memory that OpenCluster hands out.

    Parameters
    ----------
    number : int
        What each is.
    size : int
        Of the array, in bytes.
    """
    from opencluster import empty

    array = empty(size // FLOAT_BYTES)
    array.fill(number)
    return array


def total_in_place(arrays: Sequence[Array]) -> Array:
    """Return the sum of arrays in memory that OpenCluster hands out."""
    from opencluster import empty

    return total(arrays, empty(arrays[0].shape))


def total(arrays: Sequence[Array], out: Array) -> Array:
    """Return the sum of two arrays or more, element by element, in `out`."""
    import numpy as np

    np.add(arrays[0], arrays[1], out=out)
    for array in arrays[2:]:
        out += array
    return out


def check_total(array: Array, count: int, size: int) -> None:
    """Make sure that an array is the sum of those of the numbers below `count`.

    Raises
    ------
    WrongAnswer
        When it is not, or not of so many bytes.
    """
    wanted = count * (count - 1) // 2
    if array.nbytes != size or not (array == wanted).all():
        raise WrongAnswer(f"the sum of {count} arrays of {size} bytes is not {wanted}")


class Rooms:
    """Some arrays that are filled in turn, again and again.

    Parameters
    ----------
    count : int
        How many; a block stays as it is until so many others were made.
    """

    def __init__(self, count: int) -> None:
        self._rooms: deque[Any] = deque([()] * count)

    def block(self, number: int, size: int) -> Block:
        """Return a block like `fresh_block`, in memory that is used again."""
        self._rooms.rotate(-1)
        if len(self._rooms[0]) != size:
            self._rooms[0] = fresh_block(number, size)
        return filled(self._rooms[0], number)


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
