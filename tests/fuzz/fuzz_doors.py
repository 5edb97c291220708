"""The sockets that no reactor reads: where libzmq asks who may come in, and a heart.

Both are real sockets here, as what is looked at is nothing but sockets. What is told
about a message never depends on time: each is answered before the next one is sent.
"""

from __future__ import annotations

import tempfile
from random import Random
from typing import Any

import zmq
from fuzz_factory import admitted, keyring
from fuzz_wire import STEPS, WireEpisode
from zmq.utils import z85

from opencluster.core.roles import ROLES
from opencluster.core.roll import KEY_CHARACTERS
from opencluster.net.gate import ZAP_ENDPOINT, Gate
from opencluster.net.heart import HEART_PREFIX, Heart
from opencluster.net.transport import TransportCounts
from opencluster.wire import frames, kinds

WAIT_MS = 20_000
"""By then a message has come from one thread of this process to another."""
MAX_FRAMES = 6
MAX_BYTES = 3000


class GateEpisode(WireEpisode):
    """Questions of RFC 27, right and wrong, while certificates come and go."""

    name = "gate"

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.counts = TransportCounts()
        self.keys = keyring()
        self.gate = Gate(self._context, self.keys, self.counts, bytes(16))
        self.asker = self._context.socket(zmq.DEALER)
        self.asker.set(zmq.LINGER, 0)
        self.asker.connect(ZAP_ENDPOINT)

    def run(self, steps: int = STEPS) -> None:
        super().run(steps)
        self.keys.roll = admitted(self.keys.version + 1)
        self.check(self.question(z85.decode(self.keys.own.public_key)), is_good=True)

    def question(self, key: bytes) -> list[bytes]:
        """Return what libzmq asks about somebody with a key."""
        number = b"%d" % self.random.randrange(10)
        address = self.random.choice([b"127.0.0.1", b"", b"::1"])
        mechanism = [b"opencluster", address, b"", b"CURVE", key]
        return [b"", b"1.0", number, *mechanism]

    def step(self) -> None:
        random = self.random
        known = z85.decode(random.choice(ROLES)[0] * KEY_CHARACTERS)
        good = self.question(random.choice([known, random.randbytes(32)]))
        is_good = random.random() < 0.4
        frames = good if is_good else self.wrong(good)
        self.last = repr(frames).encode()
        self.check(frames, is_good)
        if random.random() < 0.1:
            self.change_roll()

    def wrong(self, good: list[bytes]) -> list[bytes]:
        """Return a question that libzmq would not ask."""
        random = self.random
        frames = list(good)
        for _ in range(random.choice([1, 1, 2])):
            place = random.randrange(len(frames))
            dice = random.randrange(4)
            if dice == 0 and len(frames) > 1:
                del frames[place]
            elif dice == 1:
                frames.insert(place, random.randbytes(random.randrange(40)))
            elif dice == 2:
                frames[place] = random.choice([b"", b"NULL", b"\xff" * 300, b"1.0"])
            else:
                frames[place] = self.mutator.damaged(frames[place], b"other")
        return frames

    def change_roll(self) -> None:
        """Revoke somebody, or admit all again."""
        version = self.keys.version + 1
        roll = admitted(version)
        if self.random.random() < 0.7:
            roll = roll.without(self.random.choice([h.name for h in roll.holders]))
        self.keys.roll = roll

    def check(self, question: list[bytes], is_good: bool) -> None:
        """Ask, and fail unless the answer is what the roll says."""
        refused = self.counts.rejected_credentials
        self.asker.send_multipart(question)
        self.gate.attend()
        replies = []
        while self.asker.poll(0):
            replies.append(self.asker.recv_multipart())
        refused = self.counts.rejected_credentials - refused
        assert len(replies) <= 1, f"{len(replies)} answers"
        if is_good:
            assert len(replies) == 1, "no answer to a good question"
        if not replies:
            return
        _, version, number, status, _, user, _ = replies[0]
        has_proof = len(question) == 8 and question[6] == b"CURVE"
        key = question[7] if has_proof and question[1] == b"1.0" else b""
        text = z85.encode(key).decode() if len(key) == 32 else ""
        is_admitted = self.keys.credential(text) is not None
        assert version == b"1.0" and number == question[2]
        assert (status, user) == (
            (b"200", text.encode()) if is_admitted else (b"400", b"")
        )
        assert refused == (not is_admitted)

    def close(self) -> None:
        self.asker.close()
        self.gate.close()
        self._context.term()


class HeartEpisode(WireEpisode):
    """A factory, or who is taken for one, sends a heart whatever comes to its mind."""

    name = "heart"

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self._directory = tempfile.TemporaryDirectory()
        endpoint = f"ipc://{self._directory.name}/heart"
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.factory = self._context.socket(zmq.ROUTER)
        self.factory.set(zmq.LINGER, 0)
        self.factory.set(zmq.ROUTER_MANDATORY, 1)
        self.factory.bind(endpoint)
        self.identity = HEART_PREFIX + b"worker-1"
        self.heart = Heart(self.identity)
        self.heart.beat_for(endpoint)
        self.heart.start()
        self.echo([frames.pack(kinds.PULSE)])

    def run(self, steps: int = STEPS) -> None:
        super().run(steps)
        self.echo([frames.pack(kinds.PULSE)])

    def step(self) -> None:
        random = self.random
        parts: list[Any] = [self.mutator.message([kinds.PULSE], [])[0]]
        for _ in range(random.randrange(MAX_FRAMES)):
            parts.append(random.randbytes(random.randrange(MAX_BYTES)))
        random.shuffle(parts)
        self.last = parts[0]
        self.echo(parts)

    def echo(self, parts: list[bytes]) -> None:
        """Fail unless what is sent comes back, all of it and as it was."""
        while True:
            try:
                self.factory.send_multipart([self.identity, *parts])
                break
            except zmq.ZMQError as error:
                assert error.errno == zmq.EHOSTUNREACH, "the heart cannot be sent to"
                # it has not connected yet
                self.factory.poll(1)
        assert self.factory.poll(WAIT_MS), "no echo"
        assert self.factory.recv_multipart() == [self.identity, *parts]

    def close(self) -> None:
        self.heart.stop()
        self.factory.close()
        self._context.term()
        self._directory.cleanup()
