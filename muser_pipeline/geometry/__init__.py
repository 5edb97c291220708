"""Where a source stands, and what the baselines look like from there.

Signs, for the whole pipeline. A baseline (i, j), i < j, is the vector *from antenna i
to antenna j*: position_j - position_i, as u, v, w in metres with u to the east, v to
the north and w to the source. Visibilities in memory, once delays are corrected, are

    V_ij = sum over sources of S exp(+2 pi i (f / c) (u l + v m + w (n - 1)))

with the source's direction cosines l to the east and m to the north of the phase
centre and n = sqrt(1 - l^2 - m^2): the phase by which antenna j receives the wave
*before* antenna i. So a correlator that is told the delays D_k = w_k / c + constant,
with w_k the component of antenna k's position towards the source, leaves what
exp(-2 pi i f (D_j - D_i)) takes away. Nothing that is public tells whether the hardware
conjugates; this is the choice by which the delays in its frames are delays that it put
into the signals of the nearer antennas.

Nothing is downloaded: the orientation of the Earth is read from the table that is
packaged with ``astropy-iers-data``, the Sun's place is computed from a series.
"""

from muser_pipeline.geometry.day import Day, day_of
from muser_pipeline.geometry.heliographic import Heliographic, heliographic
from muser_pipeline.geometry.orientation import EarthOrientation, packaged_orientation
from muser_pipeline.geometry.sources import (
    CALIBRATORS,
    FixedSource,
    Geostationary,
    Source,
    Sun,
    source_named,
)
from muser_pipeline.geometry.track import Track, follow
from muser_pipeline.geometry.uvw import antenna_uvw_m, uvw_m

__all__ = [
    "CALIBRATORS",
    "Day",
    "EarthOrientation",
    "FixedSource",
    "Geostationary",
    "Heliographic",
    "Source",
    "Sun",
    "Track",
    "antenna_uvw_m",
    "day_of",
    "follow",
    "heliographic",
    "packaged_orientation",
    "source_named",
    "uvw_m",
]
