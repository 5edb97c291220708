"""Peers for tests: one that works, within its own process, and some that do not."""

from __future__ import annotations

import os
import subprocess
import threading

from bench.peers.base import Peer, Sums
from bench.tasks import fresh_block, touch


class Honest(Peer):
    """Does everything itself."""

    def start(self, workers: int) -> None:
        pass

    def noop(self) -> None:
        pass

    def noops(self, count: int) -> int:
        return count

    def blocks(self, count: int, size: int) -> Sums:
        return [(n, touch(fresh_block(n, size))) for n in range(count)]

    def worker_pids(self) -> list[int]:
        return [os.getpid()]

    def close(self) -> None:
        pass


class Miscounts(Honest):
    def noops(self, count: int) -> int:
        return count - 1


class Corrupts(Honest):
    def blocks(self, count: int, size: int) -> Sums:
        return [(n, answer + (n == 1)) for n, answer in super().blocks(count, size)]


class Hangs(Honest):
    def noops(self, count: int) -> int:
        threading.Event().wait()
        return count


class Dies(Honest):
    def noops(self, count: int) -> int:
        print("about to die", flush=True)
        os._exit(3)


class DoesNotStart(Honest):
    def start(self, workers: int) -> None:
        raise OSError("no room")


class Leaves(Honest):
    """Leaves a process behind that is no child of it any more."""

    def start(self, workers: int) -> None:
        subprocess.Popen(["sh", "-c", "sleep 100 & exit"], start_new_session=True)
