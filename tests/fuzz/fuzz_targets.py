"""Everything that takes messages."""

from __future__ import annotations

from fuzz_clients import ControlEpisode
from fuzz_doors import GateEpisode, HeartEpisode
from fuzz_episode import Episode
from fuzz_factory import FactoryEpisode
from fuzz_manager import ManagerEpisode
from fuzz_status import StatusEpisode
from fuzz_transfers import TransfersEpisode
from fuzz_wire import CodecEpisode, FramesEpisode, RowsEpisode
from fuzz_worker import WorkerEpisode
from fuzz_workshop import WorkshopEpisode

TARGETS: list[type[Episode]] = [
    CodecEpisode,
    FramesEpisode,
    RowsEpisode,
    TransfersEpisode,
    FactoryEpisode,
    ControlEpisode,
    WorkerEpisode,
    ManagerEpisode,
    WorkshopEpisode,
    StatusEpisode,
    GateEpisode,
    HeartEpisode,
]
