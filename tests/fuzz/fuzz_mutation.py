"""Messages made wrong: in their fields, in their bytes, in their buffers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from random import Random
from typing import Any

import msgpack

HEAD = b"OC\1\0"
MAX_TEXT = 5000
"""Longer than any text may be, and short enough to have very many."""

MAX_PATHS = 300
MAX_PATH = 12
"""Places of a value that may be made wrong, and how deep they lie."""

INTEGERS = (
    *(0, -1, 1, 2, 7, 255, 2**31, 2**53 - 1, 2**53),
    *(2**63 - 1, 2**63, 2**64 - 1, -(2**63)),
)
FLOATS = (0.0, -0.0, -1.0, 1.5, 1e308, 5e-324, float("nan"), float("inf"), -1e400)
TEXTS = (
    "",
    "\0",
    " ",
    "a",
    "x" * MAX_TEXT,
    "\ud800",
    "\u4e2d\u6587",
    "../../etc/passwd",
    "/",
    "tcp://",
    "tcp://127.0.0.1:0",
    "tcp://127.0.0.1:99999",
    "tcp://[::1]:1",
    "ipc://",
    "ipc:///\0",
    "-1",
    "1e999",
    "nan",
    "running",
    "leader",
    "follower",
    "worker",
    "workshop",
    "failure",
    "done",
)
DEPTHS = (1, 5, 15, 17, 60, 99, 101, 400)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Return the way to every place in a value."""
    yield path
    if len(path) < MAX_PATH and isinstance(value, (list, tuple, dict)):
        keys = value if isinstance(value, dict) else range(len(value))
        for key in keys:
            yield from _paths(value[key], (*path, key))


def nested(depth: int, random: Random) -> Any:
    """Return so many containers inside each other."""
    value: Any = random.choice([0, "x", [], {}])
    for _ in range(depth):
        value = [value] if random.random() < 0.5 else {"k": value}
    return value


