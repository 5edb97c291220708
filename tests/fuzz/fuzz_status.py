"""What ``opencluster status`` makes of what any process says about itself."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from fuzz_factory import entry, job
from fuzz_wire import WireEpisode
from rich.console import Console

from opencluster.cli.status_tables import page
from opencluster.core.entries import Entry
from opencluster.core.registry import Registry
from opencluster.errors import LocalProtocolError, RegistryError
from opencluster.observe.status import health, status_of
from opencluster.wire import figures, frames

CAUSE = {"reason": "it ended", "exit_code": 1, "output": "no\n", "piece": "p:1"}


class StatusEpisode(WireEpisode):
    """A registry takes what it is told, and the status shows it to people."""

    name = "status"

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.registry = Registry(max_entries=20)
        self.console = Console(width=120, file=None, record=False)

    def step(self) -> None:
        random = self.random
        said = [entry(random), entry(random), job(random)["job"], dict(CAUSE)]
        bent = [self.bend(fields) for fields in said]
        for fields in bent[:2]:
            self.tell(lambda fields=fields: self.register(fields))
        self.tell(lambda: self.registry.report_job(1.0, bent[2]))
        known = [one.id for one in self.registry.find()]
        if len(known) > 10:
            self.tell(lambda: self.registry.remove(known[0], bent[3], 1.0))
        elif known:
            packed = self.newest(random.choice(known))
            self.tell(lambda: self.registry.renew(1.0, known[-1:], packed))
        if random.random() < 0.1:
            self.show()

    def bend(self, fields: dict[str, Any]) -> Any:
        """Return what somebody says, wrong as often as not."""
        return fields if self.random.random() < 0.5 else self.mutator.tree(fields)

    def newest(self, identity: str) -> bytes:
        """Return figures, in bytes."""
        computer = {"cpu_percent": 1.5, "cpu_count": 4, "memory_total_bytes": 10}
        work = {"rss_bytes": 5, "piece": "p", "progress_done": 1, "progress_total": 2}
        gpus = [{"name": "A", "uuid": "b", "memory_used_bytes": 7}]
        said = {identity: {"state": "busy", "gpus": gpus, **computer, **work}}
        try:
            return figures.pack(self.mutator.tree(said))
        except LocalProtocolError:
            return b"none"

    def register(self, fields: Any) -> None:
        self.registry.register(0.0, Entry.from_fields(fields, self.registry.bounds))

    @staticmethod
    def tell(say: Any) -> None:
        """Say something that may be refused."""
        try:
            say()
        except (RegistryError, TypeError):
            return

    def show(self) -> None:
        """Make of it what a person, or a program, sees."""
        snapshot = self.registry.snapshot()
        reports = figures.merged(snapshot["figures"].values())
        answer = snapshot | {"figures": reports, "factories": []}
        came = frames.unpack(frames.pack("reply", answer))[1]
        status = status_of(came)
        json.dumps(status).encode()
        assert health(status)
        with self.console.capture() as captured:
            self.console.print(page(status))
        captured.get().encode()
