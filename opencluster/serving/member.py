"""A process as a member of its cluster: its name, its keys, its scoreboard, its entry.

Must not know what the process does: workers and services are members alike.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opencluster.config import Config, load
from opencluster.core.entries import Entry
from opencluster.core.roles import WORKER
from opencluster.net.announce import announced
from opencluster.net.joined import local_endpoints
from opencluster.net.reactor import Reactor
from opencluster.net.transport import Transport
from opencluster.node.handover import (
    NAME_VARIABLE,
    SCOREBOARD_VARIABLE,
    socket_name,
)
from opencluster.node.host import host_id, host_name
from opencluster.node.scoreboard import Scoreboard
from opencluster.place import Place, factories, keys_directory, listening_endpoint
from opencluster.serving.vouched import Registration, VouchedRegistration
from opencluster.tracing import tracing_of

if TYPE_CHECKING:
    from opencluster.net.keys import Keyring


class Member:
    """What this process is in its cluster.

    Parameters
    ----------
    kind : str
        ``worker`` or ``service``.
    type : str
        What it registers: a type of work, or the name of a service.

    Attributes
    ----------
    kind, type : str
        As above.
    config : Config
        The settings.
    keys : Keyring or None
        Who it is, on a cluster with keys.
    scoreboard : Scoreboard
        Where it says how it is doing.
    tracing : Tracing or None
        What traces it, if anything does.
    """

    def __init__(self, kind: str, type: str) -> None:
        self.kind = kind
        self.type = type
        self.config: Config = load()
        self._place = Place.find()
        self.keys = _keys_in(keys_directory(self.config, self._place))
        self.tracing = tracing_of(self.config.tracing, f"opencluster-{type}")
        self._pid = os.getpid()
        self._name = os.environ.pop(NAME_VARIABLE, "") or f"{type}-{self._pid}"
        self._id = f"{self._name}.{os.urandom(6).hex()}"
        self._board_path = _handed_over(SCOREBOARD_VARIABLE)
        self.scoreboard = (
            Scoreboard.open(self._board_path)
            if self._board_path is not None
            else Scoreboard.anonymous()
        )

    @property
    def has_workshop(self) -> bool:
        """Whether a workshop started it and looks after it."""
        return self._board_path is not None

    def registration(self, reactor: Reactor) -> Registration:
        """Return its way into the registry."""
        if self._board_path is not None:
            return VouchedRegistration(self.scoreboard, self._board_path)
        # here, so that the others are spared all that has to do with factories
        from opencluster.registration import OwnRegistration

        return OwnRegistration(
            reactor,
            lambda: factories(self.config, self._place),
            self.config,
            self.scoreboard,
            self.keys,
        )

    def listen(
        self, transport: Transport, host: str, port: int, attributes: Mapping[str, Any]
    ) -> Entry:
        """Listen where it can be reached, and return its entry for the registry.

        Parameters
        ----------
        transport : Transport
            What listens.
        host, port
            As for `Worker.ready`.
        attributes : mapping
            What else the entry says.
        """
        name = (
            socket_name(self._board_path, self._pid)
            if self._board_path is not None
            else f"w-{self._id[-12:]}"
        )
        wanted = local_endpoints(transport, self._place.sockets, name)
        if port or self.config.cluster.factories:
            has_keys = self.keys is not None
            wanted.append(listening_endpoint(self.config, host, port, has_keys))
        self._place.make()
        to, known = self.config.network.announce, factories(self.config, self._place)
        endpoints = [
            announced(transport.listen(endpoint), to, known) for endpoint in wanted
        ]
        return Entry(
            id=self._id,
            kind=self.kind,
            type=self.type,
            name=self._name,
            host=host_name(),
            host_id=host_id(),
            pid=self._pid,
            endpoints=tuple(endpoints),
            attributes=dict(attributes),
            public_key="" if self.keys is None else self.keys.own.public_key,
        )

    def close(self) -> None:
        """Leave nothing open."""
        self.scoreboard.close()
        if self.tracing is not None:
            self.tracing.close()


def _handed_over(variable: str) -> Path | None:
    """Take a path out of the environment: it is not for processes of the user's."""
    path = os.environ.pop(variable, "")
    return Path(path) if path else None


def _keys_in(directory: Path | None) -> Keyring | None:
    if directory is None:
        return None
    from opencluster.net.keys import Keyring

    return Keyring.load(directory, WORKER)
