"""Workers and a service named after those of the paper's solar telescope."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

from opencluster import Service, Worker, WorkPiece, remote

FOLDER = Path(__file__).parent


class MUSERImageCPUWorker(Worker):
    """Says who performed which frame."""

    def perform(self, work: WorkPiece) -> WorkPiece:
        if work.get_obj("is_echo"):
            return work
        result = WorkPiece(frame=work["frame"], pid=os.getpid())
        if "day" in work:
            ephemeris = self.service("ephemeris")
            result["declination_deg"] = ephemeris.declination_deg(work["day"])
        return result


class MUSERImageGPUWorker(MUSERImageCPUWorker):
    """Does the same under another type."""


class EphemerisService(Service):
    """Knows roughly where the sun is."""

    @remote
    def declination_deg(self, day: int) -> float:
        return -23.44 * math.cos(2 * math.pi * (day + 10) / 365.25)


if __name__ == "__main__":
    MUSERImageCPUWorker().ready(sys.argv[1], sys.argv[2], int(sys.argv[3]))
