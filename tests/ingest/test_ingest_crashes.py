"""What was accepted survives kill -9 and full disks, and is processed once."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from ingest_tools import wait_until

from opencluster.ingest import ItemSender

PROGRAM = Path(__file__).with_name("ingest_programs.py")
KILLS = 3
ITEMS = 60
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}


class Program:
    """A server in a process."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), "serve", str(folder), str(port)],
            stdout=subprocess.PIPE,
            env=ENVIRONMENT,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def programs() -> Iterator[list[Program]]:
    made: list[Program] = []
    yield made
    for program in made:
        program.kill()


def contents(seed: int) -> dict[str, bytes]:
    chance = random.Random(seed)
    sizes = [chance.choice((0, 100, 50_000, 300_000, 900_000)) for _ in range(ITEMS)]
    return {f"item-{n}": bytes([n]) * size for n, size in enumerate(sizes)}


@pytest.mark.processes
def test_killing_the_server_again_and_again_costs_nothing(
    tmp_path: Path, programs: list[Program]
) -> None:
    items = contents(1)
    log = tmp_path / "log"
    log.touch()
    programs.append(Program(tmp_path))
    sender = ItemSender(("127.0.0.1", programs[0].port), patience_s=30.0)

    def send() -> None:
        for id, data in items.items():
            sender.send(id, data)
        sender.finish()

    sending = threading.Thread(target=send)
    sending.start()
    for number in range(1, KILLS + 1):
        enough = number * ITEMS // (KILLS + 1)
        wait_until(
            lambda enough=enough: sender.sent.accepted + sender.sent.known >= enough
        )
        programs[-1].kill()
        programs.append(Program(tmp_path, programs[0].port))
    sending.join(60)
    assert not sending.is_alive()
    sender.close()
    assert sender.sent.accepted + sender.sent.known == ITEMS
    assert not sender.sent.refused

    expected = {f"{id} {len(data)} {zlib.crc32(data)}" for id, data in items.items()}
    wait_until(lambda: set(log.read_text().splitlines()) == expected)
    wait_until(lambda: not list((tmp_path / "spool").glob("*.item")))
    times = Counter(log.read_text().splitlines())
    # only what ran when a server was killed may have begun twice: two at a time
    assert times.total() - ITEMS <= 2 * KILLS

    # and nothing is done once more
    programs[-1].kill()
    before = log.read_text()
    programs.append(Program(tmp_path))
    with ItemSender(("127.0.0.1", programs[-1].port)) as again:
        for id, data in items.items():
            again.send(id, data)
        again.send("last", b"x")
        sent = again.finish()
    assert (sent.known, sent.accepted) == (ITEMS, 1)
    wait_until(lambda: "last" in log.read_text())
    assert log.read_text() == f"{before}last 1 {zlib.crc32(b'x')}\n"


def test_a_full_disk_is_told_and_costs_nothing(tmp_path: Path) -> None:
    # only this process sees the small file system, which vanishes with it
    mount = 'mount -t tmpfs -o size=8m,mode=700 small "$0" && exec "$@"'
    run = [sys.executable, str(PROGRAM), "full", str(tmp_path)]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount, str(tmp_path), *run],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ok\n"
