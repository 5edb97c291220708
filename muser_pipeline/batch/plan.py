"""How a request is cut into pieces that last about a second each.

Where it is cut depends on how fast the workers are, and so must not matter: cuts are at
multiples of `Request.unit_ns`, and what is longer than a piece should be is cut by
band, then by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from muser_pipeline.archive import ArchiveFile
from muser_pipeline.archive.index import MARGIN_NS
from muser_pipeline.array import CHANNELS, FRAME_PERIOD_NS, load_array
from muser_pipeline.batch.request import Request
from muser_pipeline.batch.slices import Slice
from muser_pipeline.errors import RequestError

PIECE_S = 1.0
"""How long a piece should last."""
GUESS_FPS = {1: 1000.0, 2: 400.0}
"""Frames a second of one worker, before it was measured."""
SMOOTHING = 0.2
"""Weight of the newest piece in the mean."""
SHARES = 4
"""Pieces for each worker at least, where there are so many units: so that all of them
are busy to the end."""
LONG_NS = 10 * 10**9
"""Averages that are longer are made in parts, by band and hand."""
MOST_BYTES = 128 << 20
"""Of a file that is put together from parts: a worker holds three times as much."""


@dataclass
class Pace:
    """How long pieces should be, which is learnt from those that are done.

    Attributes
    ----------
    frames_per_s : float
        Of one worker.
    most_frames : float
        Of a piece, so that all workers have some.
    """

    frames_per_s: float
    most_frames: float = field(default=float("inf"))

    def learn(self, frames: int, elapsed_s: float) -> None:
        """Take in how long a piece has taken."""
        if frames and elapsed_s > 0:
            self.frames_per_s += SMOOTHING * (frames / elapsed_s - self.frames_per_s)

    def length_ns(self, share: float) -> int:
        """Return the time that a piece should be of.

        Parameters
        ----------
        share : float
            Part of the frames of that time that are wanted.
        """
        frames = min(self.frames_per_s * PIECE_S, self.most_frames)
        return round(frames / share * FRAME_PERIOD_NS)


def is_in_parts(request: Request) -> bool:
    """Tell whether files are put together from what several pieces made."""
    is_long = (request.interval_ns or 0) > LONG_NS
    return request.per in ("band", "range") or (request.per != "frame" and is_long)


def whole_slices(
    request: Request, files: Sequence[ArchiveFile], pace: Pace
) -> Iterator[Slice]:
    """Yield the slices of a request of which each makes files by itself."""
    for start, end in _cut(request, files, pace, 1.0):
        yield _slice(request, files, start, end, request.bands, request.polarizations)


def slices_of_files(
    request: Request, files: Sequence[ArchiveFile], pace: Pace
) -> Iterator[Iterator[Slice]]:
    """Yield for each file the slices of which it is put together."""
    if request.per == "band":
        for band in request.bands:
            yield _parts(request, files, pace, [band], band == request.bands[0])
    elif request.per == "range":
        yield _parts(request, files, pace, request.bands, True)
    else:
        unit = request.unit_ns
        for begin in range(request.start // unit * unit, request.end, unit):
            span = max(begin, request.start), min(begin + unit, request.end)
            here = [file for file in files if _holds(file, *span)]
            if here:
                yield _by_band_and_hand(request, here, *span, request.bands, True)


def check_size(request: Request) -> None:
    """Refuse files that no worker has the memory for.

    Raises
    ------
    RequestError
        When one would be larger than `MOST_BYTES`.
    """
    array = load_array(request.array)
    span_ns = request.end - request.start
    interval = request.interval_ns or array.frames_per_loop * FRAME_PERIOD_NS
    averages = -(-span_ns // interval) if request.per in ("band", "range") else 1
    bands = 1 if request.per == "band" else len(request.bands)
    cells = bands * len(request.polarizations) * array.baselines * CHANNELS
    size = averages * cells * 12
    if is_in_parts(request) and averages > 1 and size > MOST_BYTES:
        raise RequestError(
            f"per: one file of {averages:,} averages would have {size / 1e6:,.0f} MB, "
            f"and a worker has the memory for {MOST_BYTES / 1e6:,.0f} MB: ask for a "
            "file per integration, for longer averages, fewer bands or less time"
        )


def _parts(
    request: Request,
    files: Sequence[ArchiveFile],
    pace: Pace,
    bands: Sequence[int],
    is_told: bool,
) -> Iterator[Slice]:
    share = len(bands) / len(load_array(request.array).bands)
    is_long = (request.interval_ns or 0) > LONG_NS
    for start, end in _cut(request, files, pace, share):
        if is_long:
            yield from _by_band_and_hand(request, files, start, end, bands, is_told)
        else:
            hands = request.polarizations
            yield _slice(request, files, start, end, bands, hands, is_told)


def _by_band_and_hand(
    request: Request,
    files: Sequence[ArchiveFile],
    start: int,
    end: int,
    bands: Sequence[int],
    is_told: bool,
) -> Iterator[Slice]:
    for band in bands:
        for hand in request.polarizations:
            yield _slice(request, files, start, end, [band], [hand], is_told)
            is_told = False


def _cut(
    request: Request, files: Sequence[ArchiveFile], pace: Pace, share: float
) -> Iterator[tuple[int, int]]:
    """Yield the times of pieces, where there may be frames."""
    unit = request.unit_ns
    at = request.start
    for first, last in _covered(files):
        begin = max(at, first // unit * unit)
        end = min(request.end, (last // unit + 1) * unit)
        while begin < end:
            units = max(1, pace.length_ns(share) // unit)
            stop = min(end, (begin // unit + units) * unit)
            yield begin, stop
            begin = stop
        at = max(at, end)


def _covered(files: Sequence[ArchiveFile]) -> Iterator[tuple[int, int]]:
    """Yield the times in which there may be frames, ascending and apart."""
    first, last = None, 0
    for file in files:
        begin, end = file.first_utc_ns - MARGIN_NS, file.last_utc_ns + MARGIN_NS
        if first is None:
            first, last = begin, end
        elif begin <= last:
            last = max(last, end)
        else:
            yield first, last
            first, last = begin, end
    if first is not None:
        yield first, last


def _slice(
    request: Request,
    files: Sequence[ArchiveFile],
    start: int,
    end: int,
    bands: Sequence[int],
    hands: Sequence[str],
    is_told: bool = True,
) -> Slice:
    margin = load_array(request.array).frames_per_loop * FRAME_PERIOD_NS
    paths = [f.path for f in files if _holds(f, start - margin, end + margin)]
    return Slice(paths, start, end, list(bands), list(hands), is_told)


def _holds(file: ArchiveFile, start: int, end: int) -> bool:
    """Tell whether a file may have frames of a time."""
    return file.first_utc_ns - MARGIN_NS < end and file.last_utc_ns + MARGIN_NS >= start
