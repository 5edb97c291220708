"""Large messages in chunks: an honest peer sends some, a stranger says anything."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from random import Random
from types import ModuleType
from typing import Any, ClassVar

from fuzz_episode import STEPS
from fuzz_net import CLOCK
from fuzz_wire import WireEpisode

from opencluster.core import chunks
from opencluster.core.roles import TRUSTED
from opencluster.net import transfers as module
from opencluster.net.transfers import Transfers
from opencluster.net.transport import Peer, TransportCounts
from opencluster.wire.transfers import (
    BEGUN,
    CEASED,
    CHUNK,
    REFUSED,
    TAKEN,
    THERE,
    Head,
    pack,
    pack_sizes,
)

HONEST, STRANGER = b"honest", b"stranger"
CHUNK_BYTES, WINDOW_BYTES = 64, 256
MAX_BYTES = 5000
MAX_COMING = 4
MAX_SAID = 50
NUMBERS = (0, 1, 2, 3, CHUNK_BYTES, 2 * CHUNK_BYTES, MAX_BYTES, 2**32 - 1, 2**63, 2**64)


class TransfersEpisode(WireEpisode):
    """Both ends of a transport, joined by two queues."""

    name = "transfers"
    modules: ClassVar[tuple[ModuleType, ...]] = (module,)
    stand_ins: ClassVar[tuple[tuple[ModuleType, str, Any], ...]] = (
        (chunks, "CHUNK_BYTES", CHUNK_BYTES),
        (chunks, "WINDOW_BYTES", WINDOW_BYTES),
        (chunks, "MAX_CHUNK_BYTES", 4 * CHUNK_BYTES),
    )

    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.there: deque[list[bytes]] = deque()
        self.here: deque[list[bytes]] = deque()
        self.said: deque[list[bytes]] = deque(maxlen=MAX_SAID)
        self.sent: list[tuple[bytes, list[bytes]]] = []
        self.came: list[tuple[bytes, list[bytes]]] = []
        self.parted: list[Peer] = []
        self.sender = self.transfers(self.to_receiver)
        self.counts = TransportCounts()
        self.receiver = self.transfers(self.to_sender, self.counts)

    def transfers(self, send: Any, counts: TransportCounts | None = None) -> Transfers:
        """Return one end."""
        counts = counts or TransportCounts()
        limits = MAX_BYTES, MAX_COMING
        return Transfers(send, self.parted.append, counts, *limits, "auto")

    def to_receiver(self, peer: Peer, header: bytes, buffers: Sequence[Any]) -> bool:
        frames = [header, *map(bytes, buffers)]
        self.said.append(frames)
        self.there.append(frames)
        return True

    def to_sender(self, peer: Peer, header: bytes, buffers: Sequence[Any]) -> bool:
        if peer == HONEST:
            self.here.append([header, *map(bytes, buffers)])
            return True
        # who is gone, now and then
        return self.random.random() < 0.9

    def run(self, steps: int = STEPS) -> None:
        super().run(steps)
        while self.there or self.here:
            self.go_on()
        assert sorted(self.came) == sorted(self.sent), "a message was lost, or bent"
        assert self.sender.is_idle
        CLOCK.now += 2 * module.GIVE_UP_S
        self.receiver.tick()
        assert self.receiver.is_idle, "memory is held for nobody"
        assert HONEST not in self.parted

    def step(self) -> None:
        random = self.random
        dice = random.random()
        if dice < 0.1 and len(self.sender.coming(HONEST)) < MAX_COMING:
            self.send()
        elif dice < 0.4:
            self.go_on()
        elif dice < 0.45:
            CLOCK.now += random.choice([0.1, 2.0])
            self.receiver.tick()
            self.sender.tick()
        else:
            self.say()
        self.check()

    def send(self) -> None:
        """Have the honest peer send something, as long as few are under way."""
        if len(self.sender._leaving) >= MAX_COMING:
            return
        random = self.random
        sizes = [random.choice([0, 1, 50, 300, 1000]) for _ in range(3)]
        buffers = [random.randbytes(size) for size in [*sizes, 70]]
        header = b"message %d" % len(self.sent)
        self.sent.append((header, buffers))
        assert self.sender.send(HONEST, header, buffers)

    def go_on(self) -> None:
        """Deliver something that an honest end said."""
        for queue, end in ((self.there, self.receiver), (self.here, self.sender)):
            if queue and (queue is self.there or self.random.random() < 0.8):
                before = self.counts.rejected_messages
                message = end.received(HONEST, queue.popleft(), TRUSTED)
                assert self.counts.rejected_messages == before
                if message is not None:
                    buffers = [bytes(buffer) for buffer in message.buffers]
                    self.came.append((bytes(message.header), buffers))

    def say(self) -> None:
        """Have the stranger say something."""
        random = self.random
        head = Head(
            random.choice([BEGUN, BEGUN, CHUNK, CHUNK, CEASED, TAKEN, REFUSED, THERE]),
            random.randrange(4),
            random.choice(NUMBERS) % 2**64,
            random.choice(NUMBERS) % 2**32,
            random.choice([0, 0, 0, 1, 2, 3, 255]),
        )
        sizes = [random.choice(NUMBERS[:-1]) for _ in range(random.randrange(4))]
        frames = [pack(head), b"header", pack_sizes(sizes)]
        if head.kind == CHUNK:
            frames[1:] = [random.randbytes(head.nbytes % 1000)]
        if self.said and random.random() < 0.3:
            frames = list(random.choice(self.said))
        if random.random() < 0.4:
            frames = [frames[0], *self.mutator.buffers(frames[1:])]
        if random.random() < 0.3:
            frames[0] = frames[0][:4] + self.mutator.damaged(frames[0][4:])
        self.last = repr(frames)[:500].encode()
        before = self.counts.rejected_messages
        message = self.receiver.received(STRANGER, frames, TRUSTED)
        assert self.counts.rejected_messages - before in (0, 1)
        assert message is None or message.peer == STRANGER

    def check(self) -> None:
        """Fail when more is kept than was sent, or a rule is broken."""
        for end in (self.sender, self.receiver):
            end._outgoing.check_invariants()
            end._incoming.check_invariants()
            assert len(end.coming(STRANGER)) <= MAX_COMING
            known = {(p, n) for p in end._incoming.peers() for n in end._incoming.of(p)}
            assert known == set(end._gathered)
