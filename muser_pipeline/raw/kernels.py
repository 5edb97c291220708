"""The loops over the payload of frames, compiled when first used.

A correlation is two 24-bit two's-complement numbers whose bytes are strewn: byte k of
the imaginary part stands at 4 k from where it begins, that of the real part right after
it. Where each one begins is in a table, so that one loop does for both arrays, in one
pass; numpy would take ten.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_STREWN = 10
"""From the first byte of a correlation to behind its last."""
_SMALLEST = np.float32(-(1 << 23))
_LARGEST = np.float32((1 << 23) - 1)


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the machine code of a loop; numba keeps it on disk for the next process.

    Parameters
    ----------
    function : callable
        One of this module's.
    """
    import numba

    loop: Callable[..., Any] = numba.njit(cache=True, nogil=True)(function)
    return loop


def unpack(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    places: NDArray[np.int64],
    sign: np.float32,
    parts: NDArray[np.float32],
) -> None:
    """Decode correlations.

    Parameters
    ----------
    data : ndarray of uint8, shape (bytes,)
        The file.
    offsets : ndarray of int64, shape (n,)
        Where frames begin.
    places : ndarray of int64, shape (m,)
        Where correlations begin in a frame.
    sign : float32
        -1 to conjugate, or 1.
    parts : ndarray of float32, shape (n, 2 m)
        Filled: real and imaginary parts in turn.
    """
    for n in range(len(offsets)):
        to = parts[n]
        for k in range(len(places)):
            at = offsets[n] + places[k]
            b = data[at : at + _STREWN]
            to[2 * k] = (np.int32(np.int8(b[9])) << 16) | (b[5] << 8) | b[1]
            imaginary = (np.int32(np.int8(b[8])) << 16) | (b[4] << 8) | b[0]
            to[2 * k + 1] = sign * np.float32(imaginary)


def unpack_words(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    places: NDArray[np.int64],
    words: NDArray[np.uint32],
) -> None:
    """Read 32-bit words.

    Parameters
    ----------
    data : ndarray of uint8, shape (bytes,)
        The file.
    offsets : ndarray of int64, shape (n,)
        Where frames begin.
    places : ndarray of int64, shape (m,)
        Where words begin in a frame.
    words : ndarray of uint32, shape (n, m)
        Filled.
    """
    for n in range(len(offsets)):
        for k in range(len(places)):
            at = offsets[n] + places[k]
            b = data[at : at + 4]
            words[n, k] = (
                np.uint32(b[0]) | b[1] << 8 | b[2] << 16 | np.uint32(b[3]) << 24
            )


def pack(
    parts: NDArray[np.float32],
    places: NDArray[np.int64],
    sign: np.float32,
    frames: NDArray[np.uint8],
) -> None:
    """Encode correlations, rounded and clipped to 24 bits: the inverse of `unpack`.

    Parameters
    ----------
    parts : ndarray of float32, shape (n, 2 m)
        Real and imaginary parts in turn, finite.
    places : ndarray of int64, shape (m,)
        Where correlations begin in a frame.
    sign : float32
        -1 if they are conjugated, or 1.
    frames : ndarray of uint8, shape (n, size)
        Written to; other bytes stay.
    """
    for n in range(len(frames)):
        for k in range(len(places)):
            b = frames[n, places[k] : places[k] + _STREWN]
            for part in range(2):
                value = np.rint(parts[n, 2 * k + part])
                if part:
                    value *= sign
                number = np.int32(max(_SMALLEST, min(_LARGEST, value)))
                b[1 - part] = number & 0xFF
                b[5 - part] = number >> 8 & 0xFF
                b[9 - part] = number >> 16 & 0xFF