class Mutator:
    """Makes messages wrong, as a random generator decides.

    Parameters
    ----------
    random : Random
        Decides.
    """

    def __init__(self, random: Random) -> None:
        self.random = random
        self.seen: list[Any] = []

    # --- values --------------------------------------------------------------

    def scalar(self) -> Any:
        """Return a value that tends to make trouble."""
        random = self.random
        kind = random.randrange(8)
        if kind == 0:
            return random.choice(INTEGERS)
        if kind == 1:
            return random.randrange(-10, 200)
        if kind == 2:
            return random.choice(FLOATS)
        if kind == 3:
            return random.choice(TEXTS)
        if kind == 4:
            return random.randbytes(random.randrange(40))
        if kind == 5:
            return random.choice([None, True, False])
        return random.choice([[], {}, [[]], {"": None}, {1: 2}, {None: []}, {b"k": 0}])

    def value(self) -> Any:
        """Return a value to put where another one was."""
        random = self.random
        dice = random.random()
        if dice < 0.08:
            return nested(random.choice(DEPTHS), random)
        if dice < 0.25 and self.seen:
            return random.choice(self.seen)
        if dice < 0.3:
            return [self.scalar() for _ in range(random.randrange(300))]
        if dice < 0.35:
            return {str(n): self.scalar() for n in range(random.randrange(30))}
        return self.scalar()

    def tree(self, value: Any) -> Any:
        """Return a copy of a value in which one place is wrong, each as likely."""
        paths = list(itertools.islice(_paths(value), MAX_PATHS))
        return self._changed(value, self.random.choice(paths))

    def _changed(self, value: Any, path: tuple[Any, ...]) -> Any:
        if path:
            copy = dict(value) if isinstance(value, dict) else list(value)
            copy[path[0]] = self._changed(copy[path[0]], path[1:])
            return copy
        is_container = isinstance(value, (list, tuple, dict)) and len(value) > 0
        if not is_container or self.random.random() < 0.3:
            return self._instead_of(value)
        if isinstance(value, dict):
            return self._mapping(dict(value))
        return self._sequence(list(value))

    def _instead_of(self, value: Any) -> Any:
        random = self.random
        dice = random.random()
        if dice < 0.15:
            return str(value)[:200]
        if dice < 0.25:
            return [value]
        if dice < 0.3:
            return {"k": value}
        if dice < 0.6 and type(value) is int:
            return random.choice([value - 1, value + 1, value + 2**40, *INTEGERS])
        if dice < 0.6 and type(value) is float:
            return random.choice([*FLOATS, -value, value * 1000])
        if dice < 0.5 and isinstance(value, (str, bytes)) and value:
            cut = random.randrange(len(value))
            return value[:cut] + value[cut + 1 :]
        return self.value()

    def _mapping(self, value: dict[Any, Any]) -> dict[Any, Any]:
        random = self.random
        key = random.choice(list(value))
        dice = random.random()
        if dice < 0.4:
            del value[key]
        elif dice < 0.7:
            value[random.choice(["", 1, None, b"k", "x" * MAX_TEXT])] = self.value()
        elif dice < 0.9:
            value[random.choice(list(value))] = value[key]
        else:
            value = {k: self.value() for k in value}
        return value

    def _sequence(self, value: list[Any]) -> list[Any]:
        random = self.random
        place = random.randrange(len(value))
        dice = random.random()
        if dice < 0.3:
            del value[place]
        elif dice < 0.55:
            value.insert(place, self.value())
        elif dice < 0.85:
            value += [value[place]] * random.choice([1, 1, 3, 200])
        else:
            random.shuffle(value)
        return value

    # --- bytes ---------------------------------------------------------------

    def damaged(self, data: bytes, other: bytes = b"") -> bytes:
        """Return bytes of which some are wrong."""
        random = self.random
        bent = bytearray(data)
        for _ in range(random.choice([1, 1, 2, 5])):
            place = random.randrange(len(bent) + 1)
            count = random.randrange(1, 20)
            dice = random.randrange(7)
            if dice == 0 and bent:
                bent[place % len(bent)] ^= 1 << random.randrange(8)
            elif dice == 1 and bent:
                bent[place % len(bent)] = random.randrange(256)
            elif dice == 2:
                del bent[place:]
            elif dice == 3:
                del bent[place : place + count]
            elif dice == 4:
                bent[place:place] = random.randbytes(count)
            elif dice == 5:
                bent[place:place] = bent[place : place + count]
            else:
                cut = random.randrange(len(other) + 1)
                bent[place:] = other[cut:]
        return bytes(bent)

    def buffers(self, buffers: list[bytes]) -> list[bytes]:
        """Return other buffers than a message should have."""
        random = self.random
        dice = random.randrange(5)
        if dice == 0:
            return []
        if dice == 1:
            return [*buffers, random.randbytes(random.randrange(50))]
        if dice == 2:
            return [*reversed(buffers)]
        if dice == 3:
            return [b"" for _ in buffers]
        return [self.damaged(buffer) for buffer in buffers]

    # --- messages ------------------------------------------------------------

    def message(
        self, fields: list[Any], buffers: list[bytes]
    ) -> tuple[bytes, list[bytes]]:
        """Return the frames of a message that is wrong in some way."""
        random = self.random
        self.seen = [*self.seen[-20:], random.choice(fields)]
        other = pack(fields)
        for _ in range(random.choice([0, 1, 1, 1, 2, 4])):
            fields = self.tree(fields)
        header = pack(fields)
        if random.random() < 0.1:
            header = self.damaged(header, other)
        if random.random() < 0.2:
            buffers = self.buffers(buffers)
        return header, buffers


def pack(fields: Any) -> bytes:
    """Return the header frame of fields, which may be none that anybody would send."""
    try:
        body = msgpack.packb(fields, unicode_errors="surrogatepass")
    except (ValueError, OverflowError):
        # deeper than msgpack packs, or a number larger than it knows
        body = b"\x91" * 2000 + b"\xc0"
    return HEAD + bytes(body)
