"""What was launched from a place, for those who end it or add to it later."""

from __future__ import annotations

import json
from dataclasses import replace

from opencluster.errors import LaunchFailed
from opencluster.launchers.description import ClusterFile, is_elastic
from opencluster.place import Place, replace_file


def keep_record(place: Place, file: ClusterFile) -> None:
    """Note what is launched from a place; before it is, as that may be cut short."""
    text = json.dumps(file.to_fields(), indent=2)
    replace_file(place.path / "launch.json", text + "\n")


def recorded(place: Place) -> ClusterFile | None:
    """Return what was launched from a place and not ended yet, or ``None``.

    Raises
    ------
    LaunchFailed
        When the note of it makes no sense.
    """
    path = place.path / "launch.json"
    try:
        return ClusterFile.from_fields(json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise LaunchFailed(
            f"{path} cannot be read ({error}): name the cluster file, as in "
            "`opencluster down cluster.yaml`"
        ) from None


def with_elastic_of(file: ClusterFile, before: ClusterFile) -> ClusterFile:
    """Return what is in force with what a changed file says of elastic types."""
    kept = {n: s for n, s in before.sections.items() if not is_elastic(n)}
    new = {n: s for n, s in file.sections.items() if is_elastic(n)}
    return replace(before, sections=kept | new)


def forget_record(place: Place) -> None:
    """Note that nothing of what was launched from a place runs any more."""
    (place.path / "launch.json").unlink(missing_ok=True)


def check_same_file(before: ClusterFile, file: ClusterFile) -> None:
    """Refuse a cluster file where another one is in force, which merely has its name.

    One that was moved is the same.

    Raises
    ------
    LaunchFailed
        When it is another one.
    """
    known, path = before.path, file.path
    if known.exists() and not (path.exists() and known.samefile(path)):
        raise LaunchFailed(
            f"what runs was launched by {known}: give this cluster another name "
            "(`name:` or --name), or `opencluster down` first"
        )
