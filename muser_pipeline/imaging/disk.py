"""The quiet Sun as one component with few parameters: a disk with a radial profile.

Its visibilities are computed from the Hankel transform of the profile, with the third
coordinate of the baselines. With r the distance from the centre of a disk of radius R,
n - 1 = -r^2 / 2 to one part in 10^9, and

    exp(-i pi w r^2) = exp(-i pi w R^2) sum over k of (i pi w (R^2 - r^2))^k / k!

The first factor moves the limb to where it is seen by a slanted array; the transforms
of (R^2 - r^2)^k fall off so fast on long baselines that three terms are enough: what
is left out is a millionth of the flux for MUSER with the Sun 10 degrees high.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from math import hypot, log, pi, sqrt

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft2
from scipy.interpolate import CubicSpline
from scipy.special import j0

from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.grid import Grid
from muser_pipeline.imaging.plane import FLAT, Plane
from muser_pipeline.imaging.restoring import Beam
from muser_pipeline.imaging.visibilities import SPEED_OF_LIGHT_M_PER_S

_TERMS = 3
_STEPS = 16
"""Knots of a table for each unit of wavelengths times radius; a cubic spline between
them is good to 1e-5 of the flux."""
_LONGEST = 256
"""In the same unit: 4 arcseconds, where nothing is left of a disk."""
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(8)
_FAINTEST = 3e-4
"""Of the transform of a beam: nothing beyond is seen in a restored image."""


@dataclass(frozen=True, eq=False)
class RadialProfile:
    """Brightness of a disk against the distance from its centre.

    Linear between the radii given, and 0 beyond the last.

    Attributes
    ----------
    radius : ndarray of float64, shape (k,)
        In radii of the disk, ascending from 0.
    brightness : ndarray of float64, shape (k,)
        In any unit; only its shape counts.
    """

    radius: NDArray[np.float64]
    brightness: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Turn down what is no profile.

        Raises
        ------
        ImagingError
            With reason ``"options"``.
        """
        radius, brightness = np.asarray(self.radius), np.asarray(self.brightness)
        is_good = (
            radius.ndim == 1
            and radius.shape == brightness.shape
            and len(radius) > 1
            and radius[0] == 0
            and bool(np.all(np.diff(radius) > 0))
            and bool(np.isfinite(brightness).all())
        )
        if not is_good or self._flux() <= 0:
            raise ImagingError(
                "options",
                "a profile is a brightness, positive on the whole, at radii that "
                f"ascend from 0: {radius!r}, {brightness!r}",
            )

    def _flux(self) -> float:
        """Return the integral of the brightness times the radius."""
        (r0, r1), (b0, b1) = (
            (values[:-1], values[1:]) for values in (self.radius, self.brightness)
        )
        parts = 2 * r0 * b0 + r0 * b1 + r1 * b0 + 2 * r1 * b1
        return float(np.sum((r1 - r0) * parts) / 6)

    def at(self, radius: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the brightness at some radii."""
        return np.interp(radius, self.radius, self.brightness, right=0.0)

    def transforms(self, longest: float) -> CubicSpline:
        """Return the transforms of the profile, for a disk of flux 1.

        Parameters
        ----------
        longest : float
            Up to how many wavelengths times radius they are needed.

        Returns
        -------
        CubicSpline
            At s, the integrals over r of 2 pi r J0(2 pi s r) (1 - r^2)^k times the
            profile, for k = 0, 1, 2; shape (..., 3).
        """
        reach = 4
        while reach < min(longest, _LONGEST):
            reach *= 2
        radius = np.asarray(self.radius, dtype=np.float64).tobytes()
        brightness = np.asarray(self.brightness, dtype=np.float64).tobytes()
        return _transforms(radius, brightness, reach)


UNIFORM = RadialProfile(np.array([0.0, 1.0]), np.array([1.0, 1.0]))
"""A disk that is as bright at its limb as in its middle."""


@dataclass(frozen=True, eq=False)
class Disk:
    """A disk in the sky.

    Attributes
    ----------
    l, m : float
        Direction cosines of its centre.
    radius_rad : float
        Its radius, the unit of that of the profile.
    flux : ndarray of float64, shape (channel,)
        Flux density of the whole disk in each channel, in units of the visibilities.
    profile : RadialProfile
        Its brightness.
    l_error, m_error, radius_error_rad : float
        One standard deviation; 0 where nothing was fitted.
    flux_error : ndarray of float64, shape (channel,)
        The same of the flux.
    """

    l: float  # noqa: E741  the name of this coordinate everywhere
    m: float
    radius_rad: float
    flux: NDArray[np.float64]
    profile: RadialProfile = UNIFORM
    l_error: float = 0.0
    m_error: float = 0.0
    radius_error_rad: float = 0.0
    flux_error: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def visibilities(
        self, uvw_m: NDArray[np.float64], frequency_hz: NDArray[np.float64]
    ) -> NDArray[np.complex64]:
        """Return its visibilities.

        Parameters
        ----------
        uvw_m : ndarray of float64, shape (row, 3)
            Baselines in metres.
        frequency_hz : ndarray of float64, shape (channel,)
            As many as it has fluxes.

        Returns
        -------
        ndarray of complex64, shape (row, channel)
        """
        per_m = frequency_hz / SPEED_OF_LIGHT_M_PER_S
        u, v, w = (np.multiply.outer(column, per_m) for column in uvw_m.T)
        unit = unit_visibilities(u, v, w, self.l, self.m, self.radius_rad, self.profile)
        return (unit * self.flux).astype(np.complex64)

    def image(
        self, grid: Grid, beam: Beam, flux: float, plane: Plane = FLAT
    ) -> NDArray[np.float32]:
        """Return it as seen with a beam, without noise or sidelobes.

        Parameters
        ----------
        grid : Grid
            The pixels.
        beam : Beam
            What it is convolved with.
        flux : float
            Flux density of the whole disk.
        plane : Plane, optional
            Of the image's coordinates.

        Returns
        -------
        ndarray of float32, shape (size, size)
            Flux per beam.
        """
        size, cell = grid.size, grid.cell_rad
        v = np.fft.fftfreq(size, cell).astype(np.float64)[:, np.newaxis]
        u = np.fft.rfftfreq(size, cell).astype(np.float64)[np.newaxis, :]
        taper = beam_transform(beam, u, v)
        seen = taper > _FAINTEST * beam.solid_angle
        u, v = (part[seen] for part in np.broadcast_arrays(u, v))
        w = plane.a * u + plane.b * v
        unit = unit_visibilities(u, v, w, self.l, self.m, self.radius_rad, self.profile)
        # pixels run to the west, and the middle is at [size / 2, size / 2]
        spectrum = np.zeros(taper.shape, dtype=np.complex64)
        spectrum[seen] = np.conj(unit) * taper[seen]
        spectrum[1::2] *= -1
        spectrum[:, 1::2] *= -1
        flipped = irfft2(spectrum, (size, size)) * (flux / cell**2)
        return np.asarray(_upright(flipped), dtype=np.float32)


def unit_visibilities(
    u: NDArray[np.float64],
    v: NDArray[np.float64],
    w: NDArray[np.float64],
    east: float,
    north: float,
    radius_rad: float,
    profile: RadialProfile = UNIFORM,
) -> NDArray[np.complex128]:
    """Return the visibilities of a disk of flux 1.

    Parameters
    ----------
    u, v, w : ndarray of float64
        Baselines in wavelengths, of one shape.
    east, north : float
        l and m of its centre.
    radius_rad : float
        Its radius.
    profile : RadialProfile, optional
        A uniform disk by default.

    Returns
    -------
    ndarray of complex128
        Of the same shape.
    """
    height = sqrt(1.0 - hypot(east, north) ** 2)
    depth = -(hypot(east, north) ** 2) / (1.0 + height)
    # what a displacement from the centre does to u l + v m + w n
    lengths = np.hypot(u - w * (east / height), v - w * (north / height))
    scaled = lengths * radius_rad
    longest = float(scaled.max(initial=0.0))
    terms = profile.transforms(longest)(np.minimum(scaled, _LONGEST))
    turn = 1j * pi * radius_rad**2 * w
    total = terms[..., 0] + turn * (terms[..., 1] + 0.5 * turn * terms[..., 2])
    total[scaled > _LONGEST] = 0.0
    phase = 2 * pi * (u * east + v * north + w * depth)
    return np.asarray(total * np.exp(1j * phase - turn))


def beam_transform(
    beam: Beam, u: NDArray[np.float64], v: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the Fourier transform of a beam of peak 1, in steradians."""
    c, s = np.cos(beam.angle_rad), np.sin(beam.angle_rad)
    along = (v * c + u * s) * beam.major_rad
    across = (u * c - v * s) * beam.minor_rad
    fall = pi**2 / (4 * log(2.0))
    return np.asarray(beam.solid_angle * np.exp(-fall * (along**2 + across**2)))


def _upright(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return an image whose columns count -l as one whose columns count l reversed.

    Column x looks to -(x - size / 2), and the transform's to +(x - size / 2), which
    has no column for +size / 2: that is the same as -size / 2.
    """
    return np.roll(image[:, ::-1], 1, axis=1)


def _nodes(
    radius: NDArray[np.float64], widest: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return nodes and weights of Gauss-Legendre quadrature over the radii."""
    edges = np.concatenate(
        [
            np.linspace(low, high, max(1, int(np.ceil((high - low) / widest))) + 1)[:-1]
            for low, high in zip(radius[:-1], radius[1:], strict=True)
        ]
    )
    edges = np.append(edges, radius[-1])
    half = np.diff(edges)[:, np.newaxis] / 2
    middle = (edges[1:] + edges[:-1])[:, np.newaxis] / 2
    return (middle + half * _NODES).ravel(), (half * _NODE_WEIGHTS).ravel()


@lru_cache(maxsize=128)
def _transforms(radius: bytes, brightness: bytes, reach: int) -> CubicSpline:
    radii = np.frombuffer(radius)
    nodes, weights = _nodes(radii, 1.0 / reach)
    weights = weights * nodes * np.interp(nodes, radii, np.frombuffer(brightness))
    weights = weights / weights.sum()
    powers = (1.0 - nodes[:, np.newaxis] ** 2) ** np.arange(_TERMS)
    knots = np.arange(reach * _STEPS + 1) / _STEPS
    table = np.concatenate(
        [
            j0(2 * pi * np.multiply.outer(part, nodes))
            @ (weights[:, np.newaxis] * powers)
            for part in np.array_split(knots, max(1, len(knots) // 256))
        ]
    )
    # the transform is even
    return CubicSpline(knots, table, bc_type=("clamped", "not-a-knot"))
