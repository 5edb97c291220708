"""How deep a message may nest, and the check of its structure before it is built.

The check runs at the speed of C and builds no object: it skips over the message once.
It refuses what is cut off, so that an array header cannot announce more elements than
bytes follow (msgpack takes memory for each header when it sees it, and nested headers
multiply), and what nests deeper than allowed, so that nothing that works on the values
later runs out of stack. Knows nothing of types.
"""

from __future__ import annotations

import msgpack

MAX_NESTING = 100
"""Containers inside each other that a value of a user may have, and by default those
of a message, for which each process has a setting of its own."""

WIRE_NESTING = 3 * MAX_NESTING + 10
"""Levels of msgpack that these may become: a tagged value is a map, an array and its
contents, and what stands innermost, such as a masked array, has a few of its own."""

_STACK = 1024
"""Levels that msgpack's C extension keeps on its stack; one more is a `StackError`."""

_ONE_LEVEL = b"\x91"

_MAX_REASON = 300

if not msgpack.Unpacker.__module__.endswith("_cmsgpack"):
    raise ImportError(
        "OpenCluster needs the C extension of msgpack, and found only its Python "
        "fallback; unset MSGPACK_PUREPYTHON or install a binary wheel of msgpack"
    )


class StructureError(ValueError):
    """The bytes are cut off, malformed or nested too deep; the message says which."""


def is_deeper(data: bytes, limit: int) -> bool:
    """Tell whether well-formed msgpack nests deeper than a limit.

    The innermost container counts only when it is not empty.
    """
    try:
        check(data, limit)
    except StructureError:
        return True
    return False


def check(data: bytes | memoryview, limit: int) -> None:
    """Raise `StructureError` unless the first value in the data is whole.

    Parameters
    ----------
    data : bytes or memoryview
        One msgpack value.
    limit : int
        Levels of containers allowed, at most 1024.
    """
    # What is shorter can neither nest deeper nor announce much.
    if len(data) > limit:
        _skip(data, limit)


def reason(data: bytes | memoryview, limit: int, error: Exception) -> str:
    """Return in words why bytes could not be unpacked, given what unpacking raised."""
    try:
        _skip(data, limit)
    except StructureError as fault:
        return str(fault)
    if isinstance(error, msgpack.ExtraData):
        return "more bytes than its headers announce"
    text = str(error) or type(error).__name__
    return text if len(text) <= _MAX_REASON else text[:_MAX_REASON] + "..."


def _skip(data: bytes | memoryview, limit: int) -> None:
    # msgpack takes no limit of nesting, so all but the allowed levels of its stack
    # are filled beforehand.
    prefix = _ONE_LEVEL * (_STACK - limit)
    size = len(prefix) + len(data)
    unpacker = msgpack.Unpacker(read_size=size, max_buffer_size=size)
    unpacker.feed(prefix)
    unpacker.feed(data)
    try:
        unpacker.skip()
    except msgpack.OutOfData:
        raise StructureError("cut off: fewer bytes than its headers announce") from None
    except msgpack.StackError:
        raise StructureError(f"nested deeper than {limit} levels") from None
    except ValueError as error:
        raise StructureError(str(error) or "a type byte that is none") from None
