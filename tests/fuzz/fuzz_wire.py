"""Bytes that become values: the codec, the frames, the rows of pieces and results."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import msgpack
import numpy as np
from fuzz_episode import STEPS, Episode
from fuzz_mutation import HEAD, pack

from opencluster.errors import LocalProtocolError, RemoteProtocolError
from opencluster.wire import codec, frames
from opencluster.wire.batches import numbers_in, pieces_in, results_in
from opencluster.workpiece import WorkPiece

MAX_REASON = 1000
"""Characters of the message of an error, whatever was sent."""
CODES = (*range(0, 20), *range(32, 39), *range(48, 51), 99, 127)


class WireEpisode(Episode):
    """What takes bytes and has no state."""

    def run(self, steps: int = STEPS) -> None:
        for _ in range(steps):
            self.executions += 1
            self.step()


# --- values of users ----------------------------------------------------------------


def plain(random: Random) -> Any:
    return [None, True, -1, 2**70, 1.5, "text\ud800", b"bytes", {"k": [1, {2: 3}]}]


def containers(random: Random) -> Any:
    return [(1,), {2}, frozenset({3}), {(4, 5): 6}, Counter("aab"), OrderedDict(a=1)]


def library(random: Random) -> Any:
    moment = datetime(2020, 1, 2, 3, 4, 5, 6, UTC)
    days = [date(2020, 1, 2), time(3, 4, fold=1), timedelta(1, 2, 3)]
    numbers = [1j, Decimal("1.5e3"), Fraction(1, 3), UUID(int=3)]
    return [moment, *days, *numbers, Path("a/b")]


def arrays(random: Random) -> Any:
    structure = np.dtype([("a", "i1"), ("b", "f8", (2,))], align=True)
    return [
        np.arange(6).reshape(2, 3),
        np.zeros(2, structure),
        np.ma.array([1, 2], mask=[0, 1], fill_value=7),
        np.float32(3),
        np.array(["2020-01-01"], "M8[s]"),
        np.asfortranarray(np.zeros((30, 40))),
        np.zeros(5000, "u1"),
        np.str_("x"),
        np.ma.masked,
    ]


def sky(random: Random) -> Any:
    import astropy.units as u
    from astropy.coordinates import EarthLocation
    from astropy.time import Time

    place = EarthLocation.from_geocentric(1, 2, 3, u.m)
    times = [Time("2020-01-01", scale="tai"), Time([1.0, 2.0], format="mjd")]
    return [[1, 2] * u.Jy / u.beam, *times, place]


VALUES = (plain, containers, library, arrays, sky)


class CodecEpisode(WireEpisode):
    """Values of users; whatever comes out must be sendable again."""

    name = "codec"

    def step(self) -> None:
        make = self.random.choice(VALUES)
        value: Any = make(self.random)
        if self.random.random() < 0.3:
            value = WorkPiece(x=value)
        data, buffers = codec.encode(value)
        own = [bytes(buffer) for buffer in buffers]
        if self.random.random() < 0.5:
            data = self.mutator.damaged(data, data)
        else:
            data = self.retyped(data)
        if self.random.random() < 0.2:
            own = self.mutator.buffers(own)
        self.last = data
        try:
            came = codec.decode(data, own)
        except RemoteProtocolError as error:
            assert len(str(error)) < MAX_REASON
            return
        try:
            codec.encode(came)
        except LocalProtocolError as error:
            # levels of values and of messages are counted differently at the bound
            assert "levels" in str(error), error

    def retyped(self, data: bytes) -> bytes:
        """Return a message in which a part has another type, or the type another part.

        The tree is that of msgpack, so that it still is a message of the codec.
        """
        random = self.random
        try:
            tree = msgpack.unpackb(
                data, strict_map_key=False, unicode_errors="surrogatepass"
            )
        except TypeError:
            # a key that is a tuple is no key before it is decoded
            return self.mutator.damaged(data, data)
        for _ in range(random.choice([1, 1, 2, 4])):
            if random.random() < 0.3:
                code = msgpack.ExtType(random.choice(CODES), b"")
                self.mutator.seen = [{code: self.mutator.value()}, {code: tree}]
            tree = self.mutator.tree(tree)
        return pack(tree).removeprefix(HEAD)


def levels(value: Any) -> int:
    """Return how many containers stand inside each other, an empty one not counted."""
    deepest, level = 0, [value]
    while level := [v for v in level if isinstance(v, list | dict) and v]:
        deepest += 1
        inner = [v.values() if isinstance(v, dict) else v for v in level]
        level = [item for values in inner for item in values]
    return deepest


# --- messages -----------------------------------------------------------------------


class FramesEpisode(WireEpisode):
    """Header frames; what is taken can be packed again."""

    name = "frames"

    def step(self) -> None:
        random = self.random
        fields = ["kind", 7, {"a": [1.5, None, "text", b"bytes"], "b": {"c": [[]]}}]
        header, _ = self.mutator.message(fields, [])
        limit = random.choice([32, 100, 300])
        self.last = header
        given = memoryview(header) if random.random() < 0.5 else header
        try:
            message = frames.unpack(given, limit)
        except RemoteProtocolError as error:
            assert len(str(error)) < MAX_REASON
            return
        assert type(message[0]) is str
        assert levels(message) <= limit
        again = frames.unpack(frames.pack(*message), 1000)
        assert repr(again) == repr(message)


class RowsEpisode(WireEpisode):
    """Rows of pieces and results, and numbers of pieces."""

    name = "rows"

    def step(self) -> None:
        random = self.random
        buffers = [b"a", b"bc", b"def"][: random.randrange(4)]
        kind = random.randrange(3)
        if kind == 0:
            rows: Any = [[n, 0, 1.5, b"payload", n] for n in range(random.randrange(4))]
        elif kind == 1:
            rows = [[n, "done", b"", n, 0.1] for n in range(random.randrange(4))]
        else:
            rows = [1, 2, 3]
        if kind < 2 and random.random() < 0.5:
            at = 3 if kind == 0 else 2
            member = [b"two", 1] if kind == 0 else ["failed", b"why", 1]
            members: list[Any] = [b"one", member, b"three"]
            for row in rows:
                row[at], row[4 - kind] = members, 1
        for _ in range(random.randrange(3)):
            rows = self.mutator.tree(rows)
        self.last = repr(rows)[:200].encode("utf-8", "surrogatepass")
        read = (pieces_in, results_in, lambda rows, _: numbers_in(rows))[kind]
        try:
            found: Any = read(rows, buffers)
        except RemoteProtocolError as error:
            assert len(str(error)) < MAX_REASON
            return
        if kind == 2:
            assert all(type(number) is int for number in found)
            return
        taken = [buffer for _, own in found for buffer in own]
        assert taken == buffers[: len(taken)]
        for row, own in found:
            assert type(row.number) is int and type(row.payload) in (bytes, list)
            if type(row.payload) is list:
                parts = [m if type(m) is bytes else m[-2] for m in row.payload]
                assert all(type(part) is bytes for part in parts)
            assert row.buffers == len(own)
            seconds = row.timeout_s if kind == 0 else row.elapsed_s
            assert 0.0 <= seconds < math.inf
