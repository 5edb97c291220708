"""What is asked for: which frames, what is done to them, and where the files go."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args

from muser_pipeline.array import load_array
from muser_pipeline.errors import MuserError, RequestError
from muser_pipeline.geometry import source_named
from muser_pipeline.integration import HANDS
from muser_pipeline.moments import parse_time
from muser_pipeline.raw.contents import Layout
from muser_pipeline.uvfits.files import Split

NEEDED = ("archive", "start", "end", "out")
BLOCK_NS = 200_000_000
"""64 frames: files of single frames, and of loops, are made of so many at a time."""


@dataclass(frozen=True)
class Request:
    """A range of time of an archive that is to become UVFITS files.

    Attributes
    ----------
    archive : Path
        A directory with raw files in it, however deep, or one raw file.
    start, end : int
        UTC in nanoseconds since 1970, the end not included.
    out : Path
        The directory of the files.
    array : int
        1 or 2; 0 for the one of which there are frames.
    bands : tuple of int
        Ascending; empty for all.
    polarizations : tuple of str
        Of ``"RR"``, ``"LL"``.
    integrate_s : float or None
        Length of an average, seconds; ``None`` for one of each loop.
    per : {"frame", "integration", "band", "range"}
        What one file is of; see `muser_pipeline.uvfits.split`. Single frames are not
        averaged.
    layout : {"auto", "old", "new"}
        Of the raw frames.
    conjugate : bool
        Whether MUSER-II's visibilities are conjugated.
    source : str
        The phase centre: ``"Sun"`` or a calibrator.
    target : str or None
        Where in its channel the signal is; by default what the frames say.
    static_delays_ns : tuple of float or None
        Of all inputs; by default those of the packaged table.
    calibration : Path or None
        A ``.cal`` file.
    amplitude : bool
        Whether amplitudes are calibrated too.
    flag_inputs : tuple of int
        Inputs that are flagged.
    flag_known, flag_dead, flag_outliers : bool
        Whether inputs that the observers list, antennas without power, and
        visibilities far from the usual are flagged. The last one takes four times as
        long as all the rest.
    """

    archive: Path
    start: int
    end: int
    out: Path
    array: int = 0
    bands: tuple[int, ...] = ()
    polarizations: tuple[str, ...] = HANDS
    integrate_s: float | None = 1.0
    per: Split = "integration"
    layout: Layout = "auto"
    conjugate: bool = True
    source: str = "Sun"
    target: str | None = None
    static_delays_ns: tuple[float, ...] | None = None
    calibration: Path | None = None
    amplitude: bool = False
    flag_inputs: tuple[int, ...] = ()
    flag_known: bool = True
    flag_dead: bool = True
    flag_outliers: bool = False

    @classmethod
    def read(cls, task: Mapping[str, Any]) -> Request:
        """Return the request that a work piece or dictionary is.

        Parameters
        ----------
        task : mapping
            The attributes by name, those that have a default if wanted. Times are
            nanoseconds or text of ISO 8601.

        Raises
        ------
        RequestError
            When something is missing, unknown, or of no use; the message names it.
        """
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(task) - set(known)):
            raise RequestError(
                f"a request has no {', '.join(unknown)}: it has {', '.join(known)}"
            )
        if missing := [name for name in NEEDED if name not in task]:
            raise RequestError(f"a request needs {', '.join(missing)}")
        values = {
            name: _checked(name, value)
            for name, value in task.items()
            if value is not None or name in _MAY_BE_NONE
        }
        request = cls(**values)
        request.check()
        return request

    def check(self) -> None:
        """Raise `RequestError` when values do not go with each other."""
        if self.end <= self.start:
            raise RequestError("end: it is not after the start")
        if not self.polarizations:
            raise RequestError(f"polarizations: some of {', '.join(HANDS)} are needed")
        if self.array:
            described = load_array(self.array)
            wrong = [b for b in self.bands if b >= len(described.bands)]
            if wrong:
                raise RequestError(
                    f"bands: {described.name} has the bands 0 to "
                    f"{len(described.bands) - 1}, not {wrong[0]}"
                )
            for each in self.flag_inputs:
                if each >= described.inputs:
                    raise RequestError(
                        f"flag_inputs: {described.name} has the inputs 0 to "
                        f"{described.inputs - 1}, not {each}"
                    )
            delays = self.static_delays_ns
            if delays is not None and len(delays) != described.inputs:
                raise RequestError(
                    f"static_delays_ns: {described.name} has {described.inputs} "
                    f"inputs, not {len(delays)}"
                )

    def of_array(self, array: int) -> Request:
        """Return the request with the array that it is of, and all its bands named."""
        bands = self.bands or tuple(range(len(load_array(array).bands)))
        request = replace(self, array=array, bands=bands)
        request.check()
        return request

    @property
    def interval_ns(self) -> int | None:
        """Length of an average; ``None`` for loops and single frames."""
        if self.integrate_s is None or self.per == "frame":
            return None
        return round(self.integrate_s * 1e9)

    @property
    def unit_ns(self) -> int:
        """What is cut out of the archive begins and ends at multiples of this."""
        return self.interval_ns or BLOCK_NS

    def recipe(self) -> dict[str, Any]:
        """Return what makes the bytes of a file, but for the frames that are in it."""
        plain = self.plain()
        for name in ("start", "end", "bands", "polarizations"):
            del plain[name]
        return plain

    def plain(self) -> dict[str, Any]:
        """Return all but the place of the files, as it stands in a manifest."""
        values = asdict(self) | {"archive": str(self.archive)}
        del values["out"]
        if self.calibration is not None:
            values["calibration"] = str(self.calibration)
        return values

    @property
    def digest(self) -> str:
        """Eight characters that tell this request from others."""
        text = json.dumps(self.plain(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


def _checked(name: str, value: Any) -> Any:
    try:
        return _CHECKS[name](value)
    except (ValueError, TypeError, OSError, MuserError) as error:
        raise RequestError(f"{name}: {error}") from None


def _path(value: Any) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise ValueError(f"{value!r} is no path")
    return Path(value).expanduser().absolute()


def _time(value: Any) -> int:
    if isinstance(value, str):
        return parse_time(value)
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ValueError(f"{value!r} is neither text nor whole nanoseconds since 1970")
    return int(value)


def _numbers(value: Any) -> tuple[int, ...]:
    numbers = [value] if hasattr(value, "__index__") else list(value)
    if any(isinstance(n, bool) or not hasattr(n, "__index__") for n in numbers):
        raise ValueError(f"{value!r} are no whole numbers")
    found = sorted({int(n) for n in numbers})
    if found and found[0] < 0:
        raise ValueError(f"{found[0]} is below 0")
    return tuple(found)


def _hands(value: Any) -> tuple[str, ...]:
    wanted = [value] if isinstance(value, str) else list(value)
    if unknown := [str(each) for each in wanted if each not in HANDS]:
        raise ValueError(f"{unknown[0]!r} is not one of {', '.join(HANDS)}")
    return tuple(hand for hand in HANDS if hand in wanted)


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    seconds = float(value)
    if not 1e-9 <= seconds <= 86_400:
        raise ValueError(f"{value!r} is no length of an average, up to a day")
    return seconds


def _delays(value: Any) -> tuple[float, ...] | None:
    return None if value is None else tuple(float(each) for each in value)


def _one_of(*allowed: Any) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if value not in allowed:
            known = ", ".join(str(each) for each in allowed)
            raise ValueError(f"{value!r} is not one of {known}")
        return value

    return check


def _source(value: Any) -> str:
    return source_named(str(value)).name


_TRUTH = _one_of(True, False)
_MAY_BE_NONE = ("integrate_s", "target", "static_delays_ns", "calibration")
_CHECKS: dict[str, Callable[[Any], Any]] = {
    "archive": _path,
    "start": _time,
    "end": _time,
    "out": _path,
    "array": _one_of(0, 1, 2),
    "bands": _numbers,
    "polarizations": _hands,
    "integrate_s": _seconds,
    "per": _one_of(*get_args(Split)),
    "layout": _one_of(*get_args(Layout)),
    "conjugate": _TRUTH,
    "source": _source,
    "target": _one_of(None, "sun", "satellite", "swan", "other"),
    "static_delays_ns": _delays,
    "calibration": lambda value: None if value is None else _path(value),
    "amplitude": _TRUTH,
    "flag_inputs": _numbers,
    "flag_known": _TRUTH,
    "flag_dead": _TRUTH,
    "flag_outliers": _TRUTH,
}
