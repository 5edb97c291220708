"""Run the piece in a dead letter again, in a job of its own.

Whoever waited for its result is gone with its program. So the result goes to whoever
puts the letter back; the letter is removed when it is there, and stays otherwise.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from typing import Any

from opencluster.config import Config
from opencluster.engines.base import Job, Options, perform
from opencluster.engines.choice import find_engine
from opencluster.errors import LetterError, PoisonPiece
from opencluster.observe.dead_letters import Letters
from opencluster.place import DIRECTORY_VARIABLE, Place
from opencluster.store.dead_letters import check_id
from opencluster.wire import stored


def put_back(letters: Letters, id: str, config: Config) -> Any:
    """Have the piece of a letter performed, and remove the letter when that is done.

    Parameters
    ----------
    letters : Letters
        Where it lies.
    id : str
        Which one.
    config : Config
        The settings of the cluster that is to perform it.

    Returns
    -------
    object
        The result.

    Raises
    ------
    LetterError
        When there is no such letter, it cannot be run again, or it was quarantined
        again; then the letter that the message names has come in its place.
    WorkError
        When it ended otherwise without a result; the letter stays.
    """
    letter = letters.show(id)
    if letter["refs"]:
        raise LetterError(
            f"letter {id} refers to values that ended with its manager: "
            f"{', '.join(map(str, letter['refs']))}. Run its program again instead; "
            f"`opencluster letters delete {id}` removes the letter"
        )
    work = stored.unpack(letters.work(id))
    options = _options(letter["options"])
    engine = find_engine("cluster", config)
    job = Job(uuid.uuid4().hex[:12], f"letter {id}", started_at=time.time())
    engine.report(job)
    try:
        result = perform(engine, str(letter["type"]), work, options, job)
        job.end("done")
    except PoisonPiece as error:
        if not error.letter:
            raise
        _remove(letters, id)
        raise LetterError(
            f"the piece ended {len(error.deaths)} workers again; letter "
            f"{error.letter} has the new evidence, in the place of {id}"
        ) from error
    finally:
        job.end("failed")
        engine.report(job)
    _remove(letters, id)
    return result


def put_back_elsewhere(place: Place, id: str) -> None:
    """Begin to put a letter back in a program of its own, which outlives this one.

    What it says is in the log ``letter-ID`` of this computer.
    """
    check_id(id)
    place.logs.mkdir(parents=True, exist_ok=True, mode=0o700)
    command = [sys.executable, "-m", "opencluster", "letters", "put-back", id]
    environment = os.environ | {DIRECTORY_VARIABLE: str(place.path)}
    with (place.logs / f"letter-{id}.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    threading.Thread(target=process.wait, daemon=True).start()


def _options(given: Mapping[str, Any]) -> Options:
    """Return how a piece was to be run, as far as its letter says so."""
    known = ("priority", "timeout_s", "retries", "error_retries", "deadline_s")
    try:
        return Options(**{name: given[name] for name in known if name in given})
    except (TypeError, ValueError) as error:
        raise LetterError(
            f"a letter says how to run its piece wrongly: {error}"
        ) from None


def _remove(letters: Letters, id: str) -> None:
    # somebody may have done that meanwhile
    with contextlib.suppress(LetterError):
        letters.delete(id)
