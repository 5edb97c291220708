"""A sky seen through an instrument: frames for any times that are asked for.

Signs and geometry are those of `muser_pipeline.geometry`: with u, v, w of a baseline
from antenna i to antenna j,

    V_ij = sum over sources of S exp(+2 pi i (f / c) (u l + v m + w (n - 1)))

Where the hardware does not stop the fringes, the delays D of a frame are those of the
waves, w_k / c and a constant, with the static ones; a baseline then turns by
exp(+2 pi i (F (D_j - D_i) -+ G (T(D_j) - T(D_i)))), which the correction takes away.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.array import (
    CHANNEL_WIDTH_HZ,
    CHANNELS,
    FRAME_PERIOD_NS,
    SPEED_OF_LIGHT_M_PER_S,
    Array,
    load_array,
)
from muser_pipeline.errors import FrameValueError
from muser_pipeline.geometry import (
    Source,
    Sun,
    Track,
    antenna_uvw_m,
    follow,
    heliographic,
)
from muser_pipeline.raw import Frames, make_frames, make_header
from muser_pipeline.raw.format import FORMATS
from muser_pipeline.simulator.disk import QuietSun
from muser_pipeline.simulator.instrument import Instrument
from muser_pipeline.simulator.sky import ARCSEC_RAD, Sky

DELAY_OFFSET_NS = 14_000
"""Added to all delays, so that none of 3.3 km to either side is negative."""
_IF_LOW_EDGE_HZ = 50e6
_PLACE_IN_CHANNEL_HZ = {"sun": 12.5e6, "satellite": 2.5e6}
"""Of MUSER-I: which frequency of a channel its delays are corrected for; the low edge
for other targets."""
_HANDS = ("LL", "RR")


@dataclass(frozen=True, eq=False)
class Observation:
    """What is observed, with what, and how.

    Attributes
    ----------
    array : int
        1 or 2.
    sky : Sky
        What is there.
    instrument : Instrument
        What it is seen through.
    start_utc_ns : int
        When it begins: the time of the first frame, a multiple of 20 ns.
    mode : {"loop", "fixed"}
        Through all bands and hands, or always the same.
    band, polarization : int, str
        In a fixed band.
    layout : {"old", "new"}
        Of the frames.
    fringes_stopped : bool
        The hardware takes away the delays.
    update_ns : int
        Visibilities of the sky are computed anew after so long, for the middle of it.
    source : Source
        What the array is pointed at; the Sun unless it is to be a calibrator.
    target : str
        What headers say of it.
    """

    array: int
    sky: Sky
    instrument: Instrument
    start_utc_ns: int
    mode: Literal["loop", "fixed"] = "loop"
    band: int = 0
    polarization: str = "LL"
    layout: Literal["old", "new"] = "new"
    fringes_stopped: bool = True
    update_ns: int = 10**9
    source: Source = field(default_factory=Sun)
    target: str = "sun"

    def codes(self, number: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return 2 band + hand of frames, shape (n,), given their numbers from 0."""
        if self.mode == "loop":
            return np.asarray(number % self._described.frames_per_loop)
        code = 2 * self.band + _HANDS.index(self.polarization)
        return np.full(len(number), code, dtype=np.int64)

    def frames(
        self, number: NDArray[np.int64], rng: np.random.Generator, model: SkyModel
    ) -> Frames:
        """Return frames.

        Parameters
        ----------
        number : ndarray of int64, shape (n,)
            From 0 at the beginning, one each 3.125 ms.
        rng : numpy.random.Generator
            Where the noise comes from.
        model : SkyModel
            Visibilities of this observation's sky.

        Raises
        ------
        FrameValueError
            When a visibility has no place in 24 bits.
        """
        array = self._described
        times = self.start_utc_ns + number * FRAME_PERIOD_NS
        codes = self.codes(number)
        slots = (times - self.start_utc_ns) // self.update_ns
        n = len(number)
        values = np.empty((n, array.baselines, CHANNELS), dtype=np.complex64)
        autos = np.zeros((n, CHANNELS, array.inputs))
        for slot in np.unique(slots):
            for code in np.unique(codes[slots == slot]):
                seen = model.seen(int(slot), int(code))
                which = np.flatnonzero((slots == slot) & (codes == code))
                self._fill(values, autos, which, seen, rng)
        track = follow(self.source, times, array.site)
        delays = self._delays_ns(track)
        if not self.fringes_stopped:
            self._let_fringes_run(values, delays, codes // 2)
        header = make_header(
            self.array,
            codes // 2,
            np.array(_HANDS)[codes % 2],
            mode=self.mode,
            layout=self.layout,
            target=self.target,
            fringes_stopped=self.fringes_stopped,
        )
        return make_frames(
            self.array,
            times,
            codes // 2,
            np.array(_HANDS)[codes % 2],
            values,
            autocorrelations=np.clip(np.rint(autos), 0, (1 << 32) - 1),
            delay_ns=delays,
            header=header,
            layout=self.layout,
        )

    @property
    def _described(self) -> Array:
        return load_array(self.array)

    def _fill(
        self,
        values: NDArray[np.complex64],
        autos: NDArray[np.float64],
        which: NDArray[np.int64],
        seen: Seen,
        rng: np.random.Generator,
    ) -> None:
        """Fill in the frames of one band and hand, with noise of their own."""
        units = self.instrument.units_per_sfu
        largest = float(np.max(np.abs(seen.values), initial=0.0)) * units
        if largest >= 1 << 23:
            raise FrameValueError(
                f"a visibility of {largest / units:.0f} sfu has no place in 24 bits: "
                f"units_per_sfu is too large at {units:g}"
            )
        shape = (len(which), *seen.values.shape)
        if self.instrument.system_temperature_k:
            noise = rng.standard_normal((*shape, 2), dtype=np.float32)
            noise *= (seen.noise * units).astype(np.float32)[..., np.newaxis]
            values[which] = noise.view(np.complex64)[..., 0]
            values[which] += (seen.values * units).astype(np.complex64)
        else:
            values[which] = seen.values * units
        antennas = seen.power.shape[1]
        power = seen.power * units
        spread = self.instrument.noise_sfu(power) * np.sqrt(2)
        noise_of_power = rng.standard_normal((len(which), *power.shape))
        autos[which, :, :antennas] = power + spread * noise_of_power

    def _delays_ns(self, track: Track) -> NDArray[np.float64]:
        """Return the delays of all inputs as frames say them; shape (n, input)."""
        array = self._described
        antennas = antenna_uvw_m(track, array.positions_geocentric_m())
        delays = np.zeros((len(antennas), array.inputs))
        towards = antennas[:, :, 2] / SPEED_OF_LIGHT_M_PER_S * 1e9
        delays[:, : array.antennas] = towards + DELAY_OFFSET_NS
        delays += self.instrument.static_delays_ns
        fractions = FORMATS[self.array].delay_fractions
        return np.asarray(np.rint(np.maximum(delays, 0) * fractions) / fractions)

    def _let_fringes_run(
        self,
        values: NDArray[np.complex64],
        delays_ns: NDArray[np.float64],
        band: NDArray[np.int64],
    ) -> None:
        array = self._described
        told = delays_ns - self.instrument.static_delays_ns
        seconds = told[:, : array.antennas, np.newaxis] * 1e-9
        whole = np.trunc(told)[:, : array.antennas, np.newaxis] * 1e-9
        place = CHANNEL_WIDTH_HZ / 2
        if self.array == 1:
            place = _PLACE_IN_CHANNEL_HZ.get(self.target, 0.0)
        sky = array.channel_centres_hz(band) - CHANNEL_WIDTH_HZ / 2 + place
        steps = np.arange(CHANNELS) * CHANNEL_WIDTH_HZ
        sense = -1.0
        if self.array == 2:
            steps, sense = steps[::-1], 1.0
        intermediate = _IF_LOW_EDGE_HZ + place + steps
        turns = sky[:, np.newaxis] * seconds + sense * intermediate * whole
        phasors = np.exp(2j * np.pi * (turns % 1.0)).astype(np.complex64)
        first, second = array.baseline_inputs()
        for n, phasor in enumerate(phasors):
            values[n] *= phasor[second] * phasor[first].conj()

    def sky_frequency_hz(self, band: int) -> NDArray[np.float64]:
        """Return where in its channels the sky is seen, shape (16,).

        In the middle, but for the beacon of a satellite in MUSER-I.
        """
        centres = self._described.channel_centres_hz(band)
        if self.array == 1 and self.target == "satellite":
            return centres - CHANNEL_WIDTH_HZ / 2 + _PLACE_IN_CHANNEL_HZ[self.target]
        return centres


@dataclass(frozen=True, eq=False)
class Seen:
    """What one band and hand sees for a while, in sfu.

    Attributes
    ----------
    values : ndarray of complex128, shape (baseline, 16)
        Visibilities, gains included.
    noise : ndarray of float64, shape (baseline, 16)
        Standard deviation of real and imaginary parts.
    power : ndarray of float64, shape (16, antenna)
        Of the receivers.
    """

    values: NDArray[np.complex128]
    noise: NDArray[np.float64]
    power: NDArray[np.float64]


class SkyModel:
    """Visibilities of an observation, computed when they are first needed.

    Only those of the latest time are kept.
    """

    def __init__(self, observation: Observation) -> None:
        self._observation = observation
        self._disks: dict[int, QuietSun] = {}
        self._slot = -1
        self._seen: dict[int, Seen] = {}
        self._uvw = np.zeros((0, 3))
        self._p_rad = 0.0
        self._radius_rad = 0.0

    def seen(self, slot: int, code: int) -> Seen:
        """Return what is seen in one interval.

        Parameters
        ----------
        slot : int
            Number of the interval, each ``update_ns`` long.
        code : int
            2 band + hand.
        """
        if slot != self._slot:
            self._begin(slot)
        if code not in self._seen:
            for hand, seen in enumerate(self._look(slot, code // 2)):
                self._seen[code // 2 * 2 + hand] = seen
        return self._seen[code]

    def _begin(self, slot: int) -> None:
        observation = self._observation
        middle = (slot * 2 + 1) * observation.update_ns // 2
        time = np.array([observation.start_utc_ns + middle])
        array = load_array(observation.array)
        track = follow(observation.source, time, array.site)
        antennas = antenna_uvw_m(track, array.positions_geocentric_m())[0]
        first, second = array.baseline_inputs()
        self._uvw = antennas[second] - antennas[first]
        self._p_rad = self._radius_rad = 0.0
        if isinstance(observation.source, Sun):
            sun = heliographic(track)
            self._p_rad = float(np.radians(sun.p_deg[0]))
            self._radius_rad = float(sun.radius_arcsec[0]) * ARCSEC_RAD
        self._slot, self._seen = slot, {}

    def _look(self, slot: int, band: int) -> tuple[Seen, Seen]:
        """Return what the left and the right hand see in a band."""
        observation = self._observation
        frequency = observation.sky_frequency_hz(band)
        scale = frequency / SPEED_OF_LIGHT_M_PER_S
        u, v, w = (self._uvw[:, axis, np.newaxis] * scale for axis in range(3))
        seconds = (slot + 0.5) * observation.update_ns * 1e-9
        of_hands = np.zeros((2, *u.shape), dtype=np.complex128)
        total = np.zeros((2, CHANNELS))
        for source in observation.sky.sources:
            east, north = source.direction(seconds, self._p_rad)
            below = np.sqrt(1 - east**2 - north**2) - 1
            turns = u * east + v * north + w * below
            flux = source.flux_at(frequency)
            shape = source.taper(u, v, self._p_rad) * np.exp(2j * np.pi * turns)
            for hand, sign in enumerate((-1, 1)):
                share = flux * (1 + sign * source.polarization)
                of_hands[hand] += share * shape
                total[hand] += share
        if observation.sky.sun:
            if band not in self._disks:
                self._disks[band] = QuietSun.at(frequency)
            disk = self._disks[band]
            lengths = np.hypot(u, v)
            of_hands += observation.sky.sun * disk.flux_sfu(lengths, self._radius_rad)
            centre = disk.flux_sfu(np.zeros((1, CHANNELS)), self._radius_rad)
            total += observation.sky.sun * centre
        left, right = self._through(of_hands, total, frequency)
        return left, right

    def _through(
        self,
        of_hands: NDArray[np.complex128],
        total_sfu: NDArray[np.float64],
        frequency_hz: NDArray[np.float64],
    ) -> list[Seen]:
        instrument = self._observation.instrument
        array = load_array(self._observation.array)
        first, second = array.baseline_inputs()
        system = instrument.system_flux_sfu(array)
        seen = []
        for hand, response in enumerate(instrument.response(array, frequency_hz)):
            power = np.abs(response) ** 2 * (total_sfu[hand] + system)
            mutual = np.sqrt(power[first] * power[second])
            seen.append(
                Seen(
                    values=of_hands[hand] * response[first].conj() * response[second],
                    noise=instrument.noise_sfu(mutual),
                    power=power.T,
                )
            )
        return seen
