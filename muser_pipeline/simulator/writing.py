"""An observation written to an archive, with what goes wrong on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.array import BEIJING_OFFSET_NS, FRAME_PERIOD_NS
from muser_pipeline.raw import encode_frames
from muser_pipeline.simulator.observation import Observation, SkyModel

FRAMES_AT_A_TIME = 80
"""As many as are computed before they are written: 8 MB of MUSER-I, 16 of MUSER-II."""
_MINUTE_NS = 60 * 10**9


@dataclass(frozen=True)
class Damage:
    """What is lost on the way from the correlator to the archive.

    Attributes
    ----------
    lost_frames : float
        Probability of a frame to be lost.
    bit_errors : float
        Probability of a bit to be turned, anywhere in a frame.
    """

    lost_frames: float = 0.0
    bit_errors: float = 0.0


@dataclass(frozen=True)
class Simulated:
    """What was written.

    Attributes
    ----------
    files : tuple of Path
        The raw files, by time.
    frames : int
        How many frames are in them.
    lost_utc_ns : tuple of int
        Times of the frames that were lost.
    bit_errors : int
        How many bits were turned.
    """

    files: tuple[Path, ...]
    frames: int
    lost_utc_ns: tuple[int, ...]
    bit_errors: int


def simulate(
    observation: Observation,
    frames: int,
    directory: str | Path,
    *,
    seed: int = 0,
    damage: Damage | None = None,
) -> Simulated:
    """Write an observation as an archive of raw files, one for each minute in Beijing.

    Files are ``YYYYMMDD/MUSER-<1|2>/dat/YYYYMMDD-HHMM`` below the directory. Each one
    is written beside its place and renamed when it is whole.

    Parameters
    ----------
    observation : Observation
        What is observed.
    frames : int
        For how many frames of 3.125 ms.
    directory : str or Path
        Where the archive is made; files with the same names are replaced.
    seed : int, optional
        For noise and damage: the same one gives the same bytes.
    damage : Damage, optional
        Nothing is lost by default.

    Raises
    ------
    OSError
        When a file cannot be written; no half file is left.
    """
    damage = damage or Damage()
    noise, chance = (
        np.random.default_rng(each) for each in np.random.SeedSequence(seed).spawn(2)
    )
    is_lost = chance.random(frames) < damage.lost_frames
    numbers = np.arange(frames, dtype=np.int64)
    times = observation.start_utc_ns + numbers * FRAME_PERIOD_NS
    model = SkyModel(observation)
    files = []
    turned = 0
    minutes = (times + BEIJING_OFFSET_NS) // _MINUTE_NS
    for minute in np.unique(minutes):
        here = numbers[(minutes == minute) & ~is_lost]
        if not len(here):
            continue
        path = _path_of(Path(directory), observation.array, int(minute))
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.part")
        try:
            with beside.open("wb") as file:
                for some in _in_parts(here):
                    coded = encode_frames(observation.frames(some, noise, model))
                    turned += _turn_bits(coded, damage.bit_errors, chance)
                    file.write(coded.data)
            beside.replace(path)
        except BaseException:
            with suppress(OSError):
                beside.unlink()
            raise
        files.append(path)
    return Simulated(
        files=tuple(files),
        frames=int(np.count_nonzero(~is_lost)),
        lost_utc_ns=tuple(times[is_lost].tolist()),
        bit_errors=turned,
    )


def _in_parts(numbers: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(numbers), FRAMES_AT_A_TIME):
        yield numbers[start : start + FRAMES_AT_A_TIME]


def _path_of(directory: Path, array: int, minute: int) -> Path:
    """Return the place of a file, named after a minute since 1970 in Beijing."""
    written = str(np.datetime64(minute, "m"))
    date, time = written.replace("-", "").replace(":", "").split("T")
    return directory / date / f"MUSER-{array}" / "dat" / f"{date}-{time}"


def _turn_bits(
    coded: NDArray[np.uint8], probability: float, chance: np.random.Generator
) -> int:
    """Turn bits of frames at random, and return how many."""
    data = coded.reshape(-1)
    count = int(chance.binomial(8 * data.size, probability)) if probability else 0
    places = chance.choice(data.size, size=count, replace=False, shuffle=False)
    data[places] ^= (1 << chance.integers(0, 8, size=count)).astype(np.uint8)
    return count
