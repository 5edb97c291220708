"""What is done about phases of antennas before an image is made, if anything.

Nothing, where they are known. Where they plainly are not, an image would show noise: so
they are found in turns with it, in a window and with pixels that the data say.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from muser_pipeline.imaging.closures import MOST_ANTENNAS, Floats, close
from muser_pipeline.imaging.coherence import coherence, expected_coherence
from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.field import choose_grid, rounded_cell
from muser_pipeline.imaging.hybrid import (
    Found,
    HybridOptions,
    Progress,
    begin_with,
    find_phases,
    lengths_of,
    only,
    sober_weights,
)
from muser_pipeline.imaging.options import ImageOptions
from muser_pipeline.imaging.start_models import choose_start
from muser_pipeline.imaging.visibilities import Snapshot

PhasesName = Literal["auto", "known", "unknown"]

_KNOWN = 0.8
"""Coherence, of a point or relative to what is expected, of phases that are known."""
_TELLING = 0.7
"""Coherence that a source must lead one to expect, to be worth a comparison."""
_FIELD, _SIZE = 4, 256
"""Side of the image in windows and in pixels."""
_GAP = 10.0
"""Baselines that are shorter than all others by more see something else."""
_FEWEST = 4
"""Antennas that can tell their phases from those of a source."""


def phased(
    snapshot: Snapshot,
    options: ImageOptions,
    phases: PhasesName = "auto",
    hybrid: HybridOptions | None = None,
    progress: Progress | None = None,
) -> tuple[Snapshot, ImageOptions, Found | None]:
    """Return what an image is to be made of, and how, and what was found.

    Parameters
    ----------
    snapshot : Snapshot
        The visibilities.
    options : ImageOptions
        What is asked for.
    phases : str, optional
        Whether those of antennas are ``"known"``, or ``"unknown"``; ``"auto"`` looks.
        Those of the Sun, of Stokes V, of less than four or more than 20 antennas, and
        those that are to be self-calibrated, are taken to be known then.
    hybrid : HybridOptions, optional
        How they are found; without a shortest baseline, those that are shorter than all
        others by a factor of ten are left out.
    progress : callable, optional
        As for `make_image`.

    Returns
    -------
    snapshot : Snapshot
        With phases that were found, or as it came.
    options : ImageOptions
        With the window, and pixels where none were asked for, or as they came.
    found : Found or None
        None where phases are known.
    """
    if phases == "known" or (phases == "auto" and not _is_doubtful(snapshot, options)):
        return snapshot, options, None
    polarization = options.polarization
    hybrid = hybrid or HybridOptions()
    try:
        if not hybrid.shortest_wavelengths:
            shortest = _shortest(only(snapshot, polarization))
            hybrid = replace(hybrid, shortest_wavelengths=shortest)
        if phases == "unknown":
            found = find_phases(snapshot, polarization, hybrid, progress)
        else:
            looked = _looked_at(snapshot, options, hybrid, progress)
            if looked is None:
                return snapshot, options, None
            found = looked
    except ImagingError:
        if phases == "unknown":
            raise
        # whoever makes the image says why there is none
        return snapshot, options, None
    return found.snapshot, _framed(options, found.window_rad), found


def _is_doubtful(snapshot: Snapshot, options: ImageOptions) -> bool:
    """Return whether it is worth looking at phases."""
    if options.sun or options.self_calibrate or options.polarization == "V":
        return False
    antennas = np.union1d(snapshot.antenna1, snapshot.antenna2)
    return _FEWEST <= len(antennas) <= MOST_ANTENNAS


def _looked_at(
    snapshot: Snapshot,
    options: ImageOptions,
    hybrid: HybridOptions,
    progress: Progress | None,
) -> Found | None:
    """Return what is found where phases are plainly not known, else None."""
    alone = only(snapshot, options.polarization, hybrid.shortest_wavelengths)
    weights = sober_weights(alone, hybrid.systematic)
    sober = alone.replace(weights=weights[np.newaxis])
    frequency_hz = alone.frequency_hz
    # neither a field nor pixels that are asked for matter here
    grid = choose_grid(alone.uvw_m, frequency_hz, weights, ImageOptions())
    if coherence(sober, grid) >= _KNOWN:
        return None
    closures = close(alone, options.polarization, hybrid.systematic)
    if closures is None:
        return None
    start = choose_start(closures)
    expected = expected_coherence(closures, start)
    if expected < _TELLING:
        return None
    seen = coherence(sober, grid, start)
    if seen >= _KNOWN * expected:
        return None
    found = begin_with(start, closures, alone, hybrid, progress)
    return replace(found, coherence=(seen, expected))


def _framed(options: ImageOptions, window_rad: float) -> ImageOptions:
    """Return options for an image of what is in a window."""
    size, cell_rad = options.size, options.cell_rad
    if cell_rad is None:
        size = size or _SIZE
        cell_rad = rounded_cell(_FIELD * window_rad / size)
    return replace(options, size=size, cell_rad=cell_rad, window_rad=window_rad)


def _shortest(alone: Snapshot) -> float:
    """Return what baselines are longer than, but for much shorter ones; 0 for nothing.

    A few antennas beside each other see all of a source that is far larger than what
    the others see.
    """
    used = alone.weights[0].max(axis=1) > 0
    rows = lengths_of(alone)[used].mean(axis=1)
    first, second = alone.antenna1[used], alone.antenna2[used]
    pairs = np.stack([np.minimum(first, second), np.maximum(first, second)])
    _, which = np.unique(pairs, axis=1, return_inverse=True)
    longest: Floats = np.zeros(int(which.max()) + 1)
    np.maximum.at(longest, which, rows)
    ordered = np.sort(longest)
    ratios = ordered[1:] / np.maximum(ordered[:-1], 1e-300)
    cut = int(np.argmax(ratios)) if len(ratios) else 0
    # what is left must close, and be most of what there is
    if not len(ratios) or ratios[cut] < _GAP or 2 * (cut + 1) > len(ordered):
        return 0.0
    least = float(rows[rows > ordered[cut]].min())
    return float(np.sqrt(ordered[cut] * least)) if least > ordered[cut] else 0.0
