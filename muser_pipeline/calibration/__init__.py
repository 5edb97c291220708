"""From decoded frames to visibilities that can be imaged.

Every step takes `Frames` and returns new ones; nothing is looked up that the caller
did not name, but for the packaged tables of the array.
"""

from muser_pipeline.calibration.antennas import AntennaGains, solve_antennas
from muser_pipeline.calibration.applying import (
    apply_calibration,
    make_calibration,
    table_name,
)
from muser_pipeline.calibration.cabling import exchange_inputs
from muser_pipeline.calibration.delays import correct_delays
from muser_pipeline.calibration.flagging import (
    dead_inputs,
    flag_inputs,
    flag_outliers,
    known_bad_inputs,
    saturated_inputs,
)
from muser_pipeline.calibration.static import static_delays_ns
from muser_pipeline.calibration.tables import (
    CalibrationTable,
    phases_of_20151101,
    read_calibration,
    write_calibration,
)

__all__ = [
    "AntennaGains",
    "CalibrationTable",
    "apply_calibration",
    "correct_delays",
    "dead_inputs",
    "exchange_inputs",
    "flag_inputs",
    "flag_outliers",
    "known_bad_inputs",
    "make_calibration",
    "phases_of_20151101",
    "read_calibration",
    "saturated_inputs",
    "solve_antennas",
    "static_delays_ns",
    "table_name",
    "write_calibration",
]
