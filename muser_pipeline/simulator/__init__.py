"""Raw frames of a sky that is known: the truth that the pipeline is tested with.

What is simulated is written by the frame writer and can be read like any other data.
Chance comes from a seed, so that a simulation can be repeated bit for bit.
"""

from muser_pipeline.simulator.instrument import Instrument
from muser_pipeline.simulator.observation import Observation
from muser_pipeline.simulator.sky import Sky, SkySource, read_sky
from muser_pipeline.simulator.writing import Damage, Simulated, simulate

__all__ = [
    "Damage",
    "Instrument",
    "Observation",
    "Simulated",
    "Sky",
    "SkySource",
    "read_sky",
    "simulate",
]
