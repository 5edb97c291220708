"""What the array does to the waves: gains, delays, noise, dead antennas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.array import CHANNEL_WIDTH_HZ, FRAME_PERIOD_NS, Array
from muser_pipeline.errors import FrameValueError

_BOLTZMANN_J_PER_K = 1.380649e-23
_SFU_W = 1e-22
_SAMPLES = CHANNEL_WIDTH_HZ * FRAME_PERIOD_NS * 1e-9
"""Bandwidth times time of a visibility."""


@dataclass(frozen=True, eq=False)
class Instrument:
    """An array with its faults.

    Attributes
    ----------
    gains : ndarray of complex128, shape (2, antenna)
        Of the left and the right hand. A baseline is multiplied by conj(g_i) g_j.
    delay_errors_ns : ndarray of float64, shape (antenna,)
        Delays that the frames say nothing of; a baseline turns by
        exp(2 pi i f (e_j - e_i)).
    static_delays_ns : ndarray of float64, shape (input,)
        Cable delays, whole nanoseconds; they are in the delays of the frames.
    dead : tuple of int
        Inputs from which nothing comes, not even noise.
    system_temperature_k : float
        Of a receiver that looks at cold sky; 0 for no noise at all.
    aperture_efficiency : float
        Part of a dish that collects.
    units_per_sfu : float
        What the correlator makes of a solar flux unit.
    """

    gains: NDArray[np.complex128]
    delay_errors_ns: NDArray[np.float64]
    static_delays_ns: NDArray[np.float64]
    dead: tuple[int, ...] = ()
    system_temperature_k: float = 0.0
    aperture_efficiency: float = 0.5
    units_per_sfu: float = 1000.0

    @classmethod
    def perfect(cls, array: Array, system_temperature_k: float = 0.0) -> Instrument:
        """Return an array whose gains are 1 and whose delays are 0."""
        return cls(
            gains=np.ones((2, array.antennas), dtype=np.complex128),
            delay_errors_ns=np.zeros(array.antennas),
            static_delays_ns=np.zeros(array.inputs),
            system_temperature_k=system_temperature_k,
        )

    @classmethod
    def random(
        cls,
        array: Array,
        rng: np.random.Generator,
        *,
        gain_scatter: float = 0.0,
        phase_scatter_deg: float = 0.0,
        delay_scatter_ns: float = 0.0,
        static_delays_ns: NDArray[np.float64] | None = None,
        dead: tuple[int, ...] = (),
        system_temperature_k: float = 0.0,
    ) -> Instrument:
        """Return an array with faults by chance.

        Parameters
        ----------
        array : Array
            Which one.
        rng : numpy.random.Generator
            Where chance comes from.
        gain_scatter : float, optional
            Standard deviation of the logarithms of gains.
        phase_scatter_deg, delay_scatter_ns : float, optional
            Standard deviations of the phases of gains and of delay errors.
        static_delays_ns, dead, system_temperature_k : optional
            As they stand.

        Raises
        ------
        FrameValueError
            When a dead input has no antenna.
        """
        strangers = [each for each in dead if not 0 <= each < array.antennas]
        if strangers:
            raise FrameValueError(
                f"{array.name} has no antenna at input {strangers[0]}: inputs with "
                f"antennas are 0 to {array.antennas - 1}"
            )
        shape = (2, array.antennas)
        logarithms = gain_scatter * rng.standard_normal(shape)
        phases = np.radians(phase_scatter_deg) * rng.standard_normal(shape)
        errors = delay_scatter_ns * rng.standard_normal(array.antennas)
        if static_delays_ns is None:
            static_delays_ns = np.zeros(array.inputs)
        return cls(
            gains=np.exp(logarithms + 1j * phases),
            delay_errors_ns=errors,
            static_delays_ns=static_delays_ns,
            dead=dead,
            system_temperature_k=system_temperature_k,
        )

    def response(
        self, array: Array, frequency_hz: NDArray[np.float64]
    ) -> NDArray[np.complex128]:
        """Return gains with delay errors, 0 for dead antennas.

        Parameters
        ----------
        array : Array
            Which one.
        frequency_hz : ndarray, shape (channel,)
            Sky frequencies.

        Returns
        -------
        ndarray of complex128, shape (2, antenna, channel)
        """
        turns = self.delay_errors_ns[:, np.newaxis] * 1e-9 * frequency_hz
        response = self.gains[..., np.newaxis] * np.exp(2j * np.pi * turns)
        response[:, list(self.dead)] = 0
        return np.asarray(response)

    def system_flux_sfu(self, array: Array) -> float:
        """Return the flux density that doubles the power of a receiver, in sfu.

        2 k T / (efficiency pi (d / 2)^2), for one hand of a source's Stokes I.
        """
        dish = self.aperture_efficiency * np.pi * array.dish_diameter_m**2 / 4
        return float(2 * _BOLTZMANN_J_PER_K * self.system_temperature_k / dish / _SFU_W)

    def noise_sfu(self, power_sfu: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the noise in a visibility of two antennas of equal power.

        The radiometer equation: standard deviation of the real and of the imaginary
        part, power / sqrt(2 bandwidth time). Without a system temperature there is
        none.

        Parameters
        ----------
        power_sfu : ndarray
            System and source together.
        """
        if self.system_temperature_k == 0:
            return np.zeros_like(power_sfu)
        return np.asarray(power_sfu / np.sqrt(2 * _SAMPLES))
