"""The epochs that a factory has seen, on disk, so that none is used twice.

Owns the file. Must not decide when it is written, nor which epoch comes next.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from opencluster.core.epochs import NO_EPOCH, Epoch
from opencluster.errors import OpenClusterError, RegistryError

log = logging.getLogger(__name__)


class EpochFile:
    """One factory's file.

    Parameters
    ----------
    path : Path
        Where it stands; its directory is made.

    Raises
    ------
    OpenClusterError
        When the directory cannot be made or written to.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.parent.chmod(0o700)
            is_writable = os.access(path.parent, os.W_OK)
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from None
        if not is_writable:
            raise self._unusable("it may not be written to")

    def read(self) -> tuple[int, Epoch]:
        """Return the highest number seen, and the newest epoch known to have led.

        A file that is missing or torn counts as none.
        """
        try:
            content = json.loads(self._path.read_text())
            led = Epoch.from_fields(content["led"])
            return max(int(content["seen"]), led.number), led
        except FileNotFoundError:
            return 0, NO_EPOCH
        except (OSError, ValueError, TypeError, LookupError, RegistryError) as error:
            log.warning(
                "the epochs in %s cannot be read (%s); going on without them, as the "
                "other factories and everyone who registers know them too",
                self._path,
                error,
            )
            return 0, NO_EPOCH

    def write(self, seen: int, led: Epoch) -> None:
        """Replace the content in one step; it is on disk when this returns.

        Raises
        ------
        OSError
            When that fails; the file is as it was.
        """
        draft = self._path.with_suffix(".new")
        with draft.open("w") as file:
            file.write(json.dumps({"seen": seen, "led": list(led)}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _unusable(self, reason: str) -> OpenClusterError:
        return OpenClusterError(
            f"cannot keep the epoch in {self._path}: {reason}; "
            "give the factory a directory that it may write to (--dir)"
        )
