"""How high an image stands, and where CLEAN is to stop."""

from __future__ import annotations

from typing import Literal

import numpy as np

from muser_pipeline.imaging.backend import Array, namespace_of

NORMAL = 1.4826
"""Standard deviation of normal noise, in median absolute deviations."""
_SETTLED = 0.99
"""Part of what it was to which a threshold falls at least, or it has been reached."""
_SAMPLES = 1 << 18
"""Pixels that the noise is taken from at most: neighbours say the same twice."""


def noise_of(image: Array) -> float:
    """Return the noise of an image, whatever few sources are in it.

    Parameters
    ----------
    image : ndarray of float32, shape (N, N)
        A residual.

    Returns
    -------
    float
        Median absolute deviation from the median, times 1.4826.
    """
    xp = namespace_of(image)
    step = 1
    while image.size // step**2 > _SAMPLES:
        step += 1
    some = image[::step, ::step]
    return NORMAL * float(xp.median(xp.abs(some - xp.median(some))))


def peak_of(images: Array, mask: Array | None, is_signed: bool) -> float:
    """Return the height of the highest peak in images.

    Parameters
    ----------
    images : ndarray of float32, shape (..., N, N)
        Residuals.
    mask : ndarray of bool, shape (N, N), or None
        Where to look.
    is_signed : bool
        Look for positive peaks only; 0 if there are none.
    """
    if mask is not None:
        images = images[..., mask]
    if not images.size:
        return 0.0
    highest = float(images.max())
    return max(0.0, highest) if is_signed else max(highest, -float(images.min()))


def threshold_of(
    residual: Array, absolute: float, sigmas: float
) -> tuple[float, Literal["threshold", "sigma"]]:
    """Return where to stop, and which of the two wishes says so.

    Parameters
    ----------
    residual : ndarray of float32, shape (N, N)
        What is left.
    absolute : float
        In units of the image.
    sigmas : float
        In units of the noise.
    """
    by_noise = sigmas * noise_of(residual) if sigmas else 0.0
    if by_noise > absolute:
        return by_noise, "sigma"
    return absolute, "threshold"


def is_settled(threshold: float, before: float) -> bool:
    """Return whether a threshold, measured again, has not fallen any more."""
    return threshold > _SETTLED * before


def single(value: float) -> np.float32:
    """Return the greatest float32 that is not above a value, which is 0 or more."""
    near = np.float32(value)
    return np.nextafter(near, np.float32(0)) if float(near) > value else near
