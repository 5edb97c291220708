"""Arrays that need not be copied to be sent: they lie in shared memory from the start.

Must be imported only when such an array is wanted: it imports numpy.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from opencluster.config import load
from opencluster.config.settings import MemorySettings
from opencluster.net.arena import process_arena


def empty(shape: int | tuple[int, ...], dtype: DTypeLike = float) -> NDArray[Any]:
    """Return a new array in memory that processes of this computer share.

    A piece or a result with such an array in it is sent to a process of this computer
    without a copy: it reads the very same memory. So write to the array before it is
    sent, and not after. Everywhere else it is an array like any other, and when there
    is no room for it in shared memory, it is one from the start.

    Parameters
    ----------
    shape : int or tuple of int
        Lengths of its dimensions.
    dtype : data-type
        Type of its elements, without references to Python objects.

    Returns
    -------
    ndarray
        In C's order, its contents arbitrary.

    Examples
    --------
    >>> block = empty((16, 1024), "complex64")
    >>> block[:] = 0
    >>> piece = WorkPiece(block=block)                             # doctest: +SKIP
    """
    kind = np.dtype(dtype)
    lengths = (shape,) if isinstance(shape, int) else tuple(shape)
    nbytes = math.prod(lengths) * kind.itemsize
    settings = _settings()
    is_small = nbytes < settings.arena_threshold_bytes
    view = None
    if not (kind.hasobject or is_small) and settings.arena_bytes:
        view = process_arena(settings.arena_bytes).allocate(nbytes)
    if view is None:
        return np.empty(lengths, kind)
    return np.frombuffer(view, kind).reshape(lengths)


@cache
def _settings() -> MemorySettings:
    return load().memory
