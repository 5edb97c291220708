"""A survey: exposures in parallel, and inside each of them its detectors.

The images are made in the workers and stay there. What comes back to the managers is
small: the brightness of the sky on each detector, from which an exposure's manager
fits a plane over all of them. The detectors of an exposure, and then the exposures,
are joined in trees, from worker to worker.
"""

from __future__ import annotations

import numpy as np

from opencluster import Manager, ManagerPool, Worker, WorkPiece

SIDE = 4
"""The camera has this many rows and columns of detectors,"""
PIXELS = 128
"""each with this many rows and columns of pixels."""
STARS = 20
"""This many stars are on each detector."""
EXPOSURES = 6


class CalibrateWorker(Worker):
    """Reads one detector and corrects how sensitive its pixels are."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        """Return the image, in electrons; the flat field of all detectors is given."""
        row, column = divmod(work["detector"], SIDE)
        stars = np.random.default_rng(work["detector"])
        noise = np.random.default_rng([work["exposure"], work["detector"]])
        sky = 100.0 + 5 * row - 3 * column + work["exposure"]
        light = noise.normal(sky, 10, (PIXELS, PIXELS))
        light[tuple(stars.integers(0, PIXELS, (2, STARS)))] += 42
        flat = work["flat"][work["detector"]]
        raw = light * flat
        return WorkPiece(image=raw / flat, detector=work["detector"])


class SkyWorker(Worker):
    """Measures how bright the sky is on one detector."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        """Return the median of the image that another worker made."""
        return WorkPiece(level=float(np.median(work["calibrated"]["image"])))


class SubtractWorker(Worker):
    """Takes the sky from one detector, and puts it into its place in the camera."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        """Return the camera's image, which is empty but for this detector."""
        row, column = divmod(work["calibrated"]["detector"], SIDE)
        camera = np.zeros((SIDE, PIXELS, SIDE, PIXELS))
        camera[row, :, column] = work["calibrated"]["image"] - work["sky"]
        return WorkPiece(camera=camera)


class AddWorker(Worker):
    """Adds images of the whole camera."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        """Return the sum of the inputs."""
        return WorkPiece(camera=sum(part["camera"] for part in work["inputs"]))


class ExposureManager(Manager):
    """Processes one exposure: scatter over the detectors, gather, scatter again."""

    def schedule(self, task: WorkPiece) -> WorkPiece:
        """Return a reference to the exposure's image, without its sky."""
        detectors = range(SIDE * SIDE)
        pieces = [WorkPiece(task, detector=number) for number in detectors]
        images = list(self.map("Calibrate", pieces, keep=True))
        measured = self.map("Sky", [WorkPiece(calibrated=image) for image in images])
        sky = fit_plane([part["level"] for part in measured])
        parts = (
            WorkPiece(calibrated=image, sky=level)
            for image, level in zip(images, sky, strict=True)
        )
        subtracted = self.map("Subtract", parts, keep=True)
        return WorkPiece(camera=self.reduce("Add", subtracted, arity=4, keep=True))


class SurveyManager(Manager):
    """Processes several exposures at a time, and adds them up."""

    def schedule(self, task: WorkPiece) -> WorkPiece:
        """Return how many stars stand out in the first exposure, and in all."""
        flats = np.random.default_rng(0).uniform(0.9, 1.1, (SIDE**2, PIXELS, PIXELS))
        # once to each computer, and not with every piece
        flat = self.broadcast(flats, to="Calibrate")
        with ManagerPool(3) as pool:
            running = [
                pool.submit(ExposureManager(), WorkPiece(exposure=number, flat=flat))
                for number in range(task["exposures"])
            ]
            cameras = [future.result()["camera"] for future in running]
        first = self.gather(cameras[0])["camera"]
        deep = self.reduce("Add", cameras)["camera"]
        return WorkPiece(first=stars_in(first), deep=stars_in(deep))


def fit_plane(levels: list[float]) -> np.ndarray:
    """Return the plane through the levels of all detectors, shape (SIDE**2,)."""
    rows, columns = np.divmod(np.arange(SIDE**2), SIDE)
    terms = np.column_stack([np.ones(SIDE**2), rows, columns])
    return terms @ np.linalg.lstsq(terms, np.array(levels), rcond=None)[0]


def stars_in(camera: np.ndarray) -> int:
    """Return how many pixels stand out by six sigmas."""
    sigma = 1.4826 * np.median(np.abs(camera))
    return int(np.count_nonzero(camera > 6 * sigma))


if __name__ == "__main__":
    found = SurveyManager().run(WorkPiece(exposures=EXPOSURES))
    print(f"stars in the first exposure: {found['first']}")
    print(f"stars in all {EXPOSURES}: {found['deep']}")
