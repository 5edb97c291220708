"""From visibilities to a finished image, step by step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from muser_pipeline.imaging.backend import Array, Device, namespace_of, to_host
from muser_pipeline.imaging.clean import Cleaned, clean
from muser_pipeline.imaging.disk import Disk
from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.grid import Grid
from muser_pipeline.imaging.gridding import Gridder
from muser_pipeline.imaging.image import Image, Pixels
from muser_pipeline.imaging.options import ImageOptions
from muser_pipeline.imaging.plane import FLAT
from muser_pipeline.imaging.preparation import (
    Prepared,
    calibrated,
    prepared,
    registered,
)
from muser_pipeline.imaging.restoring import Beam, fit_beam, restore
from muser_pipeline.imaging.shelf import Shelf
from muser_pipeline.imaging.visibilities import Snapshot
from muser_pipeline.imaging.weighting import Weighting, weigh

Progress = Callable[[str, int, int], None]


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
        with self._step("check"):
            ready = prepared(snapshot, self._options)
        if self._options.self_calibrate:
            with self._step("calibrate"):
                ready = calibrated(ready, self._options)
        if self._options.sun is not None:
            with self._step("disk"):
                ready = registered(ready, self._options)
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

    def _gridder(self, ready: Prepared) -> Gridder:
        uvw_m, frequency_hz = ready.snapshot.uvw_m, ready.snapshot.frequency_hz
        w, device, threads = self._options.w, self._device, self._threads

        def make() -> Gridder:
            return Gridder(
                uvw_m, frequency_hz, ready.grid, w=w, device=device, threads=threads
            )

        depends = (uvw_m, frequency_hz, ready.grid, w, device, threads)
        return self._shelf.get(make, "gridder", *depends)

    def _beam(
        self, ready: Prepared, gridder: Gridder, weights: NDArray[np.float32]
    ) -> tuple[Array, Beam]:
        uvw_m, frequency_hz = ready.snapshot.uvw_m, ready.snapshot.frequency_hz

        def make() -> tuple[Array, Beam]:
            psf = gridder.beam(weights)
            return psf, fit_beam(psf, ready.grid.cell_rad)

        depends = (uvw_m, frequency_hz, ready.grid, self._options.w, self._device)
        # those of I are twice those of one hand
        shares = weights / weights.max()
        return self._shelf.get(make, "beam", shares, *depends)

    def _deconvolved(
        self,
        ready: Prepared,
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
                self._mask(ready.grid, start),
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

    def _mask(self, grid: Grid, like: Array) -> Array | None:
        """Return where components are looked for, if not everywhere."""
        window = self._options.window_rad
        if not window:
            return None
        east, north = np.meshgrid(*grid.coordinates())
        return namespace_of(like).asarray(np.hypot(east, north) <= window / 2)

    def _clean_progress(self, done: int, of: int) -> None:
        if self._progress is not None:
            self._progress("clean", done, of)

    def _disk_of(
        self, ready: Prepared, weights: NDArray[np.float32]
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
        self,
        ready: Prepared,
        gridder: Gridder,
        weights: NDArray[np.float32],
        made: _Made,
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
            disk=ready.found,
            disk_flux=made.disk_flux,
            shift_rad=ready.shift_rad,
            self_calibration=ready.solved,
            iterations=0 if cleaned is None else cleaned.iterations,
            cycles=0 if cleaned is None else cleaned.cycles,
            stopped_by="none" if cleaned is None else cleaned.stopped_by,
            threshold=0.0 if cleaned is None else cleaned.threshold,
            timings_s=self._timings,
            notes=(*ready.notes, *self._notes),
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
