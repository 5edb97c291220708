"""What images are made of: the visibilities of one field."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from math import atan2, cos, sin
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.imaging.errors import ImagingError

_CROSSED = {"I": ("RR", "LL"), "V": ("RR", "LL")}
"""Hands of which the Stokes parameters are half the sum and half the difference."""
_LINEAR = {"I": ("XX", "YY")}


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The visibilities of one field.

    Attributes
    ----------
    uvw_m : ndarray of float64, shape (row, 3)
        Baselines in metres, u to the east, v to the north, w to the source, such that
        V = sum of S exp(+2 pi i (f / c) (u l + v m + w (n - 1))).
    frequency_hz : ndarray of float64, shape (channel,)
        Centres of the channels, in any order.
    data : ndarray of complex64, shape (hand, row, channel)
        Visibilities.
    weights : ndarray of float32, shape (hand, row, channel)
        Of the visibilities, proportional to 1 / variance; 0 for one that is not to be
        used.
    polarizations : tuple of str
        What the hands are: "RR", "LL", "RL", "LR", "XX", "YY", "XY", "YX", "I", "Q",
        "U" or "V".
    antenna1, antenna2 : ndarray of int64, shape (row,)
        Numbers of the antennas of each baseline.
    time_utc_ns : ndarray of int64, shape (row,)
        Since 1970.
    ra_rad, dec_rad : float
        The phase centre in the ICRS.
    unit : str
        Of the visibilities, "Jy" or "arbitrary".
    telescope, target, observer : str
        For headers.
    north_angle_rad : float
        Where v points to: from the north of the ICRS through east.
    """

    uvw_m: NDArray[np.float64]
    frequency_hz: NDArray[np.float64]
    data: NDArray[np.complex64]
    weights: NDArray[np.float32]
    polarizations: tuple[str, ...]
    antenna1: NDArray[np.int64]
    antenna2: NDArray[np.int64]
    time_utc_ns: NDArray[np.int64]
    ra_rad: float
    dec_rad: float
    unit: str = "Jy"
    telescope: str = ""
    target: str = ""
    observer: str = ""
    north_angle_rad: float = 0.0

    def __post_init__(self) -> None:
        shape = (len(self.polarizations), len(self.uvw_m), len(self.frequency_hz))
        rows = {len(self.antenna1), len(self.antenna2), len(self.time_utc_ns)}
        if (
            self.data.shape != shape
            or self.weights.shape != shape
            or rows != {len(self.uvw_m)}
        ):
            raise ValueError(
                f"data {self.data.shape}, weights {self.weights.shape} and antennas "
                f"{rows} do not belong to (hand, row, channel) = {shape}"
            )

    def replace(self, **changes: Any) -> Snapshot:
        """Return a snapshot with other values of some attributes."""
        return dataclasses.replace(self, **changes)

    def stokes(
        self, polarization: str
    ) -> tuple[NDArray[np.complex64], NDArray[np.float32]]:
        """Return the visibilities of a hand or a Stokes parameter, and their weights.

        I = (RR + LL) / 2 and V = (RR - LL) / 2; they need both hands, and have the
        weight that follows from the variances of both. Values that are not finite
        come back as 0 with weight 0.

        Parameters
        ----------
        polarization : str
            "I", "V", "RR", "LL" or another that is there.

        Returns
        -------
        data : ndarray of complex64, shape (row, channel)
        weights : ndarray of float32, shape (row, channel)

        Raises
        ------
        ImagingError
            When it can not be made of what there is; its reason is "polarization".
        """
        there = self.polarizations
        if polarization in there:
            at = there.index(polarization)
            return _clean(self.data[at], self.weights[at])
        for pairs in (_CROSSED, _LINEAR):
            pair = pairs.get(polarization, ())
            if pair and set(pair) <= set(there):
                first, second = (
                    _clean(self.data[at], self.weights[at])
                    for at in map(there.index, pair)
                )
                sign = np.float32(-0.5 if polarization == "V" else 0.5)
                return _combined(first, second, sign)
        raise ImagingError(
            "polarization",
            f"there is no {polarization} among {', '.join(there)}, and it can not be "
            "made of them",
        )

    def usable(self, polarization: str) -> int:
        """Return how many visibilities an image of a polarization would use."""
        return int(np.count_nonzero(self.stokes(polarization)[1]))

    def rotated(self, angle_rad: float) -> Snapshot:
        """Return the snapshot with v turned by an angle, through east.

        North of the image is then where the position angle was `angle_rad`; nothing
        is interpolated.
        """
        u, v, w = self.uvw_m.T
        c, s = cos(angle_rad), sin(angle_rad)
        turned = np.stack([u * c - v * s, v * c + u * s, w], axis=1)
        angle = self.north_angle_rad + angle_rad
        return self.replace(uvw_m=turned, north_angle_rad=angle)

    def shifted(self, east: float, north: float) -> Snapshot:
        """Return the snapshot with its phase centre moved.

        Baselines are turned to the new centre, so that it is exact over any distance.

        Parameters
        ----------
        east, north : float
            Where the new centre is: direction cosines l and m in the image.
        """
        turn = _turn_to(east, north)
        uvw = self.uvw_m @ turn.T
        metres = uvw[:, 2] - self.uvw_m[:, 2]
        cycles = metres[:, np.newaxis] * (self.frequency_hz / SPEED_OF_LIGHT_M_PER_S)
        factor = np.exp(-2j * np.pi * (cycles % 1.0)).astype(np.complex64)
        ra, dec, angle = _placed(self, turn)
        return self.replace(
            uvw_m=uvw,
            data=self.data * factor,
            ra_rad=ra,
            dec_rad=dec,
            north_angle_rad=angle,
        )


