"""A service that everyone may call by name: where the sun stands at a given time."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from datetime import UTC, datetime

from opencluster import Manager, Service, Worker, WorkPiece, remote

J2000 = datetime(2000, 1, 1, 12, tzinfo=UTC)


class EphemerisService(Service):
    """Positions of the sun."""

    @remote
    def sun_position(self, time: datetime) -> WorkPiece:
        """Return the apparent place of the sun, good to 0.01 degrees from 1950 to 2050.

        Low-precision formulas of the Astronomical Almanac, page C5.

        Parameters
        ----------
        time : datetime
            With a time zone; the difference between UTC and TT is neglected.

        Returns
        -------
        WorkPiece
            ``ra_deg`` and ``dec_deg``, referred to the equinox of date, in degrees,
            and ``distance_au`` in astronomical units.
        """
        days = (time - J2000).total_seconds() / 86400
        mean_longitude = 280.460 + 0.9856474 * days
        anomaly = math.radians(357.528 + 0.9856003 * days)
        centre = 1.915 * math.sin(anomaly) + 0.020 * math.sin(2 * anomaly)
        longitude = math.radians(mean_longitude + centre)
        obliquity = math.radians(23.439 - 0.0000004 * days)
        x = math.cos(longitude)
        y = math.cos(obliquity) * math.sin(longitude)
        z = math.sin(obliquity) * math.sin(longitude)
        near = 0.01671 * math.cos(anomaly) + 0.00014 * math.cos(2 * anomaly)
        return WorkPiece(
            ra_deg=math.degrees(math.atan2(y, x)) % 360,
            dec_deg=math.degrees(math.asin(z)),
            distance_au=1.00014 - near,
        )


class DaylightWorker(Worker):
    """Computes how long the day is at a latitude."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        """Return the hours between sunrise and sunset, refraction neglected."""
        sun = self.service("ephemeris").sun_position(work["time"])
        slope = math.tan(math.radians(work["latitude_deg"]))
        cosine = -slope * math.tan(math.radians(sun["dec_deg"]))
        half_day = math.degrees(math.acos(min(1.0, max(-1.0, cosine))))
        return WorkPiece(work, hours=half_day / 7.5)


def year(latitude_deg: float) -> Iterator[WorkPiece]:
    """Yield a piece for a day of each month."""
    for month in range(1, 13):
        time = datetime(2026, month, 21, 12, tzinfo=UTC)
        yield WorkPiece(time=time, latitude_deg=latitude_deg)


if __name__ == "__main__":
    manager = Manager()
    sun = manager.service("ephemeris").sun_position(J2000)
    print(f"2000 January 1, noon: the sun stood at {sun['dec_deg']:.2f} degrees")
    latitude_deg = float(sys.argv[1]) if len(sys.argv) > 1 else 52.0
    for day in manager.map("Daylight", year(latitude_deg)):
        print(f"{day['time']:%d %B}  {day['hours']:5.2f} hours of daylight")
