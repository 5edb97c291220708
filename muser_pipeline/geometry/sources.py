"""What a telescope can be pointed at: the Sun, calibrators, satellites.

A source tells its direction as seen by an `Observer`. Directions are unit vectors in
the axes of the ICRS, as rows of arrays of shape (n, 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import erfa
import numpy as np
from numpy.typing import NDArray

from muser_pipeline.errors import TableError

Vectors = NDArray[np.float64]

AU_M = 149_597_870_700.0
_LIGHT_TIME_DAYS_PER_AU = 499.004783836 / 86_400
_GEOSTATIONARY_RADIUS_M = 42_164_170.0
_STEP_RAD = 1e-4


@dataclass(frozen=True, eq=False)
class Observer:
    """The site on its way through the solar system, at n times.

    Attributes
    ----------
    barycentric_au : ndarray, shape (n, 3)
        Place of the site.
    velocity_c : ndarray, shape (n, 3)
        Its barycentric velocity in units of the speed of light.
    lorentz : ndarray, shape (n,)
        sqrt(1 - velocity^2).
    sun_au, sun_velocity_au_per_day : ndarray, shape (n, 3)
        Barycentric place and velocity of the Sun.
    earth_to_sky : ndarray, shape (n, 3, 3)
        Turns vectors in the axes of the ITRS into the axes of the ICRS.
    geocentric_m : ndarray, shape (3,)
        The site in the ITRS.
    """

    barycentric_au: Vectors
    velocity_c: Vectors
    lorentz: NDArray[np.float64]
    sun_au: Vectors
    sun_velocity_au_per_day: Vectors
    earth_to_sky: NDArray[np.float64]
    geocentric_m: NDArray[np.float64]

    def aberrated(self, natural: Vectors) -> Vectors:
        """Return where light that comes from a direction seems to come from."""
        proper: Vectors = erfa.ab(
            natural, self.velocity_c, self._sun_distance_au, self.lorentz
        )
        return proper

    def unaberrated(self, proper: Vectors) -> Vectors:
        """Return the direction that `aberrated` turns into this one."""
        natural = proper
        for _ in range(4):  # the error shrinks 10 000 times with each round
            natural = natural + proper - self.aberrated(natural)
            natural = natural / np.linalg.norm(natural, axis=-1, keepdims=True)
        return natural

    def deflected(self, direction: Vectors) -> Vectors:
        """Return a far direction as bent by the Sun."""
        from_sun = self.barycentric_au - self.sun_au
        distance = self._sun_distance_au
        bent: Vectors = erfa.ldsun(
            direction, from_sun / distance[:, np.newaxis], distance
        )
        return bent

    @property
    def _sun_distance_au(self) -> NDArray[np.float64]:
        distance: NDArray[np.float64] = np.linalg.norm(
            self.barycentric_au - self.sun_au, axis=-1
        )
        return distance


@dataclass(frozen=True, eq=False)
class Sighting:
    """A source as seen by an observer at n times.

    Attributes
    ----------
    place : ndarray, shape (n, 3)
        The direction that stands in a catalogue: without aberration and bending of
        light; of the Sun and satellites the direction that a star would have that is
        seen at the same point.
    apparent : ndarray, shape (n, 3)
        The direction that it is seen in.
    north : ndarray, shape (n, 3)
        Unit vectors at right angles to ``apparent``: where a source is seen that
        stands a little north of this one in the catalogue.
    distance_m : ndarray, shape (n,)
        Distance; infinite for stars.
    """

    place: Vectors
    apparent: Vectors
    north: Vectors
    distance_m: NDArray[np.float64]


class Source(Protocol):
    """Anything that can be followed."""

    @property
    def name(self) -> str:
        """What headers call it."""

    @property
    def moves_with_earth(self) -> bool:
        """Whether it turns with the Earth, and not with the sky."""

    def seen_by(self, observer: Observer) -> Sighting:
        """Return where it is seen."""


@dataclass(frozen=True)
class Sun:
    """The centre of the Sun.

    From the simplified VSOP2000 series of ERFA's ``epv00``, which keeps within 13 km
    (0.02 arcseconds) of JPL's DE405 from 1900 to 2100.
    """

    name: str = "Sun"
    moves_with_earth: bool = False

    def seen_by(self, observer: Observer) -> Sighting:
        """Return the centre where it was when its light left."""
        towards = observer.sun_au - observer.barycentric_au
        days = np.linalg.norm(towards, axis=-1) * _LIGHT_TIME_DAYS_PER_AU
        towards = towards - observer.sun_velocity_au_per_day * days[:, np.newaxis]
        distance = np.linalg.norm(towards, axis=-1)
        place = towards / distance[:, np.newaxis]
        apparent = observer.aberrated(place)
        beside = observer.aberrated(_north_of(place))
        return Sighting(place, apparent, _tangent(apparent, beside), distance * AU_M)


@dataclass(frozen=True)
class FixedSource:
    """A source that stands still among the stars.

    Attributes
    ----------
    name : str
        What headers call it.
    ra_deg, dec_deg : float
        In the ICRS.
    """

    name: str
    ra_deg: float
    dec_deg: float
    moves_with_earth: bool = False

    def seen_by(self, observer: Observer) -> Sighting:
        """Return the source moved by aberration and by the Sun's gravity."""
        direction = erfa.s2c(np.radians(self.ra_deg), np.radians(self.dec_deg))
        place = np.broadcast_to(direction, observer.barycentric_au.shape)
        apparent = observer.aberrated(observer.deflected(place))
        beside = observer.aberrated(observer.deflected(_north_of(place)))
        return Sighting(
            place,
            apparent,
            _tangent(apparent, beside),
            np.full(len(place), np.inf),
        )


