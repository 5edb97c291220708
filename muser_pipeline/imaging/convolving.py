"""An image folded with a beam, by Fourier transforms, nothing wrapping around."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from muser_pipeline.imaging.backend import Array


class Convolver:
    """Folds images with one array after another.

    Parameters
    ----------
    size : int
        Side of the images, N.
    reach : int
        Side of the largest array that they are folded with, even; its centre is at
        half of this.
    xp : module
        numpy or cupy.
    """

    def __init__(self, size: int, reach: int, xp: Any) -> None:
        self._size, self._xp = size, xp
        self._fft = _transforms_of(xp)
        # what wraps around comes from further away than half of the array
        self._length = self._fft.next_fast_len(size + reach // 2, real=True)

    def transform(self, image: Array) -> Array:
        """Return the transform of an image, shape (n, n), placed at the first pixel."""
        length = self._length
        return self._fft.rfft2(image, s=(length, length))

    def centred(self, image: Array) -> Array:
        """Return the transform of an array whose centre becomes the first pixel."""
        half, length = len(image) // 2, self._length
        padded = self._xp.zeros((length, length), dtype=np.float32)
        # the quarters around the centre go to the four corners
        for rows in (slice(half, None), slice(0, half)):
            for columns in (slice(half, None), slice(0, half)):
                quarter = image[rows, columns]
                top = 0 if rows.stop is None else length - half
                left = 0 if columns.stop is None else length - half
                to = padded[top : top + len(quarter), left : left + quarter.shape[1]]
                to[...] = quarter
        return self._fft.rfft2(padded)

    def image(self, transform: Array) -> Array:
        """Return the image of a product of transforms; float32, shape (N, N)."""
        length, size = self._length, self._size
        whole = self._fft.irfft2(transform, s=(length, length))
        return self._xp.ascontiguousarray(whole[:size, :size], dtype=np.float32)


def _transforms_of(xp: Any) -> Any:
    """Return the module with the Fourier transforms of numpy or cupy, in float32."""
    return importlib.import_module("scipy.fft" if xp is np else "cupyx.scipy.fft")
