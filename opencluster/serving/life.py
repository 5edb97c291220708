"""The life of a worker's or service's process, from its registration to its end."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from opencluster.engines.choice import ENGINE_VARIABLE
from opencluster.serving.member import Member
from opencluster.serving.station import Station


class User(Protocol):
    """What the user wrote, as far as its life goes."""

    def startup(self) -> None:
        """Prepare the process."""

    def shutdown(self) -> None:
        """Tidy up."""


class Performer(Protocol):
    """What performs the pieces that come in.

    Attributes
    ----------
    attributes : mapping
        What its entry in the registry says besides.
    """

    attributes: Mapping[str, Any]

    def piece_name(self) -> str:
        """Return the name of the piece that this thread performs, if there is one."""

    def handle_signals(self) -> None:
        """Have signals handled; called in the thread that lives."""

    def serve(self) -> None:
        """Perform what comes, until the station takes no more."""


def live(
    user: User,
    performer: Performer,
    member: Member,
    station: Station,
    host: str,
    port: int,
) -> None:
    """Register and serve until the process is asked to end.

    Parameters
    ----------
    user : User
        The worker or service.
    performer : Performer
        Runs its code.
    member : Member
        What the process is in its cluster.
    station : Station
        Where it meets the net.
    host, port
        As for `Worker.ready`.

    Raises
    ------
    OpenClusterError
        When this is not the main thread.
    """
    # whoever submits pieces in here means the cluster that this process is of
    os.environ[ENGINE_VARIABLE] = "cluster"
    _name_pieces_in_logs(performer.piece_name)
    attributes = {
        "class": type_name(user.__class__),
        "max_kept_bytes": station.keeper.budget,
        **performer.attributes,
    }
    try:
        entry = member.listen(station.transport, host, port, attributes)
        performer.handle_signals()
        user.startup()
        station.open(entry)
        performer.serve()
        user.shutdown()
        station.hand_over()
    finally:
        station.close()
        member.close()


def type_name(cls: type) -> str:
    """Return a class's full name."""
    return f"{cls.__module__}:{cls.__qualname__}"


def _name_pieces_in_logs(piece_name: Callable[[], str]) -> None:
    """Have each message that is logged say during which piece that was."""
    make = logging.getLogRecordFactory()

    def record(*arguments: Any, **options: Any) -> logging.LogRecord:
        made = make(*arguments, **options)
        made.piece = piece_name()
        return made

    logging.setLogRecordFactory(record)