SPEED_OF_LIGHT_M_PER_S = 299_792_458.0


def check(snapshot: Snapshot, polarization: str) -> None:
    """Turn down a snapshot of which no image can be made.

    Raises
    ------
    ImagingError
        Its reason is "polarization", "not-finite" when nothing else was there,
        "flagged" when everything is, "zero" when all visibilities are, or
        "one-baseline".
    """
    data, weights = snapshot.stokes(polarization)
    used = weights > 0
    if not used.any():
        weighted = (snapshot.weights > 0).any(axis=0)
        if weighted.any() and not np.isfinite(snapshot.data[:, weighted]).all():
            raise ImagingError(
                "not-finite", f"no visibility of {polarization} is a finite number"
            )
        raise ImagingError(
            "flagged", f"all {used.size} visibilities of {polarization} are flagged"
        )
    if not data[used].any():
        raise ImagingError(
            "zero", f"all {used.sum()} visibilities of {polarization} are zero"
        )
    rows = used.any(axis=1)
    pairs = {
        frozenset(pair)
        for pair in zip(
            snapshot.antenna1[rows].tolist(),
            snapshot.antenna2[rows].tolist(),
            strict=True,
        )
    }
    if len(pairs) == 1:
        first, *second = sorted(*pairs)
        raise ImagingError(
            "one-baseline",
            f"all visibilities of {polarization} are of one baseline, of the antennas "
            f"{first} and {(second or [first])[0]}",
        )


def _clean(
    data: NDArray[np.complex64], weights: NDArray[np.float32]
) -> tuple[NDArray[np.complex64], NDArray[np.float32]]:
    """Return data and weights without what can not be used."""
    good = np.isfinite(data) & np.isfinite(weights) & (weights > 0)
    if good.all():
        return data, weights
    zero = np.float32(0)
    return np.where(good, data, np.complex64(0)), np.where(good, weights, zero)


def _combined(
    first: tuple[NDArray[np.complex64], NDArray[np.float32]],
    second: tuple[NDArray[np.complex64], NDArray[np.float32]],
    sign: np.float32,
) -> tuple[NDArray[np.complex64], NDArray[np.float32]]:
    """Return half of the first plus ``sign`` times the second, with its weights."""
    both = (first[1] > 0) & (second[1] > 0)
    data = np.float32(0.5) * first[0] + sign * second[0]
    total = first[1] + second[1]
    # 1 / weight is the variance, and that of half a sum is a quarter of both
    part = np.divide(4 * second[1], total, out=np.zeros_like(total), where=both)
    return np.where(both, data, np.complex64(0)), first[1] * part


def _turn_to(east: float, north: float) -> NDArray[np.float64]:
    """Return the matrix that turns u, v, w to another direction by the shortest way."""
    square = east**2 + north**2
    if not square < 1:
        raise ImagingError("grid", f"l = {east}, m = {north} is not on the sky")
    height = (1.0 - square) ** 0.5
    part = 1.0 / (1.0 + height)
    return np.array(
        [
            [1.0 - east * east * part, -east * north * part, -east],
            [-east * north * part, 1.0 - north * north * part, -north],
            [east, north, height],
        ]
    )


def _placed(
    snapshot: Snapshot, turn: NDArray[np.float64]
) -> tuple[float, float, float]:
    """Return right ascension, declination and the angle of v after a turn."""
    old = _axes(snapshot.ra_rad, snapshot.dec_rad)
    c, s = cos(snapshot.north_angle_rad), sin(snapshot.north_angle_rad)
    mine = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]) @ old
    new = turn @ mine
    x, y, z = new[2]
    ra = atan2(y, x) % (2 * np.pi)
    dec = atan2(z, (x * x + y * y) ** 0.5)
    celestial = _axes(ra, dec)
    angle = atan2(float(new[1] @ celestial[0]), float(new[1] @ celestial[1]))
    return ra, dec, angle


def _axes(ra_rad: float, dec_rad: float) -> NDArray[np.float64]:
    """Return unit vectors to the east, to the north and to a place on the sky."""
    c, s = cos(dec_rad), sin(dec_rad)
    a, b = cos(ra_rad), sin(ra_rad)
    return np.array([[-b, a, 0.0], [-s * a, -s * b, c], [c * a, c * b, s]])
