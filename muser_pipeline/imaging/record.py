"""What is to be known about an image, as a dictionary for JSON."""

from __future__ import annotations

from math import degrees
from typing import Any

import numpy as np

from muser_pipeline.imaging.fitsfile import time_text
from muser_pipeline.imaging.image import Image
from muser_pipeline.imaging.wcs import ARCSEC_PER_RAD


def record_of(image: Image) -> dict[str, Any]:
    """Return all numbers of an image.

    Lengths in the sky are arcseconds, angles degrees, times seconds, fluxes in
    ``unit``.

    Parameters
    ----------
    image : Image
        What is described.

    Returns
    -------
    dict
        With numbers, words, lists and dictionaries only, and no value that is not
        finite.
    """
    options = image.options
    y, x = image.peak_pixel
    half, cell = image.grid.size // 2, image.grid.cell_rad * ARCSEC_PER_RAD
    record: dict[str, Any] = {
        "telescope": image.telescope,
        "target": image.target,
        "observer": image.observer,
        "time": time_text(image.start_utc_ns) + "Z",
        "start_utc_ns": image.start_utc_ns,
        "end_utc_ns": image.end_utc_ns,
        "frequency_hz": image.frequency_hz,
        "bandwidth_hz": image.bandwidth_hz,
        "polarization": image.polarization,
        "unit": image.unit,
        "size": image.grid.size,
        "cell_arcsec": cell,
        "beam": {
            "major_arcsec": image.beam.major_rad * ARCSEC_PER_RAD,
            "minor_arcsec": image.beam.minor_rad * ARCSEC_PER_RAD,
            "angle_deg": degrees(image.beam.angle_rad),
        },
        "peak": image.peak,
        "peak_west_arcsec": (x - half) * cell,
        "peak_north_arcsec": (y - half) * cell,
        "rms": image.rms,
        "dynamic_range": image.dynamic_range,
        "flux": image.flux,
        "weighting": options.weighting,
        "robust": options.robust if options.weighting == "briggs" else None,
        "taper_arcsec": options.taper_rad * ARCSEC_PER_RAD,
        "clean": options.clean.algorithm,
        "gain": options.clean.gain,
        "iterations": image.iterations,
        "cycles": image.cycles,
        "stopped_by": image.stopped_by,
        "threshold": image.threshold,
        "visibilities": image.visibilities,
        "flagged": image.flagged,
        "antennas_left_out": list(image.left_out),
        "plane": None if image.plane is None else [image.plane.a, image.plane.b],
        "disk": _disk(image),
        "self_calibration": _self_calibration(image),
        "phases": _phases(image),
        "notes": list(image.notes),
        "timings": dict(image.timings_s),
    }
    finite = _finite(record)
    assert isinstance(finite, dict)
    return finite


def _disk(image: Image) -> dict[str, Any] | None:
    disk, scale = image.disk, ARCSEC_PER_RAD
    if disk is None:
        return None
    return {
        "radius_arcsec": disk.radius_rad * scale,
        "radius_error_arcsec": disk.radius_error_rad * scale,
        "west_arcsec": -disk.l * scale,
        "west_error_arcsec": disk.l_error * scale,
        "north_arcsec": disk.m * scale,
        "north_error_arcsec": disk.m_error * scale,
        "flux": image.disk_flux,
        "channel_flux": disk.flux.tolist(),
        "channel_flux_error": disk.flux_error.tolist(),
        "is_registered": any(image.shift_rad),
    }


def _self_calibration(image: Image) -> list[dict[str, Any]]:
    return [
        {
            "polarization": one.polarization,
            "is_applied": one.applied,
            "antennas": one.antennas.tolist(),
            "phases_deg": np.degrees(one.phases_rad).tolist(),
            "iterations": one.iterations,
            "has_converged": one.converged,
            "flux_before": one.flux_before,
            "flux_held_out": one.flux_held_out,
            "flux_solved": one.flux_solved,
            "amplitude_scatter": one.amplitude_scatter,
            "west_arcsec": -one.l * ARCSEC_PER_RAD,
            "north_arcsec": one.m * ARCSEC_PER_RAD,
        }
        for one in image.self_calibration
    ]


def _phases(image: Image) -> dict[str, Any] | None:
    found = image.phases
    if found is None:
        return None
    names = ("start", "components")
    seen, expected = found.coherence or (None, None)
    return {
        "start": found.start.name,
        "start_numbers": _told(found.start.numbers),
        "criterion": dict(found.start.criterion),
        "coherence": seen,
        "expected_coherence": expected,
        "window_arcsec": found.window_rad * ARCSEC_PER_RAD,
        "shortest_wavelengths": found.shortest_wavelengths,
        "cycles": found.cycles,
        "closure_phases_chi_squared": dict(
            zip(names, found.closure_phases, strict=True)
        ),
        "amplitudes_chi_squared": dict(zip(names, found.amplitudes, strict=True)),
    }


def _told(numbers: dict[str, float]) -> dict[str, float]:
    """Return numbers with angles in degrees and lengths in arcseconds."""
    told = {}
    for name, value in numbers.items():
        if name == "angle_rad":
            told["angle_deg"] = degrees(value)
        elif name.endswith("_rad"):
            told[name.removesuffix("_rad") + "_arcsec"] = value * ARCSEC_PER_RAD
        else:
            told[name] = value
    return told


def _finite(value: Any) -> Any:
    """Return a value with None for numbers that JSON has no word for."""
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_finite(part) for part in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
