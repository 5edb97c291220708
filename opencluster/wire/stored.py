"""A value as one string of bytes, for what outlives a process.

====== ======================================================
item   meaning, in an array of msgpack
====== ======================================================
0      version of this form, 1
1      the value without its large arrays, as `codec.encode` gives it
2...   the large arrays, in order
====== ======================================================

Owns that form. Must not know where the bytes are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack

from opencluster.errors import LocalProtocolError, RemoteProtocolError
from opencluster.references import DataRef
from opencluster.wire import codec

VERSION = 1


def pack(value: Any, name: str, max_bytes: int) -> bytes:
    """Turn a value into bytes that any later process can read.

    Parameters
    ----------
    value : object
        Any value of the types that OpenCluster can send.
    name : str
        What error messages call it.
    max_bytes : int
        Most that the bytes may be.

    Raises
    ------
    LocalProtocolError
        When something in it cannot be sent, when it refers to what a worker holds,
        which would be gone by then, or when it is too large.
    """
    refs: list[DataRef] = []
    data, buffers = codec.encode(value, name, refs)
    if refs:
        raise LocalProtocolError(
            f"{name} contains {refs[0]!r}, which ends with this program: gather() the "
            "value first, or write it to a file and name that"
        )
    size = len(data) + sum(map(len, buffers))
    if size > max_bytes:
        raise LocalProtocolError(
            f"{name} has {size} bytes and the queue takes {max_bytes} "
            "([taskqueue] max_bytes): write large data to a file and name that"
        )
    packed: bytes = msgpack.packb([VERSION, data, *buffers])
    return packed


def encoded(data: bytes, buffers: Sequence[Any]) -> list[bytes]:
    """Return the same form, in parts, of a value that `codec.encode` has encoded."""
    packer = msgpack.Packer()
    head = packer.pack_array_header(2 + len(buffers)) + packer.pack(VERSION)
    return [head, packer.pack(data), *map(packer.pack, buffers)]


def unpack(packed: bytes) -> Any:
    """Turn such bytes back into the value, its arrays read-only.

    Raises
    ------
    RemoteProtocolError
        When they are none, or of a type that this process does not know.
    """
    try:
        version, data, *buffers = msgpack.unpackb(packed)
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise RemoteProtocolError(f"malformed stored value: {error}") from error
    if version != VERSION or not all(isinstance(b, bytes) for b in (data, *buffers)):
        raise RemoteProtocolError(f"a stored value of another version: {version!r:.40}")
    return codec.decode(data, buffers)
