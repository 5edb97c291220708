"""What a worker does with a slice: decode, average, make images, publish them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from muser_pipeline.errors import MuserError
from muser_pipeline.imaging.errors import ImagingError
from muser_pipeline.imaging.image import Image
from muser_pipeline.imaging.options import ImageOptions
from muser_pipeline.imaging.pipeline import Progress
from muser_pipeline.imaging.publishing import publish
from muser_pipeline.imaging.visibilities import Snapshot
from muser_pipeline.realtime.cutting import Scene, Slice, average, refusal, scene_of
from muser_pipeline.realtime.devices import Computer
from muser_pipeline.realtime.index import ImageRecord
from muser_pipeline.realtime.naming import folder_of, name_of
from muser_pipeline.realtime.options import ARCSEC_RAD, ImageRequest
from muser_pipeline.realtime.warming import warm_up

log = logging.getLogger("opencluster.worker")

IN_PARTS = "GPU memory was short: the image was made with nothing else kept in it"
ON_CPU = "GPU memory was too short: the image was made on the CPU"


class ImageMaker:
    """Makes the images of slices, and keeps what is of use for the next ones.

    Parameters
    ----------
    computers : sequence of Computer
        Where images are made, the best first; the last is a CPU.
    progress : callable
        See `make_image`; what it raises ends the work.
    """

    def __init__(self, computers: Sequence[Computer], progress: Progress) -> None:
        self._computers = computers
        self._progress = progress

    def warm_up(self) -> None:
        """Have everything at hand that the first slice needs."""
        for computer in self._computers:
            warm_up(computer)

    def memory(self) -> dict[str, int]:
        """Return how the memory of the GPU is used; empty without one."""
        return self._computers[0].memory()

    def records(
        self, request: Mapping[str, Any], piece: Mapping[str, Any]
    ) -> Iterator[ImageRecord]:
        """Make the images of a slice, and yield the record of each.

        Parameters
        ----------
        request : mapping
            An `ImageRequest`.
        piece : mapping
            A `Slice`.
        """
        return self._records(ImageRequest(**request), Slice(**piece))

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
                return gpu.make(snapshot, options, self._progress), said
            except MemoryError as error:
                log.warning("GPU memory is short: %s", error)
            # now that the arrays of what failed have gone with its traceback
            gpu.free()
        return last.make(snapshot, options, self._progress), (ON_CPU,) if gpus else ()


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
