"""Dead letters of all computers: pieces that ended every worker which took them.

A letter lies on the computer of the manager whose piece it was. What lies on this
computer is read here, whether or not a cluster runs; everything else by asking the
workshop of its computer.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from opencluster.config import Config
from opencluster.errors import LetterError, OpenClusterError
from opencluster.net.control import Control
from opencluster.place import Place
from opencluster.store.dead_letters import (
    MAX_TIME_S,
    DeadLetters,
    check_id,
    checked_head,
)

PATIENCE_S = 3.0
"""How long a list waits for one computer."""
ASKED_AT_ONCE = 16

Letter = dict[str, Any]
"""A letter in plain types: ``id``, ``at`` (seconds since 1970), ``type``, ``number``,
``job`` (``id``, ``name``), ``host`` (where it lies), ``user``, ``options``, ``deaths``
(a list of evidence: ``worker``, ``host``, ``reason``, ``output`` and so on),
``message``, ``nbytes``, ``refs``. In a list, ``deaths`` is their number, and ``reason``
the last one's."""


@dataclass(frozen=True)
class Found:
    """The letters of a cluster.

    Attributes
    ----------
    letters : list of dict
        The newest first.
    silent : list of str
        Computers that could not be asked.
    """

    letters: list[Letter] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)


class Letters:
    """The dead letters of a cluster, wherever they lie.

    Parameters
    ----------
    config : Config
        The settings.
    place : Place
        The cluster's directory on this computer.
    control : Control or None
        The way to the other computers; without it only this one is looked at.
    """

    def __init__(self, config: Config, place: Place, control: Control | None) -> None:
        self._here = DeadLetters(place.letters)
        self._control = control
        self._part_bytes = config.limits.max_request_bytes // 2

    def find(self) -> Found:
        """Return all letters, without the work in them."""
        letters = {row["id"]: row for row in self._here.rows()}
        silent: list[str] = []
        for shop, rows in self._elsewhere():
            if rows is None:
                silent.append(str(shop["name"]))
            else:
                letters = {row["id"]: row for row in rows} | letters
        return Found(sorted(letters.values(), key=lambda row: -row["at"]), silent)

    def show(self, id: str) -> Letter:
        """Return one letter with all its evidence.

        Raises
        ------
        LetterError
            When there is none.
        """
        shop = self._holder(id)
        if shop is None:
            return self._here.head(id)
        return checked_head(self._ask(shop, "letters", {"id": id})["letters"][0], id)

    def work(self, id: str) -> bytes:
        """Return the work of a letter, in the form of `wire.stored`.

        Raises
        ------
        LetterError
            When there is none.
        """
        shop = self._holder(id)
        if shop is None:
            return self._here.work(id)
        nbytes, data = int(self.show(id)["nbytes"]), bytearray()
        while len(data) < nbytes:
            asked = {"id": id, "offset": len(data), "length": self._part_bytes}
            part = self._ask(shop, "letter_work", asked)
            if not isinstance(part, bytes) or not part:
                raise LetterError(f"letter {id} cannot be read to its end")
            data += part
        return bytes(data)

    def delete(self, id: str) -> None:
        """Remove a letter.

        Raises
        ------
        LetterError
            When there is none, or it cannot be removed.
        """
        shop = self._holder(id)
        if shop is None:
            self._here.delete(id)
        else:
            self._ask(shop, "delete_letter", {"id": id})

    # --- inside --------------------------------------------------------------

    def _holder(self, id: str) -> Mapping[str, Any] | None:
        """Return the workshop where a letter lies, or ``None`` for this computer."""
        check_id(id)
        if self._here.has(id):
            return None
        for shop, rows in self._elsewhere():
            if any(row["id"] == id for row in rows or ()):
                return shop
        raise LetterError(
            f"there is no dead letter {id}, or its computer does not answer; "
            "`opencluster letters list` shows those that can be read"
        )

    def _elsewhere(self) -> list[tuple[Mapping[str, Any], list[Letter] | None]]:
        """Return each workshop with its letters; ``None`` if it did not say."""
        if self._control is None:
            return []
        shops = list(self._control.factory("find", {"kind": "workshop"}))
        with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
            return list(zip(shops, pool.map(self._rows_at, shops), strict=True))

    def _rows_at(self, shop: Mapping[str, Any]) -> list[Letter] | None:
        try:
            answer = self._ask(shop, "letters", {}, PATIENCE_S)
            return [_row(row) for row in answer["letters"]]
        except (OpenClusterError, LookupError, TypeError, ValueError):
            return None

    def _ask(
        self,
        shop: Mapping[str, Any],
        operation: str,
        arguments: Mapping[str, Any],
        timeout_s: float | None = None,
    ) -> Any:
        assert self._control is not None
        return self._control.workshop(shop, operation, arguments, timeout_s)


def _row(row: Any) -> Letter:
    """Return a row of a list as it should be, whatever a workshop sent."""
    check_id(row["id"])
    if not 0 <= row["at"] < MAX_TIME_S:
        raise ValueError("a letter is of no time")
    return dict(row) | {
        "at": float(row["at"]),
        "nbytes": int(row["nbytes"]),
        "deaths": int(row["deaths"]),
        "reason": str(row["reason"]),
    }
