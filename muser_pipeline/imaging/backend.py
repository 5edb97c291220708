"""The two libraries that arrays come from: numpy, and CuPy where there is a GPU.

Numerical code asks an array for its library and is otherwise the same for both. CuPy
is imported here alone, and only when it is asked for.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.imaging.errors import ImagingError

Device = Literal["cpu", "cuda"]
Array = Any
"""An array of numpy or of CuPy."""


def namespace_of(array: Array) -> Any:
    """Return the library that an array is of: the module numpy or cupy."""
    if type(array).__module__.partition(".")[0] == "cupy":
        return importlib.import_module("cupy")
    return np


@functools.cache
def cupy_or_none() -> Any:
    """Return the module cupy, or None when it or a GPU is missing."""
    try:
        cupy = importlib.import_module("cupy")
    except ImportError:
        return None
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError:
        return None
    return cupy if count else None


def library_of(device: Device) -> Any:
    """Return the library whose arrays live on a device.

    Raises
    ------
    ImagingError
        When there is no such device; its reason is "device".
    """
    if device == "cpu":
        return np
    if device != "cuda":
        raise ImagingError("device", f"a device is cpu or cuda, not {device!r}")
    cupy = cupy_or_none()
    if cupy is None:
        raise ImagingError("device", "there is no GPU that CuPy can use")
    return cupy


def to_host(array: Array) -> NDArray[Any]:
    """Return an array of numpy with the same values; copied only from a GPU."""
    if namespace_of(array) is np:
        host: NDArray[Any] = np.asarray(array)
        return host
    copied: NDArray[Any] = array.get()
    return copied