@dataclass(frozen=True)
class Geostationary:
    """A satellite above the equator that stands still in the local sky.

    Attributes
    ----------
    name : str
        What headers call it.
    longitude_deg : float
        East. A real one stays within 0.1 degrees of its slot, which is far more
        than a beam: its own orbit gives better.
    """

    name: str
    longitude_deg: float
    moves_with_earth: bool = True

    def seen_by(self, observer: Observer) -> Sighting:
        """Return the satellite, so near that its waves are curved."""
        longitude = np.radians(self.longitude_deg)
        place_m = _GEOSTATIONARY_RADIUS_M * np.array(
            [np.cos(longitude), np.sin(longitude), 0.0]
        )
        towards = place_m - observer.geocentric_m
        distance = float(np.linalg.norm(towards))
        apparent = observer.earth_to_sky @ (towards / distance)
        place = observer.unaberrated(apparent)
        beside = observer.aberrated(_north_of(place))
        return Sighting(
            place,
            apparent,
            _tangent(apparent, beside),
            np.full(len(place), distance),
        )


CALIBRATORS = {
    "Cygnus A": FixedSource("Cygnus A", 299.868153, 40.733916),
    "Cassiopeia A": FixedSource("Cassiopeia A", 350.850000, 58.815000),
    "Taurus A": FixedSource("Taurus A", 83.633083, 22.014500),
    "Virgo A": FixedSource("Virgo A", 187.705931, 12.391123),
}
"""Strong radio sources by name; places from the NASA/IPAC Extragalactic Database and,
for the two remnants of supernovae, Green's catalogue (centres of extended sources)."""


def source_named(name: str) -> Source:
    """Return the Sun or a calibrator by its name, in any spelling of case.

    Raises
    ------
    TableError
        When the name is not known.
    """
    known: dict[str, Source] = {"sun": Sun()}
    known.update((each.lower(), source) for each, source in CALIBRATORS.items())
    try:
        return known[name.lower()]
    except KeyError:
        raise TableError(
            f"there is no source {name!r}: known are Sun, {', '.join(CALIBRATORS)}; "
            "others are a FixedSource or a Geostationary"
        ) from None


def _north_of(place: Vectors) -> Vectors:
    """Return directions a small step north of these."""
    pole = np.array([0.0, 0.0, 1.0])
    north = _tangent(place, np.broadcast_to(pole, place.shape))
    beside: Vectors = place * np.cos(_STEP_RAD) + north * np.sin(_STEP_RAD)
    return beside


def _tangent(direction: Vectors, towards: Vectors) -> Vectors:
    """Return unit vectors at right angles to directions, towards others."""
    across = towards - direction * np.sum(direction * towards, axis=-1, keepdims=True)
    unit: Vectors = across / np.linalg.norm(across, axis=-1, keepdims=True)
    return unit
