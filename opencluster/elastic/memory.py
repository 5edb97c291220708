"""What outlives the daemon, in the cluster's directory: launches, failures, jobs."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from opencluster.place import Place, replace_file

log = logging.getLogger(__name__)

Troubles = Mapping[str, tuple[int, str]]
"""By kind, how many launches failed in a row, and why nothing is launched any more."""


@dataclass(frozen=True)
class Remembered:
    """What the one before has left.

    Attributes
    ----------
    ages_s : list of float
        How long ago the launches of its last minute were, in seconds.
    troubles : mapping of str to (int, str)
        Its failures.
    means : object
        What its means remember.
    """

    ages_s: list[float] = field(default_factory=list)
    troubles: Troubles = field(default_factory=dict)
    means: Any = None


class Memory:
    """A file that is written whenever something of it has changed.

    Parameters
    ----------
    place : Place
        The cluster's directory.
    """

    def __init__(self, place: Place) -> None:
        self._path = place.path / "elastic.json"
        self._written: Any = None

    def read(self) -> Remembered:
        """Return what was written last, nothing if that makes no sense."""
        try:
            content = json.loads(self._path.read_text())
            ages_s = [time.time() - float(at) for at in content["launches"]]
            troubles = {
                str(kind): (max(0, int(failures)), str(stopped))
                for kind, (failures, stopped) in content["troubles"].items()
            }
            return Remembered(ages_s, troubles, content.get("means"))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return Remembered()

    def write(
        self, now: float, ages_s: Sequence[float], troubles: Troubles, means: Any
    ) -> None:
        """Keep all of it.

        Parameters
        ----------
        now : float
            The time of a clock that is never set, in seconds.
        ages_s : sequence of float
            How long ago launches were, in seconds.
        troubles : mapping of str to (int, str)
            Failures.
        means : object
            What the means remember, as plain data.
        """
        state = [round(now - age_s, 3) for age_s in ages_s], dict(troubles), means
        if state == self._written:
            return
        clock = time.time()
        launches = [clock - age_s for age_s in ages_s]
        content = {"launches": launches, "troubles": dict(troubles), "means": means}
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(self._path, json.dumps(content))
        except OSError as error:
            log.warning("launches would be forgotten at a restart: %s", error)
        self._written = state

    def forgive(self) -> None:
        """Forget the failures, as somebody wants launches again."""
        known = self.read()
        if known.troubles:
            self.write(time.monotonic(), known.ages_s, {}, known.means)
