"""How a newer roll reaches this process: a factory tells its version, and is asked.

Every factory tells the version of its roll with its greetings, answers and beats. Who
has an older one asks for it and keeps it in its directory of keys, where the other
processes of the computer find it.
"""

from __future__ import annotations

import logging
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from opencluster.core.roles import Credential
from opencluster.core.roll import Roll
from opencluster.errors import SecurityError
from opencluster.net.requests import Requests
from opencluster.net.transport import Peer

if TYPE_CHECKING:
    from opencluster.net.keys import Keyring

log = logging.getLogger(__name__)

ANSWER_S = 5.0
"""How long the answer may take; it is asked for again when the version is next told."""


class Rolls:
    """Follows the roll of the factories; for use in the reactor's thread.

    Parameters
    ----------
    requests : Requests
        Carries the question.
    keys : Keyring, optional
        Takes in what is newer; without it there is nothing to follow.
    """

    def __init__(self, requests: Requests, keys: Keyring | None) -> None:
        self._requests = requests
        self._keys = keys
        self._is_asked = False

    @property
    def version(self) -> int:
        """Of the roll that is known here, 0 without keys."""
        return 0 if self._keys is None else self._keys.version

    def key_of(self, who: Credential) -> str:
        """Return somebody's public key, empty without keys."""
        return "" if self._keys is None else self._keys.roll.key_of(who)

    def to_fields(self) -> dict[str, Any]:
        """Return the roll that is known here as plain types."""
        return (Roll() if self._keys is None else self._keys.roll).to_fields()

    def accept(self, fields: Any) -> int:
        """Take in a roll, unless it is older, and return the version that holds.

        Raises
        ------
        SecurityError
            When it is none, or there are no keys here.
        """
        if self._keys is None:
            raise SecurityError(
                "this factory runs without keys: give it a directory of keys "
                "([cluster] keys), and start it again"
            )
        self._keys.accept(fields)
        return self._keys.version

    def told(self, peer: Peer, version: Any) -> None:
        """Take in which version the factory has that a connection of ours leads to."""
        if self._keys is None or self._is_asked or type(version) is not int:
            return
        if version > self._keys.version:
            self._is_asked = True
            asked = self._requests.ask(peer, "roll", {}, ANSWER_S)
            asked.add_done_callback(self._answered)

    def _answered(self, asked: Future[Any]) -> None:
        self._is_asked = False
        if self._keys is None or asked.exception() is not None:
            return
        try:
            self._keys.accept(asked.result())
        except SecurityError as error:
            log.error("a factory sent a roll that makes no sense: %.500s", error)
