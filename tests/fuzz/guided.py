"""Let libFuzzer look for bytes that the wire does not take well; needs atheris.

    pip install atheris
    python tests/fuzz/guided.py -max_total_time=600

It is told which code its bytes reach, and so finds what chance does not. Only what has
no state is fuzzed this way; an input that breaks a rule is left in the current folder,
and is tried once more when its name is given. Options are those of libFuzzer.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["opencluster.wire"]):
    from fuzz_wire import VALUES

    from opencluster.wire import arrays, astronomy, codec, figures, frames
    from opencluster.wire.batches import numbers_in, pieces_in, results_in

from opencluster.errors import LocalProtocolError, RemoteProtocolError

ADAPTERS = (arrays, astronomy)
"""Imported here, as they come late otherwise, and are not looked into then."""
HEAD = b"OC\1\0"
BUFFERS = [b"a", b"bc", bytes(5000)]


def feed(data: bytes) -> None:
    """Read bytes in every way in which they may come."""
    for read in (as_value, as_message, figures.unpack):
        try:
            read(data)
        except RemoteProtocolError:
            continue


def as_value(data: bytes) -> None:
    """Decode a value, which must be sendable then."""
    value = codec.decode(data, BUFFERS)
    try:
        codec.encode(value)
    except LocalProtocolError as error:
        if "levels" not in str(error):
            raise


def as_message(data: bytes) -> None:
    """Unpack a message, and read its first field as the rows of each kind."""
    fields = frames.unpack(HEAD + data)
    if len(fields) < 2:
        return
    for read in (pieces_in, results_in, lambda rows, _: numbers_in(rows)):
        try:
            read(fields[1], BUFFERS)
        except RemoteProtocolError:
            continue


def seeds() -> list[bytes]:
    """Return what is right, to begin with."""
    values = [codec.encode(make(Random(1)))[0] for make in VALUES]
    rows = [[1, 0, 0.5, b"payload", 1], [2, "done", b"", 1, 0.5], 7]
    messages = [frames.pack("kind", [row])[len(HEAD) :] for row in rows]
    return [*values, *messages, figures.pack({"w1": {"gpus": [{"name": "A"}]}})]


def main() -> None:
    """Run libFuzzer, with what is right as its first inputs."""
    with tempfile.TemporaryDirectory() as directory:
        for number, seed in enumerate(seeds()):
            Path(directory, str(number)).write_bytes(seed)
        atheris.Setup([*sys.argv, directory], feed)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
