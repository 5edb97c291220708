"""Raw frames over real sockets, from senders that behave and from others."""

from __future__ import annotations

import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feed import START_NS, feed, with_time

from muser_pipeline.array import FRAME_PERIOD_NS
from muser_pipeline.raw.format import FORMATS
from muser_pipeline.realtime.framing import item_name
from muser_pipeline.realtime.server import MUSERSocketServer
from opencluster import Manager, WorkPiece
from opencluster.config import Config
from opencluster.config.settings import IngestSettings
from opencluster.ingest import AnswerReader, Verdict, item_head

DEADLINE_S = 30.0
SIZE = FORMATS[1].size
SHORT_NS = 25_000_000
"""Items of one loop, so that tests have little to send."""


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.002)


class Scene:
    """Servers, and what their managers were given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: dict[str, bytes] = {}
        self.tasks: list[WorkPiece] = []
        self.servers: list[MUSERSocketServer] = []
        self.gate = threading.Event()
        self.gate.set()

    def manager(self) -> Manager:
        scene = self

        class Noting(Manager):
            def schedule(self, task: WorkPiece) -> WorkPiece:
                assert scene.gate.wait(DEADLINE_S)
                assert task["item"] not in scene.seen
                scene.tasks.append(task)
                scene.seen[task["item"]] = task["frames"].tobytes()
                return WorkPiece()

        return Noting("local")

    def serve(self, array: int = 1, framing: Any = "frames", **given: Any) -> Any:
        settings = {"margin_bytes": 0, **given}
        server = MUSERSocketServer(
            array,
            self.manager,
            self.folder / f"spool-{len(self.servers)}",
            framing=framing,
            interval_ns=SHORT_NS,
            options={"clean": "none"},
            config=Config(ingest=IngestSettings(**settings)),
        )
        server.start()
        self.servers.append(server)
        return server

    def frames(self) -> bytes:
        """Return all frames that managers were given, in the order of the items."""
        return b"".join(self.seen[name] for name in sorted(self.seen))


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.gate.set()
    for server in made.servers:
        server.stop()
        assert server.wait(DEADLINE_S)


def connected(server: MUSERSocketServer) -> socket.socket:
    return socket.create_connection(server.address, DEADLINE_S)


def await_end(server: MUSERSocketServer, count: int) -> None:
    """Wait until so many connections have come and all have gone."""
    status = server.status
    wait_until(lambda: status.connections_taken == count and not status.connections)


def test_a_feed_becomes_items_in_order(scene: Scene) -> None:
    frames = feed(40, first=4)
    server = scene.serve()
    with connected(server) as sock:
        sock.sendall(frames.tobytes())
    wait_until(lambda: server.status.processed == 6)
    firsts = [START_NS + n * FRAME_PERIOD_NS for n in (4, 8, 16, 24, 32, 40)]
    assert sorted(scene.seen) == [item_name(1, time_ns) for time_ns in firsts]
    assert scene.frames() == frames.tobytes()
    assert not server.status.rejected
    task = scene.tasks[0]
    assert task["array"] == 1
    assert task["options"] == {"clean": "none"}
    assert task["frames"].dtype == np.uint8
    assert abs(task["time_utc_ns"] / 1e9 - time.time()) < 100


def test_a_sender_that_stops_in_mid_frame_costs_that_frame(scene: Scene) -> None:
    frames = feed(20)
    server = scene.serve()
    with connected(server) as sock:
        sock.sendall(frames[:10].tobytes() + frames[10].tobytes()[: SIZE // 2])
    await_end(server, 1)
    with connected(server) as sock:
        sock.sendall(frames[11:].tobytes())
    wait_until(lambda: server.status.processed == 4)
    assert scene.frames() == np.delete(frames, 10, 0).tobytes()
    assert server.status.rejected == {"cut": 1, "garbage bytes": SIZE // 2}


def test_a_sender_that_stands_still_in_mid_frame_is_cut_off(scene: Scene) -> None:
    frames = feed(9)
    server = scene.serve(slow_s=0.2, idle_s=60.0)
    with connected(server) as sock:
        sock.sendall(frames.tobytes()[: -SIZE // 2])
        # what is whole was kept when the server closes the connection
        assert sock.recv(1) == b""
    wait_until(lambda: server.status.processed == 1)
    assert scene.frames() == frames[:8].tobytes()
    assert server.status.rejected["slow"] == 1


def test_one_byte_a_second_is_not_waited_for(scene: Scene) -> None:
    # a second of it, at a hundredth of the patience
    server = scene.serve(slow_s=0.1, slow_bytes=100)
    with connected(server) as slow, connected(server) as good:
        slow.sendall(b"U")
        good.sendall(feed(9).tobytes())
        assert slow.recv(1) == b""
        wait_until(lambda: server.status.accepted == 1)
    assert server.status.rejected["slow"] == 1


def test_a_minute_of_garbage_is_passed_over(scene: Scene) -> None:
    chance = np.random.default_rng(1)
    block = chance.integers(0, 256, 1 << 20, dtype=np.uint8).tobytes()
    alike = b"\x55" * (1 << 20)
    blocks = [block] * 24 + [alike] * 8
    frames = feed(16)
    server = scene.serve()
    with connected(server) as sock:
        sock.sendall(frames[:8].tobytes())
        for each in blocks:
            sock.sendall(each)
        sock.sendall(frames[8:].tobytes())
        wait_until(lambda: server.status.accepted == 2)
    wait_until(lambda: server.status.processed == 2)
    assert scene.frames() == np.delete(frames, 7, 0).tobytes()
    # the frame before the garbage cannot be trusted
    garbage = sum(map(len, blocks)) + SIZE
    assert server.status.rejected == {"cut": 1, "garbage bytes": garbage}


def test_frames_that_cannot_be_are_counted(scene: Scene) -> None:
    frames = feed(24)
    in_2099 = int(np.datetime64("2099-12-31T00:00:00", "ns").astype(np.int64))
    stream = [
        *frames[:10],
        frames[9],
        with_time(frames[10], in_2099),
        *frames[11:14],
        frames[15],
        frames[14],
        *feed(3, 2),
        *frames[16:],
    ]
    server = scene.serve()
    with connected(server) as sock:
        sock.sendall(b"".join(frame.tobytes() for frame in stream))
    wait_until(lambda: server.status.processed == 3)
    assert scene.frames() == np.delete(frames, (10, 14), 0).tobytes()
    assert server.status.rejected == {
        "twice": 1,
        "future": 1,
        "out of order": 1,
        "other array": 3,
    }


def test_what_is_sent_again_over_a_new_connection_is_done_once(scene: Scene) -> None:
    frames = feed(16).tobytes()
    server = scene.serve()
    for count in (1, 2):
        with connected(server) as sock:
            sock.sendall(frames)
        await_end(server, count)
    wait_until(lambda: server.status.processed == 2)
    assert scene.frames() == frames
    assert server.status.known == 2


def test_two_hundred_feeds_do_not_disturb_each_other(scene: Scene) -> None:
    server = scene.serve(max_connections=200, max_connections_per_address=200)
    socks = [connected(server) for _ in range(200)]
    wait_until(lambda: server.status.connections == 200)
    with connected(server) as one_more:
        assert one_more.recv(1) == b""
    for n, sock in enumerate(socks):
        # each of an hour of its own, some of them cut
        frames = feed(2, start_ns=START_NS + n * 3600 * 10**9).tobytes()
        sock.sendall(frames[: len(frames) - n % 2])
    for sock in socks:
        sock.shutdown(socket.SHUT_WR)
    for sock in socks:
        assert sock.recv(1) == b""
        sock.close()
    wait_until(lambda: server.status.processed == 200)
    lengths = sorted(map(len, scene.seen.values()))
    assert lengths == [SIZE] * 100 + [2 * SIZE] * 100
    assert server.status.connections_refused == 1


def packed(name: str, data: bytes) -> bytes:
    return item_head(name, len(data), zlib.crc32(data)) + data


def test_items_of_frames_are_answered(scene: Scene) -> None:
    frames = feed(8)
    others = feed(2, 2).tobytes()
    late = b"".join(with_time(f, START_NS + 10**18).tobytes() for f in feed(2))
    odd = np.concatenate([frames[:3], frames[2:3], frames[3:]]).tobytes()
    sent = {
        "good": frames.tobytes(),
        "odd": odd,
        "other": others[: 4 * SIZE],
        "future": late,
        "short": frames.tobytes()[:-1],
        "good again": frames.tobytes(),
    }
    server = scene.serve(framing="items")
    found = {}
    with connected(server) as sock:
        reader = AnswerReader()
        sock.sendall(b"".join(packed(name, data) for name, data in sent.items()))
        while len(found) < len(sent):
            for answer in reader.receive(sock.recv(65536)):
                found[answer.id] = answer.verdict, answer.reason
    accepted = (Verdict.ACCEPTED, "")
    assert found == {
        "good": accepted,
        "odd": accepted,
        "other": (Verdict.REFUSED, "its frames: no sync"),
        "future": (Verdict.REFUSED, "its frames: future"),
        "short": (
            Verdict.REFUSED,
            "799,999 bytes, which are not frames of 100,000",
        ),
        "good again": accepted,
    }
    wait_until(lambda: server.status.processed == 3)
    assert scene.seen == {name: sent[name] for name in ("good", "odd", "good again")}
    assert server.status.rejected == {
        "twice": 1,
        "no sync": 3,
        "other array": 1,
        "future": 2,
        "no good frame": 2,
        "not whole frames": 1,
    }


def test_a_full_spool_holds_a_feed_back_and_loses_nothing(scene: Scene) -> None:
    frames = feed(64)
    scene.gate.clear()
    # room for three items, which cannot be processed yet
    server = scene.serve(spool_bytes=24 * SIZE, managers=1)
    with connected(server) as sock:
        sending = threading.Thread(target=sock.sendall, args=(frames.tobytes(),))
        sending.start()
        wait_until(lambda: server.status.accepted == 3)
        assert server.status.received == 3
        scene.gate.set()
        sending.join(DEADLINE_S)
        assert not sending.is_alive()
    wait_until(lambda: server.status.processed == 8)
    assert scene.frames() == frames.tobytes()
    assert server.status.dropped == 0
