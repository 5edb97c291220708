"""The worker: slices of raw frames become images."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from muser_pipeline.errors import MuserError
from muser_pipeline.imaging.backend import Device
from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.image import Image
from muser_pipeline.imaging.options import ImageOptions
from muser_pipeline.imaging.publishing import publish
from muser_pipeline.imaging.visibilities import Snapshot
from muser_pipeline.realtime.cutting import (
    Scene,
    Slice,
    average,
    refusal,
    scene_of,
)
from muser_pipeline.realtime.devices import Computer, Wanted, sees_gpu
from muser_pipeline.realtime.index import ImageRecord
from muser_pipeline.realtime.naming import folder_of, name_of
from muser_pipeline.realtime.options import ARCSEC_RAD, ImageRequest
from muser_pipeline.realtime.warming import warm_up
from opencluster import Worker, WorkPiece

CPU_TYPE = "MUSERImage"
GPU_TYPE = "MUSERImageGPU"
IN_PARTS = "GPU memory was short: the image was made with nothing else kept in it"
ON_CPU = "GPU memory was too short: the image was made on the CPU"


class MUSERImageWorker(Worker):
    """Turns slices of raw frames into images.

    It registers as ``MUSERImageGPU`` where CuPy sees a GPU, else as ``MUSERImage``.

    A piece is ``WorkPiece(request=..., slice=...)``, with an `ImageRequest` and a
    `Slice` as mappings. The result has ``records``, an `ImageRecord` as a mapping for
    each image of the slice, the ``elapsed_s`` of the piece, the ``device``, and the
    memory of its GPU. The files of an image are written beside their places and
    renamed, and depend on the piece alone, so that it may run any number of times.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"}
        Where images are computed; CuPy is imported only if this may be a GPU.
    """

    worker_type = CPU_TYPE

    def __init__(self, device: Wanted = "auto") -> None:
        if device == "auto":
            device = "cuda" if sees_gpu() else "cpu"
        self._device: Device = device

    def ready(self, type: str = "", host: str = "*", port: int = 0) -> None:
        """Serve as `Worker.ready` does, as the type that goes with the device."""
        if type in ("", CPU_TYPE, GPU_TYPE):
            type = GPU_TYPE if self._device == "cuda" else CPU_TYPE
        super().ready(type, host, port)

    def startup(self) -> None:
        """Have everything at hand that the first piece needs."""
        self._computers = self.computers(self._device)
        for computer in self._computers:
            warm_up(computer)

    def computers(self, device: Device) -> Sequence[Computer]:
        """Return where images are made, the best first."""
        kinds: list[Device] = [device] if device == "cpu" else [device, "cpu"]
        return [Computer(kind) for kind in kinds]

    def perform(self, work: WorkPiece) -> WorkPiece:
        """Make the images of a slice."""
        began = time.monotonic()
        request = ImageRequest(**work["request"])
        piece = Slice(**work["slice"])
        records = [asdict(record) for record in self._records(request, piece)]
        best = self._computers[0]
        return WorkPiece(
            records=records,
            elapsed_s=time.monotonic() - began,
            device=best.device,
            **best.memory(),
        )

    def _records(self, request: ImageRequest, piece: Slice) -> Iterator[ImageRecord]:
        began = time.monotonic()
        try:
            averaged = average(piece, request)
            scene = scene_of(averaged.visibilities, piece.time_utc_ns, request)
        except (MuserError, OSError) as error:
            for image in piece.images:
                yield refusal(piece, image, f"frames: {error}")
            return
        prepared_s = time.monotonic() - began
        notes = [piece.note, *averaged.notes]
        for image in piece.images:
            yield self._record(request, piece, image, scene, notes, prepared_s)

    def _record(
        self,
        request: ImageRequest,
        piece: Slice,
        asked: tuple[Any, ...],
        scene: Scene,
        notes: Sequence[str],
        prepared_s: float,
    ) -> ImageRecord:
        polarization, first, count = asked
        snapshot = scene.channels(first, count)
        try:
            options = request.image_options(polarization, scene.sun)
            image, said = self._made(snapshot, options)
        except ImagingError as error:
            told = "; ".join(filter(None, [str(error), *notes]))
            return refusal(piece, asked, f"{error.reason}: {told}")
        image = replace(
            image,
            notes=(*filter(None, notes), *image.notes, *said),
            timings_s={"prepare": prepared_s, **image.timings_s},
        )
        return published(image, request, piece, asked)

    def _made(
        self, snapshot: Snapshot, options: ImageOptions
    ) -> tuple[Image, Sequence[str]]:
        """Make an image where there is memory for it, and tell if that was not easy."""
        *gpus, last = self._computers
        for gpu, said in [(gpu, said) for gpu in gpus for said in ((), (IN_PARTS,))]:
            try:
                return gpu.make(snapshot, options, self._show), said
            except MemoryError as error:
                self.log.warning("GPU memory is short: %s", error)
                gpu.free()
        return last.make(snapshot, options, self._show), (ON_CPU,) if gpus else ()

    def _show(self, step: str, done: int, total: int) -> None:
        self.progress(done, max(total, 1))


def published(
    image: Image, request: ImageRequest, piece: Slice, asked: tuple[str, int, int]
) -> ImageRecord:
    """Write the files of an image, and return its record."""
    began = time.monotonic()
    _, first, count = asked
    folder = folder_of(piece.time_utc_ns)
    name = name_of(
        piece.array, piece.time_utc_ns, piece.band, first, image.polarization
    )
    files = publish(image, request.out / folder, name)
    timings = image.timings_s | {"publish": time.monotonic() - began}

    def relative(path: Path) -> str:
        return str(path.relative_to(request.out))

    beam = image.beam
    return ImageRecord(
        array=piece.array,
        time_utc_ns=piece.time_utc_ns,
        band=piece.band,
        polarization=image.polarization,
        frequency_hz=piece.frequency_hz(first, count),
        first_channel=first,
        reason="; ".join(image.notes),
        unit=image.unit,
        peak=image.peak,
        rms=image.rms,
        dynamic_range=image.dynamic_range,
        flux=image.flux,
        beam_major_arcsec=beam.major_rad / ARCSEC_RAD,
        beam_minor_arcsec=beam.minor_rad / ARCSEC_RAD,
        beam_angle_deg=float(np.degrees(beam.angle_rad)),
        iterations=image.iterations,
        size=image.grid.size,
        cell_arcsec=image.grid.cell_rad / ARCSEC_RAD,
        fits=relative(files.fits),
        png=relative(files.png),
        thumbnail=relative(files.thumbnail),
        json=relative(files.json),
        timings=timings,
        published_at=time.time(),
    )
