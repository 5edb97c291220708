"""Delays and fringes that the hardware has not taken away."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.array import CHANNEL_WIDTH_HZ, CHANNELS
from muser_pipeline.calibration.kernels import turn_baselines
from muser_pipeline.calibration.static import static_delays_ns
from muser_pipeline.errors import FrameValueError
from muser_pipeline.raw import SWITCHED_OFF, SWITCHED_ON, Frames
from muser_pipeline.raw.kernels import compiled

_IF_LOW_EDGE_HZ = 50e6
_CENTRE_HZ = CHANNEL_WIDTH_HZ / 2
_WITHIN_CHANNEL_HZ = {"sun": _CENTRE_HZ, "satellite": 2.5e6}
"""Where in a channel of MUSER-I the signal is; at its low edge for other targets."""
_SOME = 16
"""Frames that are turned at a time, so that what is computed stays in the cache."""

Target = Literal["sun", "satellite", "swan", "other"]


def correct_delays(
    frames: Frames,
    *,
    static_ns: NDArray[np.float64] | None = None,
    target: Target | None = None,
) -> Frames:
    """Return frames with delays and fringes taken away where the hardware did not.

    With D the delay of a frame minus the static delay of the input, T(D) its whole
    nanoseconds (rounded towards zero), F the sky frequency and G the intermediate
    frequency of the channel::

        MUSER-I    V'_ij = V_ij exp(-2 pi i (F (D_j - D_i) - G (T(D_j) - T(D_i))))
        MUSER-II   V'_ij = V_ij exp(-2 pi i (F (D_j - D_i) + G (T(D_j) - T(D_i))))

    where V_ij of MUSER-II is the conjugate of what was recorded (if the frames are not
    conjugated, the exponent has the other sign). G = 50 MHz + 25 MHz c + p in MUSER-I,
    where F rises with c, and 50 MHz + 25 MHz (15 - c) + p in MUSER-II, whose spectrum
    is inverted, for channel c in ascending order of F. The place p within a channel is
    12.5 MHz, and in MUSER-I 2.5 MHz for a satellite and 0 for other targets than the
    Sun; it is in F as well. The phases are those of antennas, so that each frame takes
    40 (60) times 16 exponentials.

    Source: the observatory's pipeline (museros, 2017) as described in public, tested.

    Parameters
    ----------
    frames : Frames
        With ``delay_ns`` as recorded.
    static_ns : ndarray, shape (input,), optional
        Static delays to subtract. By default those of MUSER-I at the time of the first
        frame, see `static_delays_ns`, and none for MUSER-II.
    target : str, optional
        What is observed; by default what the header says.

    Returns
    -------
    Frames
        Those whose header says that fringes run are turned, and their header then says
        that fringes are stopped. What cannot be corrected is flagged: baselines whose
        delay is NaN, and frames whose header says neither.
    """
    fringe = frames.header["fringe"]
    running = fringe == SWITCHED_OFF
    unknown = ~running & (fringe != SWITCHED_ON)
    if not running.any() and not unknown.any():
        return frames
    first, second = frames.describe().baseline_inputs()
    delays = _delays(frames, static_ns)
    turn = compiled(turn_baselines)
    visibilities = np.empty_like(frames.visibilities)
    visibilities[~running] = frames.visibilities[~running]
    flags = frames.flags.copy()
    flags[unknown] = True
    for start in range(0, len(frames), _SOME):
        some = start + np.flatnonzero(running[start : start + _SOME])
        if not some.size:
            continue
        known = np.isfinite(delays[some])
        turns = _antenna_turns(frames, some, np.where(known, delays[some], 0), target)
        phasors = np.empty(turns.shape, dtype=np.complex64)
        radians = (turns * (-2 * np.pi)).astype(np.float32)
        np.cos(radians, out=phasors.real)
        np.sin(radians, out=phasors.imag)
        turn(frames.visibilities, some, phasors, visibilities)
        if not known.all():
            lost = ~(known[:, first] & known[:, second])
            flags[some] |= lost[..., np.newaxis]
    return frames.replace(
        visibilities=visibilities,
        flags=flags,
        header={
            **frames.header,
            "fringe": np.where(running, SWITCHED_ON, fringe).astype(fringe.dtype),
        },
    )


def _delays(
    frames: Frames, static_ns: NDArray[np.float64] | None
) -> NDArray[np.float64]:
    """Return the delays to correct of all antennas; shape (n, antenna), ns."""
    inputs = frames.delay_ns.shape[1]
    if static_ns is None:
        static_ns = np.zeros(inputs)
        if frames.array == 1:
            static_ns = static_delays_ns(1, int(frames.time_utc_ns[0]))
    if static_ns.shape != (inputs,):
        raise FrameValueError(
            f"there are {inputs} inputs, but static delays of shape {static_ns.shape}"
        )
    delays: NDArray[np.float64] = frames.delay_ns - static_ns
    return delays[:, : frames.describe().antennas]


def _antenna_turns(
    frames: Frames,
    some: NDArray[np.int64],
    delays_ns: NDArray[np.float64],
    target: Target | None,
) -> NDArray[np.float64]:
    """Return the phases of antennas in turns, less whole ones; (n, antenna, 16)."""
    steps = np.arange(CHANNELS) * CHANNEL_WIDTH_HZ
    if frames.array == 1:
        targets = frames.target[some] if target is None else [target] * len(some)
        within = np.array([_WITHIN_CHANNEL_HZ.get(str(each), 0.0) for each in targets])
        sense = 1.0
    else:
        within = np.full(len(some), _CENTRE_HZ)
        steps = steps[::-1]
        sense = -1.0
    sky = frames.frequency_hz[some] - _CENTRE_HZ + within[:, np.newaxis]
    intermediate = _IF_LOW_EDGE_HZ + steps + within[:, np.newaxis]
    seconds = delays_ns[..., np.newaxis] * 1e-9
    whole = np.trunc(delays_ns)[..., np.newaxis] * 1e-9
    turns: NDArray[np.float64] = sky[:, np.newaxis] * seconds
    turns -= sense * intermediate[:, np.newaxis] * whole
    turns -= np.rint(turns)
    if frames.array == 2 and not frames.is_conjugated:
        turns *= -1
    return turns
