"""What runs on the two computers of ``python -m bench lan``."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from bench.tasks import LARGE, fresh_block, touch
from bench.workers import TYPE
from opencluster import Manager, WorkPiece

if TYPE_CHECKING:
    from bench.tasks import Block

BLOCKS = 8
"""Different blocks, sent in turn: making new ones would take the time of a core."""
NUMBER_BYTES = 4


@click.group()
def main() -> None:
    """Do one part of the measure."""


@main.command()
@click.argument("address")
@click.argument("port", type=int)
def serve(address: str, port: int) -> None:
    """Take and give blocks over plain TCP, one connection after the other."""
    block, room = fresh_block(1, LARGE), bytearray(LARGE)
    with socket.create_server((address, port)) as server:
        print("ready", flush=True)
        while True:
            connection, _ = server.accept()
            with connection:
                while order := connection.recv(1 + NUMBER_BYTES, socket.MSG_WAITALL):
                    count = int.from_bytes(order[1:], "big")
                    if order[:1] == b"<":
                        _take(connection, count, room)
                        connection.sendall(b".")
                    else:
                        _give(connection, [block] * count)


@main.command()
@click.argument("address")
@click.argument("port", type=int)
@click.option("--rounds", type=int, required=True)
@click.option("--blocks", type=int, required=True, help="Sent in one go.")
def measure(address: str, port: int, rounds: int, blocks: int) -> None:
    """Measure to and from another computer, in turns; print MB/s as JSON."""
    made = [fresh_block(number, LARGE) for number in range(BLOCKS)]
    sent = [made[number % BLOCKS] for number in range(blocks)]
    sums = [touch(block) for block in sent]
    manager = Manager()
    with socket.create_connection((address, port)) as plain:
        room = bytearray(LARGE)

        def plain_out() -> None:
            plain.sendall(b"<" + blocks.to_bytes(NUMBER_BYTES, "big"))
            _give(plain, sent)
            plain.recv(1)

        def plain_back() -> None:
            plain.sendall(b">" + blocks.to_bytes(NUMBER_BYTES, "big"))
            _take(plain, blocks, room)

        def out() -> None:
            pieces = (WorkPiece(block=block) for block in sent)
            results = manager.map(TYPE, pieces, progress=False)
            assert [result["sum"] for result in results] == sums

        def back() -> None:
            pieces = (
                WorkPiece(make="fresh", number=n, size=LARGE) for n in range(blocks)
            )
            for result in manager.map(TYPE, pieces, progress=False):
                touch(result["block"])

        ways = {"tcp out": plain_out, "map out": out}
        ways |= {"tcp back": plain_back, "map back": back}
        out()  # so that the workers are met, and the windows of TCP are open
        figures = [
            {name: _rate(way, blocks) for name, way in ways.items()}
            for _ in range(rounds)
        ]
    print(json.dumps(figures))


def _rate(way: Callable[[], None], blocks: int) -> float:
    """Return how many MB/s of blocks something moves."""
    began = time.perf_counter()
    way()
    return blocks * LARGE / (time.perf_counter() - began) / 1e6


def _give(connection: socket.socket, blocks: Sequence[Block]) -> None:
    for block in blocks:
        connection.sendall(block)


def _take(connection: socket.socket, count: int, room: bytearray) -> None:
    import numpy as np

    view, array = memoryview(room), np.frombuffer(room, np.uint8)
    for _ in range(count):
        came = 0
        while came < LARGE:
            came += connection.recv_into(view[came:])
        touch(array)


if __name__ == "__main__":
    main()
