"""What is done in a job of a batch system; its script runs this module.

``begin`` runs once when the job has begun: it says who the factories are, and tells the
cluster's directory. ``work`` then runs on each computer of the job, for as long as its
daemons are there.
"""

from __future__ import annotations

import importlib
import logging
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from opencluster.core.roles import FACTORY, WORKSHOP
from opencluster.errors import LaunchFailed, OpenClusterError
from opencluster.launchers import node
from opencluster.launchers.batch.ending import ended_anyway
from opencluster.launchers.batch.following import Follower
from opencluster.launchers.batch.job_folder import (
    ANSWERS_FOLDER,
    FACTORIES_FILE,
    Job,
    factory_endpoints,
    own_name,
    workshop_name,
)
from opencluster.launchers.batch.watching import System
from opencluster.launchers.order import Answer, Order
from opencluster.launchers.planning import keys_of_roles
from opencluster.place import Place

log = logging.getLogger(__name__)

NOTED_S = 90.0
"""How long the note of a job may take: longer than its submission."""
JOINED_S = 60.0
"""How long a job that joins waits for the first one to begin."""
NOTE_POLL_S = 0.5


def begin(job: Job, system: System, is_first: bool) -> None:
    """Say who the factories are; those of the first job are the cluster's.

    Raises
    ------
    LaunchFailed
        When there is no cluster to join, or nobody has noted this job.
    """
    _await_note(job)
    if is_first:

        def address_of(name: str) -> str:
            return "" if _resolves(name) else system.address_of(name)

        endpoints = factory_endpoints(job.nodes, job.id, address_of)
        rows = [{"endpoints": [endpoint]} for endpoint in endpoints]
        job.shared.write({"factories": rows, "job": job.id, "started_at": time.time()})
    else:
        endpoints = _await_first(job)
    (job.folder / ANSWERS_FOLDER).mkdir(exist_ok=True)
    (job.folder / FACTORIES_FILE).write_text("\n".join(endpoints) + "\n")
    if not job.ends_at:
        try:
            job.note_end(system.ends_at(job.id))
        except LaunchFailed as error:
            # it is asked again while the job works
            log.warning("when the job ends is not known yet: %s", error)


def _await_first(job: Job) -> list[str]:
    """Return where the factories listen, as soon as the first job has said so.

    Of two jobs that begin at the same moment the one that joins may be quicker.
    """
    deadline = time.monotonic() + JOINED_S
    while not (found := job.shared.read().get("factories", [])):
        if time.monotonic() > deadline:
            raise LaunchFailed(
                f"there is no cluster to join in {job.shared.path}: its first job has "
                "ended"
            )
        time.sleep(NOTE_POLL_S)
    return [row["endpoints"][0] for row in found]


def _await_note(job: Job) -> None:
    """Wait until the job is noted: a command that was killed before leaves an orphan.

    Nobody could end it, and it would take the place of the cluster that is known.
    """
    deadline = time.monotonic() + NOTED_S
    while not job.is_noted:
        if time.monotonic() > deadline:
            raise LaunchFailed(
                f"nobody in {job.shared.path} knows job {job.id}: the command that "
                "submitted it was killed, or it was submitted by hand; `opencluster "
                "up` or `opencluster launch` submits one that is known"
            )
        time.sleep(NOTE_POLL_S)


def _resolves(name: str) -> bool:
    try:
        socket.getaddrinfo(name, None, socket.AF_INET)
    except OSError:
        return False
    return True


def order_for(job: Job, name: str) -> Order:
    """Return what is to run on a computer of a job."""
    order, _ = job.order()
    nodes, factories = job.nodes, job.factories
    # a job that joins has none of them
    is_first = job.shared.read().get("job") == job.id
    number = nodes.index(name) + 1 if is_first else 0
    number = number if number <= len(factories) else 0
    roles = (FACTORY, WORKSHOP) if number else (WORKSHOP,)
    sections = {key: dict(values) for key, values in order.sections.items()}
    sections.setdefault("cluster", {})["factories"] = ", ".join(factories)
    sections.setdefault("workshop", {})["name"] = workshop_name(name, job.id)
    keys = job.shared.path / "keys"
    return replace(
        order,
        host=name,
        directory=str(job.folder / name),
        roles=roles,
        number=number,
        sections=sections,
        keys=keys_of_roles(roles, keys if keys.is_dir() else None),
    )


def work(job: Job, system: System) -> Answer:
    """Run this computer's part of a job until it ends."""
    name = own_name(job.nodes, os.environ, socket.gethostname())
    order = order_for(job, name)
    _, follow = job.order()
    follower = Follower(job, order, system, **follow)
    try:
        with _sockets_here(Place(Path(order.directory))), ended_anyway(order):
            follower.start()
            answer = node.run(order, follower.is_over)
    except OpenClusterError as error:
        answer = Answer(False, str(error), getattr(error, "output", ""))
    if not answer.is_done:
        (job.folder / ANSWERS_FOLDER / name).write_text(answer.to_json())
    if order.number == 1 and job.shared.read().get("job") == job.id:
        # with the factories the cluster has ended
        job.shared.forget()
    return answer


@contextmanager
def _sockets_here(place: Place) -> Iterator[None]:
    """Have the sockets and scoreboards of a place lie on this computer's own disk.

    The cluster's directory is one that many computers share: what changes many times
    a second would go over the network.
    """
    if not place.sockets.is_relative_to(place.path):
        yield
        return
    place.path.mkdir(mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="opencluster-job-") as here:
        # left behind when this job was here before, and was killed
        place.sockets.unlink(missing_ok=True)
        place.sockets.symlink_to(here)
        try:
            yield
        finally:
            place.sockets.unlink()


def main(arguments: list[str]) -> int:
    """Do what the script of a job asks; returns the exit code."""
    deed, name, folder, *role = arguments
    # what counts in a job is its order, and nothing that a shell of it sets
    for variable in [name for name in os.environ if name.startswith(node.PREFIX)]:
        del os.environ[variable]
    # to the job's output, in which all its computers write
    form = f"%(asctime)s {socket.gethostname()} %(levelname)s %(message)s"
    logging.basicConfig(level=logging.INFO, format=form)
    system: System = importlib.import_module(f"opencluster.launchers.{name}").SYSTEM
    job = Job(Path(folder))
    try:
        if deed == "begin":
            begin(job, system, role == ["first"])
            return 0
        answer = work(job, system)
    except OpenClusterError as error:
        answer = Answer(False, str(error))
    if not answer.is_done:
        print(f"opencluster: {answer.message}\n{answer.output}", file=sys.stderr)
    return 0 if answer.is_done else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
