"""What is fixed about the two arrays: site, antennas, bands, channels, tables.

Nothing here is found by looking at data, and nothing depends on time except through
a date that the caller passes in.
"""

from muser_pipeline.array.description import (
    BEIJING_OFFSET_NS,
    CHANNEL_WIDTH_HZ,
    CHANNELS,
    FRAME_PERIOD_NS,
    SITE,
    SPEED_OF_LIGHT_M_PER_S,
    Array,
    Band,
    Site,
    load_array,
)
from muser_pipeline.array.tables import read_table

__all__ = [
    "BEIJING_OFFSET_NS",
    "CHANNELS",
    "CHANNEL_WIDTH_HZ",
    "FRAME_PERIOD_NS",
    "SITE",
    "SPEED_OF_LIGHT_M_PER_S",
    "Array",
    "Band",
    "Site",
    "load_array",
    "read_table",
]
