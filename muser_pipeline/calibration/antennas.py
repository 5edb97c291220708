"""Gains of antennas from a table of baselines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.array import load_array
from muser_pipeline.calibration.tables import CalibrationTable

_ROUNDS = 500
_CLOSE = 1e-7


@dataclass(frozen=True, eq=False)
class AntennaGains:
    """Complex gains: what antennas and electronics do to a source of flux 1.

    Attributes
    ----------
    array : int
        1 or 2.
    gains : ndarray of complex128, shape (band, 2, antenna, 16)
        A baseline has the value conj(g_i) g_j. The first antenna of each band, hand and
        channel that has a gain has the phase 0. NaN where there is none.
    residual : ndarray of float64, shape (band, 2, 16)
        Root mean square of what baselines differ from the product of gains, in units
        of the root mean square of these products: closure errors and noise. NaN where
        there are no gains.
    source : CalibrationTable
        What they were found from.
    """

    array: int
    gains: NDArray[np.complex128]
    residual: NDArray[np.float64]
    source: CalibrationTable

    def table(self) -> CalibrationTable:
        """Return the table of all baselines between antennas that have gains.

        Its values are better than those that the gains were found from, by about the
        square root of the number of antennas, and there are more of them.
        """
        first, second = load_array(self.array).baseline_inputs()
        values = self.gains[:, :, first].conj() * self.gains[:, :, second]
        return CalibrationTable(
            self.array,
            values,
            source=self.source.source,
            time_utc_ns=self.source.time_utc_ns,
            is_delay_corrected=self.source.is_delay_corrected,
        )


def solve_antennas(table: CalibrationTable) -> AntennaGains:
    """Return the gains of antennas that fit a table best.

    For each band, hand and channel the sum of |C_ij - conj(g_i) g_j|^2 over the known
    baselines is made small by alternating least squares: each gain from all others,
    with every second round halved,

        h_i <- sum_j C_ij h_j / sum_j |h_j|^2,    h = conj(g), C_ji = conj(C_ij)

    until no gain changes by more than 1e-7 of the largest. An antenna needs two
    baselines, so that there are more values than unknowns.

    Source: Salvini and Wijnholds 2014, Fast gain calibration in radio astronomy using
    alternating direction implicit methods (StEFCal), A&A 571, A97.
    """
    array = load_array(table.array)
    first, second = array.baseline_inputs()
    bands, hands, _, channels = table.values.shape
    problems = bands * hands * channels
    known = _by_problem(table.is_known)
    values = np.where(known, _by_problem(table.values), 0)
    matrix = np.zeros((problems, array.antennas, array.antennas), dtype=np.complex128)
    weight = np.zeros(matrix.shape)
    matrix[:, first, second] = values
    matrix[:, second, first] = values.conj()
    weight[:, first, second] = known
    weight[:, second, first] = known
    has_gain = weight.sum(axis=2) >= 2
    weight *= has_gain[:, np.newaxis] & has_gain[:, :, np.newaxis]
    matrix *= weight
    gains = _alternate(matrix, weight, has_gain)
    fitted = gains[:, :, np.newaxis] * gains.conj()[:, np.newaxis]
    count = weight.sum(axis=(1, 2))
    with np.errstate(invalid="ignore"):
        off = (np.abs(matrix - fitted) ** 2 * weight).sum(axis=(1, 2)) / count
        size = (np.abs(fitted) ** 2 * weight).sum(axis=(1, 2)) / count
        residual = np.sqrt(off / size)
    gains = np.where(has_gain, gains.conj(), np.nan)
    shape = (bands, hands, channels)
    return AntennaGains(
        array=table.array,
        gains=np.moveaxis(gains.reshape(*shape, array.antennas), -1, 2),
        residual=residual.reshape(shape),
        source=table,
    )


def _alternate(
    matrix: NDArray[np.complex128],
    weight: NDArray[np.float64],
    has_gain: NDArray[np.bool_],
) -> NDArray[np.complex128]:
    """Return h with matrix_ij = h_i conj(h_j), 0 where there is none."""
    count = np.maximum(weight.sum(axis=(1, 2)), 1)
    start = np.sqrt(np.abs(matrix).sum(axis=(1, 2)) / count)
    gains = np.where(has_gain, start[:, np.newaxis], 0).astype(np.complex128)
    for number in range(_ROUNDS):
        above = (matrix @ gains[..., np.newaxis])[..., 0]
        below = (weight @ (np.abs(gains) ** 2)[..., np.newaxis])[..., 0]
        new = np.divide(above, below, out=np.zeros_like(gains), where=below > 0)
        if number % 2:
            new = (new + gains) / 2
        change = np.abs(new - gains).max(axis=1)
        gains = new
        if (change <= _CLOSE * np.abs(gains).max(axis=1)).all():
            break
    reference = np.argmax(np.abs(gains) > 0, axis=1)
    phase = np.take_along_axis(gains, reference[:, np.newaxis], axis=1)
    size = np.abs(phase)
    unit = np.divide(phase, size, out=np.ones_like(phase), where=size > 0)
    turned: NDArray[np.complex128] = gains * unit.conj()
    return turned


def _by_problem(values: NDArray[Any]) -> NDArray[Any]:
    """Return (band, hand, baseline, channel) as (problem, baseline)."""
    moved = np.moveaxis(values, 2, -1)
    return moved.reshape(-1, values.shape[2])
