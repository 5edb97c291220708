"""A simple source that fits what phases of antennas cannot change.

Phases are found in turns with an image of the source, and what that comes to depends on
what it begins with. So the simplest source is looked for that explains amplitudes and
closure phases: a point, Gaussians, a disk, two points, a ring, and a ring that is
brighter on one side. Amplitudes of antennas may be off by some part. Of two sources
that fit, that with fewer numbers is taken (the criterion of Schwarz 1978, Estimating
the dimension of a model, Annals of Statistics 6, 461). Where the source is on the sky
nobody can know: it is put in the middle.

With q the length of a baseline in wavelengths and t its position angle, a ring with the
diameter d and the brightness 1 + a cos(p - p0) at the position angle p is seen as

    J0(pi d q) + i a cos(t - p0) J1(pi d q)

times the visibility of the Gaussian that it is smoothed with.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import hypot, log, pi

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.special import j0, j1

from muser_pipeline.imaging.closures import MOST_ANTENNAS, Closures, Floats

GAIN_ERROR = 0.15
"""By how much, in the logarithm, amplitudes of antennas are usually off."""
_SIZES = (0.3, 0.6, 1.0, 1.4, 2.0, 2.8, 4.0, 6.0, 10.0)
"""Of sources, in smallest fringes, that the search begins with."""
_WIDTHS = (0.3, 0.8)
_SLOPES = tuple((0.5 * np.cos(a), 0.5 * np.sin(a)) for a in np.arange(0, 6) * pi / 3)
_RATIOS = (0.5, 2.0)
_FARTHEST = 6.0
"""Fringes that two points are apart by."""
_REFINED = 2
"""So many of the places that the search begins with are gone on from."""
_STEP, _TOLERANCE = 1e-6, 1e-5
_SMALLEST, _LARGEST = -5.0, 5.0
"""Logarithms of sizes in fringes."""
_LN2_4 = 4 * log(2)

Complex = NDArray[np.complex128]
Seen = Callable[[Floats, Floats, Floats], Complex]


@dataclass(frozen=True, eq=False)
class Start:
    """A source that fits best.

    Attributes
    ----------
    name : str
        ``"point"``, ``"gaussian"``, ``"ellipse"``, ``"disk"``, ``"double"``, ``"ring"``
        or ``"crescent"``, a ring that is brighter on one side.
    numbers : dict of str to float
        What it is like: flux, and sizes in radians, angles in radians from north
        through east.
    extent_rad : float
        Diameter of the circle about the middle that holds nearly all of it.
    criterion : dict of str to float
        That of Schwarz for each source that was tried; the least is taken.
    gains : ndarray of float64, shape (antenna,)
        Logarithms of the amplitudes of antennas, as fitted.
    """

    name: str
    numbers: dict[str, float]
    extent_rad: float
    criterion: dict[str, float]
    gains: Floats
    _seen: Callable[[Floats, Floats], Complex]

    def __call__(self, u: Floats, v: Floats) -> Complex:
        """Return visibilities for u and v in wavelengths."""
        return self._seen(u, v)


def choose_start(closures: Closures) -> Start:
    """Return the simplest source that fits.

    Parameters
    ----------
    closures : Closures
        Amplitudes and closure phases.
    """
    fits = [_fit(closures, shape) for shape in _SHAPES]
    # errors may be larger than said, by as much as the best of all fits is bad
    scale = max(1.0, min(fit.cost for fit in fits) / closures.count)
    points = log(closures.count)
    values = {
        fit.shape.name: fit.cost / scale + fit.shape.count * points for fit in fits
    }
    best = min(fits, key=lambda fit: values[fit.shape.name])
    flux = float(np.exp(best.numbers[0]))
    shape, rest, fringe = best.shape, best.numbers[1:], closures.fringe_rad

    def seen(u: Floats, v: Floats) -> Complex:
        return flux * shape.seen(rest, u * fringe, v * fringe)

    return Start(
        name=shape.name,
        numbers={"flux": flux, **shape.told(rest, fringe)},
        extent_rad=shape.extent(rest) * fringe,
        criterion=values,
        gains=best.gains,
        _seen=seen,
    )


@dataclass(frozen=True)
class _Shape:
    """A kind of source: visibilities from numbers and u, v in longest baselines."""

    name: str
    count: int
    seen: Seen
    starts: Callable[[], Iterable[tuple[float, ...]]]
    extent: Callable[[Floats], float]
    told: Callable[[Floats, float], dict[str, float]]


@dataclass(frozen=True, eq=False)
class _Fit:
    shape: _Shape
    numbers: Floats
    gains: Floats
    cost: float


def _fit(closures: Closures, shape: _Shape) -> _Fit:
    """Return the numbers of a kind of source that fit best."""
    fringe = closures.fringe_rad
    u, v = closures.u * fringe, closures.v * fringe
    amplitude, error = closures.amplitude, closures.amplitude_error
    first, second = closures.first, closures.second
    antennas, weight = closures.antennas, 1 / error**2
    # many antennas have many baselines, in which their errors are lost
    free = antennas if antennas <= MOST_ANTENNAS else 0
    fixed = np.zeros(antennas - free)

    def residuals(numbers: Floats) -> Floats:
        rest, gains = np.split(numbers[1:], [len(numbers) - 1 - free])
        gains = np.concatenate([gains, fixed])
        seen = np.exp(min(numbers[0], 50.0)) * shape.seen(rest, u, v)
        known = np.abs(seen) * np.exp(gains[first] + gains[second])
        return np.concatenate(
            [
                (amplitude - known) / error,
                closures.phase_residuals(seen),
                gains / GAIN_ERROR,
            ]
        )

    baselines = np.arange(len(u))

    def slopes(numbers: Floats) -> Floats:
        """Return how residuals change: that of gains and flux is known."""
        now = residuals(numbers)
        slope = np.zeros((len(now), len(numbers)))
        slope[baselines, 0] = now[baselines] - amplitude / error
        for n in range(1, len(numbers) - free):
            moved = numbers.copy()
            moved[n] += _STEP
            slope[:, n] = (residuals(moved) - now) / _STEP
        if free:
            for ends in (first, second):
                slope[baselines, ends - free] += slope[baselines, 0]
            slope[-free:, -free:] = np.eye(free) / GAIN_ERROR
        return slope

    begun = []
    for start in shape.starts():
        size = np.abs(shape.seen(np.array(start), u, v))
        flux = (weight * size * amplitude).sum() / (weight * size * size).sum()
        numbers = np.array([np.log(max(flux, 1e-30)), *start, *np.zeros(free)])
        cost = 2 * (np.sqrt(1 + residuals(numbers) ** 2) - 1).sum()
        begun.append((cost, numbers))
    begun.sort(key=lambda one: one[0])
    found = [
        least_squares(
            residuals,
            numbers,
            jac=slopes,
            loss="soft_l1",
            ftol=_TOLERANCE,
            xtol=_TOLERANCE,
            max_nfev=60,
        )
        for _, numbers in begun[:_REFINED]
    ]
    best = min(found, key=lambda one: one.cost)
    numbers, gains = np.split(best.x, [len(best.x) - free])
    return _Fit(shape, numbers, np.concatenate([gains, fixed]), 2 * best.cost)


def _size(logarithm: float) -> float:
    return float(np.exp(np.clip(logarithm, _SMALLEST, _LARGEST)))


def _smoothed(width: float, u: Floats, v: Floats) -> Floats:
    """Return the visibilities of a Gaussian with a full width at half maximum."""
    return np.asarray(np.exp(-((pi * width) ** 2) * (u * u + v * v) / _LN2_4))


def _point(_: Floats, u: Floats, v: Floats) -> Complex:
    return np.ones(np.broadcast_shapes(u.shape, v.shape), dtype=np.complex128)


def _gaussian(n: Floats, u: Floats, v: Floats) -> Complex:
    return _smoothed(_size(n[0]), u, v).astype(np.complex128)


def _ellipse(n: Floats, u: Floats, v: Floats) -> Complex:
    c, s = np.cos(n[2]), np.sin(n[2])
    along, across = u * s + v * c, u * c - v * s
    seen = _smoothed(1.0, along * _size(n[0]), across * _size(n[1]))
    return seen.astype(np.complex128)


def _disk(n: Floats, u: Floats, v: Floats) -> Complex:
    x = np.maximum(pi * _size(n[0]) * np.hypot(u, v), 1e-9)
    return np.asarray(2 * j1(x) / x, dtype=np.complex128)


def _ring(n: Floats, u: Floats, v: Floats) -> Complex:
    x = pi * _size(n[0]) * np.hypot(u, v)
    return np.asarray(j0(x) * _smoothed(_size(n[1]), u, v), dtype=np.complex128)


def _crescent(n: Floats, u: Floats, v: Floats) -> Complex:
    q = np.hypot(u, v)
    x = pi * _size(n[0]) * q
    north, east = _slope(n)
    turned = (u * east + v * north) / np.maximum(q, 1e-12)
    ring = j0(x) + 1j * turned * j1(x)
    return np.asarray(ring * _smoothed(_size(n[1]), u, v))


def _slope(n: Floats) -> Floats:
    """Return the gradient to the north and to the east, of less than one."""
    slope = np.asarray(n[2:4])
    return np.asarray(slope / np.sqrt(1 + (slope**2).sum()))


def _double(n: Floats, u: Floats, v: Floats) -> Complex:
    east, north, ratio = n[0], n[1], _size(n[2])
    half = 1j * pi * (u * east + v * north)
    both = (np.exp(-half) + ratio * np.exp(half)) / (1 + ratio)
    return np.asarray(both * _smoothed(_size(n[3]), u, v))


def _rings() -> list[tuple[float, ...]]:
    return [(log(d), log(d * w)) for d in _SIZES for w in _WIDTHS]


def _crescents() -> list[tuple[float, ...]]:
    return [(*ring, *slope) for ring in _rings() for slope in _SLOPES]


def _doubles() -> list[tuple[float, ...]]:
    places = np.arange(-_FARTHEST, _FARTHEST + 0.1, 0.5).tolist()
    return [
        (east, north, log(ratio), log(0.3))
        for east in places
        for north in places
        for ratio in _RATIOS
        if (east > 0 or (east == 0 and north > 0)) and hypot(east, north) <= _FARTHEST
    ]


def _widths(n: Floats, fringe: float) -> dict[str, float]:
    return {"diameter_rad": _size(n[0]) * fringe, "width_rad": _size(n[1]) * fringe}


def _told_crescent(n: Floats, fringe: float) -> dict[str, float]:
    north, east = _slope(n)
    return {
        **_widths(n, fringe),
        "asymmetry": float(np.hypot(north, east)),
        "angle_rad": float(np.arctan2(east, north)),
    }


def _told_double(n: Floats, fringe: float) -> dict[str, float]:
    """Return where the second of the two is, seen from the first."""
    return {
        "distance_rad": float(np.hypot(n[0], n[1])) * fringe,
        "angle_rad": float(np.arctan2(n[0], n[1])),
        "ratio": _size(n[2]),
        "width_rad": _size(n[3]) * fringe,
    }


_SHAPES = (
    _Shape("point", 1, _point, lambda: [()], lambda n: 0.0, lambda n, f: {}),
    _Shape(
        "gaussian",
        2,
        _gaussian,
        lambda: [(log(d),) for d in _SIZES],
        lambda n: 2 * _size(n[0]),
        lambda n, f: {"width_rad": _size(n[0]) * f},
    ),
    _Shape(
        "ellipse",
        4,
        _ellipse,
        lambda: [
            (log(d), log(d * r), a)
            for d in _SIZES
            for r in _WIDTHS
            for a in np.arange(0, 6) * pi / 6
        ],
        lambda n: 2 * max(_size(n[0]), _size(n[1])),
        lambda n, f: {
            "major_rad": _size(n[0]) * f,
            "minor_rad": _size(n[1]) * f,
            "angle_rad": float(n[2]),
        },
    ),
    _Shape(
        "disk",
        2,
        _disk,
        lambda: [(log(d),) for d in _SIZES],
        lambda n: _size(n[0]),
        lambda n, f: {"diameter_rad": _size(n[0]) * f},
    ),
    _Shape("ring", 3, _ring, _rings, lambda n: _size(n[0]) + _size(n[1]), _widths),
    _Shape(
        "double",
        5,
        _double,
        _doubles,
        lambda n: float(np.hypot(n[0], n[1])) + 2 * _size(n[3]),
        _told_double,
    ),
    _Shape(
        "crescent",
        5,
        _crescent,
        _crescents,
        lambda n: _size(n[0]) + _size(n[1]),
        _told_crescent,
    ),
)
