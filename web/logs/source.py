"""Where pages find the logs: on all computers of the cluster, or what it left here."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from flask import current_app

from opencluster.config import Config
from opencluster.errors import OpenClusterError
from opencluster.launchers.connection import connect
from opencluster.net.control import Control
from opencluster.node.host import host_name
from opencluster.node.log_reading import names_in
from opencluster.observe.logs import Look, computers, here
from opencluster.place import Place

log = logging.getLogger(__name__)

FRESH_S = 5.0
"""For which it is known which computers there are."""


@dataclass(frozen=True)
class Found:
    """Whose logs can be looked into.

    Attributes
    ----------
    looks : mapping
        How to ask each computer.
    trouble : str
        Why only the logs on this computer are there, or empty.
    """

    looks: Mapping[str, Look]
    trouble: str = ""


class LogSource:
    """The computers whose logs can be read; may be asked from several threads.

    Parameters
    ----------
    config : Config
        The settings, which may name the factories.
    place : Place
        The cluster's directory; logs that lie there are shown when no cluster runs.
    """

    def __init__(self, config: Config, place: Place) -> None:
        self._config = config
        self._place = place
        self._lock = threading.Lock()
        self._control: Control | None = None
        self._found = Found({})
        self._looked = -FRESH_S

    def find(self) -> Found:
        """Return whose logs can be looked into."""
        with self._lock:
            if time.monotonic() - self._looked >= FRESH_S:
                self._found = self._asked()
                self._looked = time.monotonic()
            return self._found

    def names_here(self) -> list[str]:
        """Return the processes whose logs lie on this computer."""
        return names_in(self._place.logs)

    def close(self) -> None:
        """Ask nobody any more."""
        with self._lock:
            self._disconnect()

    def _asked(self) -> Found:
        try:
            if self._control is None:
                self._control = connect(self._config, self._place)
            control = self._control
            shops = {shop["host"] for shop in control.factory("find", _WORKSHOPS)}
            looks = computers(control)
        except OpenClusterError as error:
            log.info("%s", error)
            # another cluster may be there the next time
            self._disconnect()
            return Found(here(self._place), str(error))
        if host_name() not in shops and self.names_here():
            # a computer with a factory, and nobody who would be asked
            looks |= here(self._place)
        return Found(looks)

    def _disconnect(self) -> None:
        if self._control is not None:
            self._control.close()
        self._control = None


_WORKSHOPS = {"kind": "workshop"}


def log_source() -> LogSource:
    """Return the logs of the application that answers."""
    source: LogSource = current_app.extensions["opencluster_logs"]
    return source
