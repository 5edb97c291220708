"""Where pages find the dead letters of a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from flask import current_app

from opencluster.config import Config
from opencluster.errors import FactoryUnreachable
from opencluster.launchers.connection import connect
from opencluster.observe.dead_letters import Found, Letter, Letters
from opencluster.place import Place
from opencluster.putting_back import put_back_elsewhere


class LetterBox:
    """The dead letters of all computers, for one request at a time.

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

    def find(self) -> tuple[Found, str]:
        """Return all letters, and why only those of this computer, if so."""
        with self._open() as (letters, trouble):
            return letters.find(), trouble

    def show(self, id: str) -> Letter:
        """Return one letter with all evidence."""
        with self._open() as (letters, _):
            return letters.show(id)

    def delete(self, id: str) -> None:
        """Remove a letter."""
        with self._open() as (letters, _):
            letters.delete(id)

    def put_back(self, id: str) -> None:
        """Begin to run the piece of a letter again."""
        self.show(id)
        put_back_elsewhere(self._place, id)

    @contextlib.contextmanager
    def _open(self) -> Iterator[tuple[Letters, str]]:
        with contextlib.ExitStack() as ending:
            control, trouble = None, ""
            try:
                control = ending.enter_context(connect(self._config, self._place))
            except FactoryUnreachable as error:
                trouble = str(error)
            yield Letters(self._config, self._place, control), trouble


def letter_box() -> LetterBox:
    """Return the letters of the application that answers."""
    found: LetterBox = current_app.extensions["opencluster_letters"]
    return found
