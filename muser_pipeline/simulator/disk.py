"""The quiet Sun: a disk with a bright limb whose size depends on frequency."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.array import SPEED_OF_LIGHT_M_PER_S
from muser_pipeline.array.quiet_sun import profiles_k

_BOLTZMANN_J_PER_K = 1.380649e-23
_SFU_W = 1e-22
"""Solar flux unit, W / m^2 / Hz."""
_STEPS_PER_RADIUS = 256
_LONGEST = 120.0
"""In wavelengths times the solar radius in radians: 7 arcseconds, finer than the
profile; beyond, nothing of it is seen."""
_PADDING = 64
"""Times the width of the profile that is transformed, 4 radii, so that the result can
be interpolated linearly: the error is at most (2 pi / (4 64))^2 / 8 of the total flux,
one part in 13 000."""


@dataclass(frozen=True, eq=False)
class QuietSun:
    """Visibilities of the quiet Sun at some frequencies.

    Attributes
    ----------
    frequency_hz : ndarray of float64, shape (channel,)
        The frequencies.
    step : float
        Step of the table in wavelengths times the solar radius in radians.
    brightness : ndarray of float64, shape (channel, step)
        The Hankel transform of the profile: kelvin times square solar radii.
    """

    frequency_hz: NDArray[np.float64]
    step: float
    brightness: NDArray[np.float64]

    @classmethod
    def at(cls, frequency_hz: NDArray[np.float64]) -> QuietSun:
        """Prepare some frequencies.

        The transform of a disk in two dimensions is that of its projection in one.

        Parameters
        ----------
        frequency_hz : ndarray, shape (channel,)
            400 MHz to 15 GHz; the profile of the next one is taken outside.
        """
        profiles = profiles_k(frequency_hz)
        radii = np.arange(profiles.shape[1] + 1) / 100
        # the table ends at 1.99 radii, where next to nothing is left
        profiles = np.pad(profiles, ((0, 0), (0, 1)))
        places = np.arange(-2 * _STEPS_PER_RADIUS, 2 * _STEPS_PER_RADIUS)
        offsets = np.abs(places) / _STEPS_PER_RADIUS
        projected = profiles @ _projection(radii, offsets).T
        size = _PADDING * len(places)
        padded = np.zeros((len(profiles), size))
        padded[:, places % size] = projected
        transformed = np.fft.rfft(padded, axis=1).real / _STEPS_PER_RADIUS
        step = _STEPS_PER_RADIUS / size
        table = transformed[:, : round(_LONGEST / step) + 1].copy()
        return cls(np.asarray(frequency_hz), step, table)

    def flux_sfu(
        self, wavelengths: NDArray[np.float64], radius_rad: float
    ) -> NDArray[np.float64]:
        """Return visibilities about the centre of the disk, which are real.

        The brightness temperature T gives 2 k T f^2 / c^2 for each steradian.

        Parameters
        ----------
        wavelengths : ndarray, shape (baseline, channel)
            Lengths of the baselines as seen from the Sun.
        radius_rad : float
            The solar radius in the sky.

        Returns
        -------
        ndarray of float64, shape (baseline, channel)
            Solar flux units.
        """
        per_k = 2 * _BOLTZMANN_J_PER_K * self.frequency_hz**2
        per_k = per_k / SPEED_OF_LIGHT_M_PER_S**2 * radius_rad**2 / _SFU_W
        grid = np.arange(self.brightness.shape[1]) * self.step
        found = np.empty(wavelengths.shape)
        for channel, table in enumerate(self.brightness):
            scaled = wavelengths[:, channel] * radius_rad
            found[:, channel] = np.interp(scaled, grid, table, right=0.0)
        return found * per_k


def _projection(
    radii: NDArray[np.float64], offsets: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return what projects a profile that is linear between radii onto a line.

    The projection at x is 2 times the integral of T(r) r / sqrt(r^2 - x^2) from x on.
    With s = sqrt(r^2 - x^2), that of r / s is s, and that of r^2 / s is
    (r s + x^2 log(r + s)) / 2.

    Parameters
    ----------
    radii : ndarray, shape (radius,)
        Where the profile is given, ascending from 0.
    offsets : ndarray, shape (offset,)
        Values of x, none negative.

    Returns
    -------
    ndarray of float64, shape (offset, radius)
    """
    x = offsets[:, np.newaxis]
    r = np.maximum(radii[np.newaxis, :], x)
    s = np.sqrt(r**2 - x**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithm = np.where(x > 0, x**2 * np.log(r + s), 0.0)
    constant = np.diff(s, axis=1)
    linear = np.diff((r * s + logarithm) / 2, axis=1)
    low, width = radii[:-1], np.diff(radii)
    upper = (linear - low * constant) / width
    weights = np.zeros((len(offsets), len(radii)))
    weights[:, 1:] += upper
    weights[:, :-1] += constant - upper
    return 2 * weights
