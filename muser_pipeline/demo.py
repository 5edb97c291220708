"""A few seconds of MUSER-I, simulated and made into files: a part of the demo."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from muser_pipeline.array import FRAME_PERIOD_NS, load_array

WORKER = "muser_pipeline.batch:UVFITSWorker"
FRAMES = 960
"""Three seconds: 96 MB of raw data."""
NEEDED = ("astropy", "numba")
START_NS = int(np.datetime64("2015-11-01T04:00:00", "ns").astype(np.int64))


@dataclass(frozen=True)
class Converted:
    """What came of the frames.

    Attributes
    ----------
    frames, files : int
        Frames that were read, and files that were written.
    frames_per_s : float
        From the request to the manifest.
    manifest : dict
        What the manifest says.
    path : Path
        Where it is.
    """

    frames: int
    files: int
    frames_per_s: float
    manifest: Mapping[str, Any]
    path: Path

    def lines(self) -> Iterator[str]:
        """Yield the manifest for people."""
        counts = self.manifest["frames"]
        for row in self.manifest["files"]:
            yield f"{row['bytes']:12,}  {row['sha256'][:12]}  {row['name']}"
        yield (
            f"{self.files:,} UVFITS files of {self.frames:,} frames of "
            f"{self.manifest['array']}, {counts['missing']:,} missing and "
            f"{counts['flagged']:,} flagged, {self.frames_per_s:,.0f} frames a second"
        )


def lacking() -> list[str]:
    """Return the packages that are not installed."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def simulate_sun(folder: Path) -> Path:
    """Simulate the quiet Sun with a burst, fringes left to run; return the archive."""
    from muser_pipeline.calibration import static_delays_ns
    from muser_pipeline.simulator import (
        Instrument,
        Observation,
        Sky,
        SkySource,
        simulate,
    )

    instrument = Instrument.random(
        load_array(1),
        np.random.default_rng(1),
        static_delays_ns=static_delays_ns(1, START_NS),
    )
    sky = Sky((SkySource(300.0, -200.0, 50.0, fwhm_arcsec=(60.0, 30.0)),), sun=1.0)
    observation = Observation(
        1, sky, instrument, START_NS, fringes_stopped=False, update_ns=10**10
    )
    simulate(observation, FRAMES, folder, seed=1)
    return folder


def convert(archive: Path, out: Path) -> Converted:
    """Make UVFITS files on the cluster, averages of a second."""
    from muser_pipeline.batch import UVFITSManager
    from opencluster import WorkPiece

    task = WorkPiece(
        archive=archive,
        start=START_NS,
        end=START_NS + FRAMES * FRAME_PERIOD_NS,
        out=out,
    )
    found = UVFITSManager("cluster").run(task)
    path = Path(found["manifest"])
    manifest = json.loads(path.read_text())
    return Converted(
        found["frames"], found["files"], found["frames_per_s"], manifest, path
    )
