"""Where pages find the status of the cluster: from a factory, asked once for all."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from flask import current_app

from opencluster.config import Config
from opencluster.errors import OpenClusterError
from opencluster.launchers.connection import connect
from opencluster.net.control import Control
from opencluster.observe.status import Row, status_of
from opencluster.place import Place

log = logging.getLogger(__name__)

FRESH_S = 1.0
"""For which an answer is good for everybody; figures change with every heartbeat."""
PATIENCE_S = 3.0
"""A page does not wait longer for a factory."""
Status = Mapping[str, list[Row]]

NOTHING: Status = {
    name: []
    for name in (
        *("factories", "workshops", "workers", "services"),
        *("jobs", "failures", "deaths"),
    )
}


@dataclass(frozen=True)
class Look:
    """What was seen of the cluster.

    Attributes
    ----------
    status : mapping
        The last status that came; see docs/status.md.
    trouble : str
        Why there is no newer one, or empty.
    """

    status: Status = field(default_factory=lambda: NOTHING)
    trouble: str = ""


class ClusterSource:
    """The status of a cluster; may be asked from several threads.

    Parameters
    ----------
    config : Config
        The settings, which may name the factories.
    place : Place
        The cluster's directory, when they do not.
    """

    def __init__(self, config: Config, place: Place) -> None:
        self._config = config
        self._place = place
        self._lock = threading.Lock()
        self._control: Control | None = None
        self._look = Look()
        self._looked = -FRESH_S

    def look(self) -> Look:
        """Return how the cluster is, or was when it was last heard of."""
        with self._lock:
            if time.monotonic() - self._looked >= FRESH_S:
                self._look = self._asked()
                self._looked = time.monotonic()
            return self._look

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._disconnect()

    def _asked(self) -> Look:
        try:
            if self._control is None:
                self._control = connect(self._config, self._place)
            answer = self._control.factory("status", None, PATIENCE_S, may_be_old=True)
            return Look(status_of(answer))
        except OpenClusterError as error:
            log.info("%s", error)
            # another cluster may be there the next time
            self._disconnect()
            return Look(self._look.status, str(error))

    def _disconnect(self) -> None:
        if self._control is not None:
            self._control.close()
        self._control = None


def cluster_source() -> ClusterSource:
    """Return the cluster of the application that answers."""
    source: ClusterSource = current_app.extensions["opencluster_cluster"]
    return source
