"""The first frame of every message: what kind it is and its fields.

Owns the layout of that frame and the version of the protocol. Further frames of a
message are buffers of arrays, without any layout of their own. What the kinds mean
and which fields they have is told elsewhere.

======  ======================================================================
bytes   meaning
======  ======================================================================
0, 1    ``4F 43`` ("OC")
2       version of the protocol, 1
3       reserved, 0
4...    one msgpack array: the kind (text), then the fields
======  ======================================================================

Fields are nil, bools, integers of 64 bits, floats, text (UTF-8, lone surrogates
encoded too), bytes, arrays and maps of these. There are no extensions; a value of a
user stands in a field of bytes, encoded by `codec`.

Must not do: sockets, nor anything with the values of fields.
"""

from __future__ import annotations

from typing import Any, NoReturn

import msgpack

from opencluster.errors import LocalProtocolError, RemoteProtocolError
from opencluster.wire.nesting import MAX_NESTING, check, reason

PROTOCOL_VERSION = 1

MAX_FRAME_BYTES = 1 << 30
"""Largest header frame, payloads in fields included; large arrays are not in it."""

_MAGIC = b"OC"
_HEAD = _MAGIC + bytes([PROTOCOL_VERSION, 0])


def pack(kind: str, *fields: Any) -> bytes:
    """Return the header frame of a message.

    Parameters
    ----------
    kind : str
        What the message is.
    *fields
        Plain values, nested at most `MAX_NESTING` deep; tuples arrive as lists.

    Raises
    ------
    LocalProtocolError
        A field is not plain, or all of them together are too large.
    """
    message = (kind, *fields)
    body: bytes
    try:
        try:
            body = msgpack.packb(message)
        except UnicodeEncodeError:
            # Such text comes from file names and from the output of programs.
            body = msgpack.packb(message, unicode_errors="surrogatepass")
    except (TypeError, ValueError, OverflowError) as error:
        raise LocalProtocolError(f"cannot send {kind!r} message: {error}") from error
    if len(body) > MAX_FRAME_BYTES - len(_HEAD):
        raise LocalProtocolError(
            f"cannot send {kind!r} message: {len(body)} bytes, {MAX_FRAME_BYTES} are "
            "allowed besides arrays; send less at once, or large data as arrays"
        )
    return _HEAD + body


def unpack(frame: bytes | memoryview, max_nesting: int = MAX_NESTING) -> list[Any]:
    """Return kind and fields of a message from its header frame.

    Parameters
    ----------
    frame : bytes or memoryview
        The header frame.
    max_nesting : int
        Levels of arrays and maps that are taken, the message itself being the first.

    Raises
    ------
    RemoteProtocolError
        The frame is not one of this protocol and version; the message says why.
    """
    if frame[: len(_HEAD)] != _HEAD:
        _refuse_head(bytes(frame[: len(_HEAD)]))
    if len(frame) > MAX_FRAME_BYTES:
        raise RemoteProtocolError(
            f"oversize frame: {len(frame)} bytes, {MAX_FRAME_BYTES} are allowed"
        )
    body = memoryview(frame)[len(_HEAD) :]
    try:
        check(body, max_nesting)
        message = msgpack.unpackb(
            body,
            ext_hook=_refuse_extension,
            timestamp=_TIMESTAMP_AS_INT,
            strict_map_key=False,
            unicode_errors="surrogatepass",
        )
    except RemoteProtocolError:
        raise
    except Exception as error:
        why = reason(body, max_nesting, error)
        raise RemoteProtocolError(f"malformed frame: {why}") from error
    if type(message) is not list or not message or type(message[0]) is not str:
        raise RemoteProtocolError("malformed frame: no array that begins with a kind")
    return message


# msgpack reads its own timestamps without asking; as integers they are plain.
_TIMESTAMP_AS_INT = 2


def _refuse_extension(code: int, data: bytes) -> NoReturn:
    raise RemoteProtocolError(f"malformed frame: extension {code} among plain values")


def _refuse_head(head: bytes) -> NoReturn:
    if len(head) < len(_HEAD):
        raise RemoteProtocolError(f"truncated frame: {len(head)} bytes")
    if head[:2] != _MAGIC:
        raise RemoteProtocolError(
            f"foreign frame: begins with {head!r} instead of {_MAGIC!r}; whoever sent "
            "it speaks another protocol"
        )
    if head[2] != PROTOCOL_VERSION:
        raise RemoteProtocolError(
            f"protocol version {head[2]} came, version {PROTOCOL_VERSION} is spoken "
            "here; install the same OpenCluster on both computers"
        )
    raise RemoteProtocolError(f"malformed frame: reserved byte is {head[3]}, not 0")
