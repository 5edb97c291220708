"""From visibilities to a finished image, step by step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import hypot

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.imaging.amplitudes import impossible_antennas
from muser_pipeline.imaging.backend import Array, Device, namespace_of, to_host
from muser_pipeline.imaging.clean import Cleaned, clean
from muser_pipeline.imaging.disk import UNIFORM, Disk
from muser_pipeline.imaging.disk_fit import RESOLVED, DiskFit, fit_disk
from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.field import choose_grid
from muser_pipeline.imaging.grid import Grid
from muser_pipeline.imaging.gridding import Gridder
from muser_pipeline.imaging.image import Image, Pixels
from muser_pipeline.imaging.options import ImageOptions
from muser_pipeline.imaging.plane import FLAT
from muser_pipeline.imaging.points import PointSearch
from muser_pipeline.imaging.restoring import Beam, fit_beam, restore
from muser_pipeline.imaging.selfcal import SelfCalibration, self_calibrate
from muser_pipeline.imaging.shelf import Shelf
from muser_pipeline.imaging.visibilities import (
    SPEED_OF_LIGHT_M_PER_S,
    Snapshot,
    check,
)
from muser_pipeline.imaging.weighting import Weighting, weigh

Progress = Callable[[str, int, int], None]
_SIGMAS = 5.0
"""A centre that is less certain than a pixel must be off by so many errors."""


def make_image(
    snapshot: Snapshot,
    options: ImageOptions | None = None,
    *,
    device: Device = "cpu",
    threads: int = 1,
    shelf: Shelf | None = None,
    progress: Progress | None = None,
) -> Image:
    """Make an image.

    Parameters
    ----------
    snapshot : Snapshot
        The visibilities.
    options : ImageOptions, optional
        How.
    device : str, optional
        ``"cpu"`` or ``"cuda"``.
    threads : int, optional
        How many compute, on a CPU.
    shelf : Shelf, optional
        Keeps transforms and beams for the next image.
    progress : callable, optional
        Called with the name of a step, and how much of it is done of how much: at the
        beginning of each step, and every few milliseconds during CLEAN. What it raises
        ends the work.

    Returns
    -------
    Image
        With all arrays in the memory of the host.

    Raises
    ------
    ImagingError
        When there is no image in this; its ``reason`` is a word for programs:
        ``"flagged"``, ``"zero"``, ``"not-finite"``, ``"one-baseline"``,
        ``"polarization"``, ``"field"``, ``"grid"``, ``"beam"``, ``"blank"`` and more.
    """
    work = _Work(options or ImageOptions(), device, threads, shelf or Shelf(), progress)
    # what overflows is not finite, and turned down for that
    with np.errstate(over="ignore", invalid="ignore"):
        return work.image_of(snapshot)


@dataclass(frozen=True, eq=False)
class _Ready:
    """Visibilities that can be gridded, and what was done to them."""

    snapshot: Snapshot
    data: NDArray[np.complex64]
    weights: NDArray[np.float32]
    grid: Grid
    left_out: tuple[int, ...]
    solved: tuple[SelfCalibration, ...] = ()
    fit: DiskFit | None = None
    disk: Disk | None = None
    shift_rad: tuple[float, float] = (0.0, 0.0)


class _Work:
    """One image being made."""

    def __init__(
        self,
        options: ImageOptions,
        device: Device,
        threads: int,
        shelf: Shelf,
        progress: Progress | None,
    ) -> None:
        self._options = options
        self._device = device
        self._threads = threads
        self._shelf = shelf
        self._progress = progress
        self._timings: dict[str, float] = {}
        self._notes: list[str] = []

    def image_of(self, snapshot: Snapshot) -> Image:
        """Do all steps."""
        start = time.perf_counter()
        ready = self._prepare(snapshot)
        if self._options.self_calibrate:
            with self._step("calibrate"):
                ready = self._calibrated(ready)
        if self._options.sun is not None:
            with self._step("disk"):
                ready = self._registered(ready)
        with self._step("weigh"):
            weights = weigh(
                ready.snapshot.uvw_m,
                ready.snapshot.frequency_hz,
                ready.weights,
                ready.grid,
                Weighting(self._options.weighting, self._options.robust),
                self._options.taper_rad,
            )
        with self._step("beam"):
            gridder = self._gridder(ready)
            psf, beam = self._beam(ready, gridder, weights)
        made = self._deconvolved(ready, gridder, weights, psf, beam)
        with self._step("measure"):
            image = self._measured(ready, gridder, weights, made)
        image.timings_s["total"] = time.perf_counter() - start
        return image

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        if self._progress is not None:
            self._progress(name, 0, 1)
        start = time.perf_counter()
        yield
        spent = time.perf_counter() - start
        self._timings[name] = self._timings.get(name, 0.0) + spent

    def _prepare(self, snapshot: Snapshot) -> _Ready:
        """Check the visibilities, leave out what is impossible, turn to the north."""
        options, polarization = self._options, self._options.polarization
        with self._step("check"):
            check(snapshot, polarization)
            data, weights = snapshot.stokes(polarization)
            left_out = impossible_antennas(
                snapshot.uvw_m, data, weights, snapshot.antenna1, snapshot.antenna2
            )
            if left_out:
                snapshot = _without(snapshot, left_out)
                check(snapshot, polarization)
                names = ", ".join(map(str, left_out))
                self._notes.append(f"amplitudes of antennas {names} are impossible")
            if options.sun is not None:
                angle = options.sun.p_rad - snapshot.north_angle_rad
                snapshot = snapshot.rotated(angle)
            data, weights = snapshot.stokes(polarization)
            grid = choose_grid(snapshot.uvw_m, snapshot.frequency_hz, weights, options)
        return _Ready(snapshot, data, weights, grid, left_out)

    def _calibrated(self, ready: _Ready) -> _Ready:
        """Solve for phases on the brightest point."""
        snapshot, sun = ready.snapshot, self._options.sun
        shortest = RESOLVED / sun.radius_rad if sun is not None else 0.0
        search = PointSearch(
            snapshot.uvw_m, snapshot.frequency_hz, ready.grid.extent_rad
        )
        polarization = _total(self._options.polarization)
        data, weights = snapshot.stokes(polarization)
        lengths = np.hypot(snapshot.uvw_m[:, 0], snapshot.uvw_m[:, 1])
        wavelengths = np.multiply.outer(lengths, snapshot.frequency_hz)
        is_long = wavelengths >= shortest * SPEED_OF_LIGHT_M_PER_S
        if not weights[is_long].any():
            self._notes.append("no self-calibration: all baselines see the disk")
            return ready
        peak = search.brightest(data, weights * is_long)
        snapshot, solved = self_calibrate(
            snapshot, polarization, peak.l, peak.m, shortest
        )
        for one in solved:
            if not one.applied:
                self._notes.append(
                    f"phases of {one.polarization} are not better after "
                    "self-calibration, and were left alone"
                )
        data, weights = snapshot.stokes(self._options.polarization)
        return replace(
            ready, snapshot=snapshot, data=data, weights=weights, solved=solved
        )

    def _registered(self, ready: _Ready) -> _Ready:
        """Find the disk of the Sun, and move the image to it."""
        sun = self._options.sun
        if sun is None or not (sun.disk or sun.register):
            return ready
        snapshot, polarization = ready.snapshot, self._options.polarization
        try:
            # the difference of the hands shows no disk
            data, weights = snapshot.stokes(_total(polarization))
            fit = fit_disk(
                snapshot.uvw_m,
                snapshot.frequency_hz,
                data,
                weights,
                sun.radius_rad,
                sun.profile or UNIFORM,
                sun.fit_radius,
            )
        except ImagingError as error:
            self._notes.append(str(error))
            return ready
        ready = replace(ready, fit=fit, disk=fit.disk)
        if not sun.register or not self._is_certain(fit.disk, ready.grid):
            return ready
        shift = fit.disk.l, fit.disk.m
        snapshot = snapshot.shifted(*shift)
        data, weights = snapshot.stokes(polarization)
        return replace(
            ready,
            snapshot=snapshot,
            data=data,
            weights=weights,
            disk=replace(fit.disk, l=0.0, m=0.0),
            shift_rad=shift,
        )

    def _is_certain(self, disk: Disk, grid: Grid) -> bool:
        """Return whether the centre is known well enough to move the image there."""
        error = max(disk.l_error, disk.m_error)
        if error < grid.cell_rad or hypot(disk.l, disk.m) > _SIGMAS * error:
            return True
        self._notes.append(
            f"the disk's centre is uncertain by {error / grid.cell_rad:.2g} pixels: "
            "the image was not moved"
        )
        return False

    def _gridder(self, ready: _Ready) -> Gridder:
        uvw_m, frequency_hz = ready.snapshot.uvw_m, ready.snapshot.frequency_hz
        w, device, threads = self._options.w, self._device, self._threads

        def make() -> Gridder:
            return Gridder(
                uvw_m, frequency_hz, ready.grid, w=w, device=device, threads=threads
            )

        depends = (uvw_m, frequency_hz, ready.grid, w, device, threads)
        return self._shelf.get(make, "gridder", *depends)

    def _beam(
        self, ready: _Ready, gridder: Gridder, weights: NDArray[np.float32]
    ) -> tuple[Array, Beam]:
        uvw_m, frequency_hz = ready.snapshot.uvw_m, ready.snapshot.frequency_hz

        def make() -> tuple[Array, Beam]:
            psf = gridder.beam(weights)
            return psf, fit_beam(psf, ready.grid.cell_rad)

        depends = (uvw_m, frequency_hz, ready.grid, self._options.w, self._device)
        return self._shelf.get(make, "beam", weights, *depends)

    def _deconvolved(
        self,
        ready: _Ready,
        gridder: Gridder,
        weights: NDArray[np.float32],
        psf: Array,
        beam: Beam,
    ) -> _Made:
        """Grid, take out the disk, clean, and put everything back."""
        data = ready.data
        with self._step("grid"):
            dirty = gridder.image(data, weights)
        if not np.isfinite(float(abs(dirty).max())) or not dirty.any():
            raise ImagingError("blank", "the dirty image is empty or not finite")
        if self._options.clean.algorithm == "none":
            return _Made(to_host(dirty), to_host(psf), beam)
        disk, disk_flux = self._disk_of(ready, weights)
        start = dirty
        with self._step("grid"):
            if disk is not None:
                snapshot = ready.snapshot
                data = data - disk.visibilities(snapshot.uvw_m, snapshot.frequency_hz)
                start = gridder.image(data, weights)
        on_device = namespace_of(dirty).asarray(data)
        with self._step("clean"):
            cleaned = clean(
                start,
                psf,
                self._options.clean,
                residual_of=lambda model: gridder.image(
                    on_device - gridder.predict(model), weights
                ),
                progress=self._clean_progress,
            )
        if cleaned.stopped_by == "diverged":
            self._notes.append("CLEAN diverged, and was stopped")
        with self._step("restore"):
            restored = restore(cleaned.model, cleaned.residual, beam, ready.grid)
            restored = to_host(restored)
            if disk is not None:
                plane = gridder.plane or FLAT
                restored = restored + disk.image(ready.grid, beam, disk_flux, plane)
        if not np.isfinite(restored).all():
            raise ImagingError("not-finite", "CLEAN made values that are not finite")
        return _Made(to_host(dirty), to_host(psf), beam, restored, cleaned, disk_flux)

    def _clean_progress(self, done: int, of: int) -> None:
        if self._progress is not None:
            self._progress("clean", done, of)

    def _disk_of(
        self, ready: _Ready, weights: NDArray[np.float32]
    ) -> tuple[Disk | None, float]:
        """Return the disk that is to be taken out, and its mean flux in the image."""
        sun, disk = self._options.sun, ready.disk
        if sun is None or not sun.disk or disk is None:
            return None, 0.0
        if self._options.polarization == "V":
            return None, 0.0
        shares = weights.sum(axis=0, dtype=np.float64)
        return disk, float(np.sum(shares * disk.flux) / shares.sum())

    def _measured(
        self, ready: _Ready, gridder: Gridder, weights: NDArray[np.float32], made: _Made
    ) -> Image:
        """Put the numbers to the image."""
        cleaned = made.cleaned
        residual = None if cleaned is None else to_host(cleaned.residual)
        model = None if cleaned is None else to_host(cleaned.model)
        best = made.dirty if made.restored is None else made.restored
        is_signed = self._options.polarization == "V"
        at = int(np.abs(best).argmax() if is_signed else best.argmax())
        y, x = divmod(at, ready.grid.size)
        snapshot = ready.snapshot
        frequency_hz = snapshot.frequency_hz
        shares = weights.sum(axis=0, dtype=np.float64)
        used = int(np.count_nonzero(weights))
        return Image(
            dirty=made.dirty,
            psf=made.psf,
            model=model,
            residual=residual,
            restored=made.restored,
            components=None if cleaned is None else cleaned.components,
            beam=made.beam,
            grid=ready.grid,
            plane=gridder.plane,
            options=self._options,
            polarization=self._options.polarization,
            unit=snapshot.unit,
            telescope=snapshot.telescope,
            target=snapshot.target,
            observer=snapshot.observer,
            ra_rad=snapshot.ra_rad,
            dec_rad=snapshot.dec_rad,
            north_angle_rad=snapshot.north_angle_rad,
            frequency_hz=float(np.sum(shares * frequency_hz) / shares.sum()),
            bandwidth_hz=_bandwidth(frequency_hz[shares > 0]),
            start_utc_ns=int(snapshot.time_utc_ns.min()),
            end_utc_ns=int(snapshot.time_utc_ns.max()),
            visibilities=used,
            flagged=weights.size - used,
            peak=float(best[y, x]),
            peak_pixel=(y, x),
            rms=_noise(best if residual is None else residual),
            flux=made.disk_flux + (0.0 if model is None else float(model.sum())),
            left_out=ready.left_out,
            disk=None if ready.fit is None else ready.fit.disk,
            disk_flux=made.disk_flux,
            shift_rad=ready.shift_rad,
            self_calibration=ready.solved,
            iterations=0 if cleaned is None else cleaned.iterations,
            cycles=0 if cleaned is None else cleaned.cycles,
            stopped_by="none" if cleaned is None else cleaned.stopped_by,
            threshold=0.0 if cleaned is None else cleaned.threshold,
            timings_s=self._timings,
            notes=tuple(self._notes),
        )


@dataclass(frozen=True, eq=False)
class _Made:
    """Images, and what they were made with."""

    dirty: Pixels
    psf: Pixels
    beam: Beam
    restored: Pixels | None = None
    cleaned: Cleaned | None = None
    disk_flux: float = 0.0


def _without(snapshot: Snapshot, antennas: tuple[int, ...]) -> Snapshot:
    """Return a snapshot in which the baselines of some antennas have no weight."""
    out = np.isin(snapshot.antenna1, antennas) | np.isin(snapshot.antenna2, antennas)
    weights = np.where(out[:, np.newaxis], np.float32(0), snapshot.weights)
    return snapshot.replace(weights=weights)


def _total(polarization: str) -> str:
    """Return what shows the same sky without the sign of its polarization."""
    return "I" if polarization == "V" else polarization


def _bandwidth(frequency_hz: NDArray[np.float64]) -> float:
    """Return the width of channels of these centres, in Hz."""
    ordered = np.sort(frequency_hz)
    if len(ordered) < 2:
        return 0.0
    return float(ordered[-1] - ordered[0] + np.median(np.diff(ordered)))


def _noise(pixels: Pixels) -> float:
    """Return the median absolute deviation times 1.4826: bright pixels do not count."""
    middle = np.median(pixels)
    return 1.4826 * float(np.median(np.abs(pixels - middle)))
