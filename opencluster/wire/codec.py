"""Values to bytes and back: what a WorkPiece looks like on the wire.

Owns `encode` and `decode`. A value becomes one string of msgpack and a list of
buffers, which hold the memory of large arrays uncopied and travel as frames of their
own. What msgpack knows (nil, bool, 64-bit integers, 64-bit floats, text, bytes,
arrays, maps) is packed by its C code without a pass in Python; everything else is a
tagged value, see `registry` for the form and `types`, `exact`, `refs`, `arrays` and
`astronomy` for the codes. Text is UTF-8 in which lone surrogates are encoded too.
References that a value contains are told of when it is encoded, and replaced when it
is decoded.

Rules that this module keeps:

1. A value arrives with the type that it had, of the types listed there, with two
   exceptions: `bytearray` and `memoryview` arrive as bytes, `numpy.memmap` as a plain
   array.
2. Arrays arrive as read-only views, of whatever size; ``array.copy()`` gives one that
   can be written to.
3. What cannot be sent raises `LocalProtocolError` with its place in the value.
4. Bytes from outside raise `RemoteProtocolError` or become a value, and take memory
   in proportion to their own size only.
5. Nothing is executed on behalf of the sender; there is no pickle here.

Must not do: sockets, files, compression, encryption.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import msgpack

from opencluster.errors import (
    LocalProtocolError,
    RemoteProtocolError,
    WorkError,
)
from opencluster.references import DataRef
from opencluster.wire.explain import explain
from opencluster.wire.nesting import (
    MAX_NESTING,
    WIRE_NESTING,
    check,
    is_deeper,
    reason,
)
from opencluster.wire.refs import REFERENCE
from opencluster.wire.registry import (
    BUFFER,
    INLINE_BYTES,
    Adapter,
    OutOfBand,
    adapter_for,
    adapter_of,
    cannot_send,
    register_type,
)
from opencluster.wire.types import WORKPIECE, workpiece_of
from opencluster.workpiece import WorkPiece

__all__ = [
    "INLINE_BYTES",
    "MAX_BUFFERS",
    "MAX_NESTING",
    "Buffer",
    "decode",
    "encode",
    "register_type",
]

Buffer = memoryview
"""What travels as a frame of its own: one dimension of bytes."""

_WORK = msgpack.packb({WORKPIECE: 0})[:-1] + b"\x92" + msgpack.packb(True)
"""How a ready WorkPiece begins, before its items: nearly every value is one, and to
recognize it takes a third of the time of a pass through its markers."""

SMALL_BYTES = 4096

MAX_BUFFERS = 1024
"""Arrays of one value that get a frame of their own; further ones go inline, since
a message has a limited number of frames."""


def encode(
    value: Any, name: str = "value", refs: list[DataRef] | None = None
) -> tuple[bytes, list[Buffer]]:
    """Turn a value into bytes and the buffers of its large arrays.

    Parameters
    ----------
    value : object
        Any value of the types that OpenCluster can send.
    name : str
        What error messages call the value.
    refs : list of DataRef, optional
        The references that the value contains are added to it.

    Returns
    -------
    data : bytes
        The value without its large arrays.
    buffers : list of memoryview
        Memory of the large arrays, theirs and not a copy where they are contiguous:
        they must not be written to until the message is sent.

    Raises
    ------
    LocalProtocolError
        Something in the value cannot be sent; the message says where it stands,
        such as ``value["spectra"][3]``.
    """
    encoder = _idle.pop() if _idle else _Encoder()
    try:
        data, buffers = encoder.encode(value)
    except (WorkError, MemoryError):
        raise  # an interrupt of this thread, or no fault of the value
    except Exception as error:
        raise explain(value, name, error) from error
    if encoder.refs:
        if refs is not None:
            refs += encoder.refs
        encoder.refs = []
    _idle.append(encoder)
    # The innermost container goes uncounted when it is empty, hence the -1.
    if len(data) >= MAX_NESTING and is_deeper(data, MAX_NESTING - 1):
        _refuse_deep(value, name, data)
    return data, buffers


def decode(
    data: bytes | memoryview,
    buffers: Sequence[memoryview | bytes] = (),
    on_ref: Callable[[DataRef], Any] | None = None,
) -> Any:
    """Turn bytes and buffers back into the value.

    Parameters
    ----------
    data : bytes or memoryview
        What `encode` returned.
    buffers : sequence of memoryview or bytes
        The buffers that came with it, in the same order. Arrays in the value are
        views of them.
    on_ref : callable, optional
        Given a reference that the value contains, returns what stands in its place;
        by default the reference itself. It may raise a `WorkError`.

    Returns
    -------
    object
        The value, its arrays read-only.

    Raises
    ------
    RemoteProtocolError
        The bytes are not those of a value.
    """
    is_work = data[: len(_WORK)] == _WORK
    if is_work and not buffers and len(data) < SMALL_BYTES:
        try:
            return _plain_workpiece(data)
        except Exception:
            # it has other types, or is malformed
            return _decode(data, buffers, on_ref, is_work)
    return _decode(data, buffers, on_ref, is_work)


def _decode(
    data: bytes | memoryview,
    buffers: Sequence[memoryview | bytes],
    on_ref: Callable[[DataRef], Any] | None,
    is_work: bool,
) -> Any:
    decoder = _Decoder(buffers, on_ref)
    try:
        check(data, WIRE_NESTING)
        value = msgpack.unpackb(
            _behind(_WORK, data) if is_work else data,
            ext_hook=decoder.marker,
            object_hook=decoder.tagged,
            strict_map_key=False,
            unicode_errors="surrogatepass",
        )
    except (RemoteProtocolError, WorkError):
        raise
    except Exception as error:
        why = reason(data, WIRE_NESTING, error)
        raise RemoteProtocolError(f"malformed value: {why}") from error
    if decoder.open_markers:
        raise RemoteProtocolError("malformed value: a type marker without its payload")
    return workpiece_of(value) if is_work else value


def _plain_workpiece(data: bytes | memoryview) -> WorkPiece:
    """Return a small WorkPiece of plain items; raise something if it is no such one.

    Most of what is sent is one, and the passes that look for other types take longer
    than all the rest.
    """
    check(data, WIRE_NESTING)
    items = msgpack.unpackb(
        _behind(_WORK, data), ext_hook=_not_plain, strict_map_key=False
    )
    return workpiece_of(items)


def _not_plain(code: int, data: bytes) -> NoReturn:
    raise ValueError("a tagged value")


def _behind(prefix: bytes, data: bytes | memoryview) -> bytes | memoryview:
    """Return what stands behind a prefix; to copy a little is cheaper than a view."""
    return (data if len(data) < SMALL_BYTES else memoryview(data))[len(prefix) :]


class _Encoder:
    """Packs values, one after the other, and gathers the buffers of each."""

    __slots__ = ("_buffers", "_packer", "refs")

    def __init__(self) -> None:
        self.refs: list[DataRef] = []
        self._buffers: list[Buffer] = []
        self._packer = self._new_packer(None)

    def encode(self, value: Any) -> tuple[bytes, list[Buffer]]:
        try:
            data: bytes
            if type(value) is WorkPiece and value.ready is True:
                # what packing it as any tagged value comes to, in half the time
                data = _WORK + self._packer.pack(dict(value))
            else:
                data = self._packer.pack(value)
        except UnicodeEncodeError:
            # Surrogates are rare and allowing them slows msgpack down.
            self._buffers = []
            self.refs = []
            data = self._new_packer("surrogatepass").pack(value)
        buffers = self._buffers
        self._buffers = []
        return data, buffers

    def _new_packer(self, unicode_errors: str | None) -> msgpack.Packer:
        return msgpack.Packer(
            default=self._tag, strict_types=True, unicode_errors=unicode_errors
        )

    def _tag(self, value: Any) -> Any:
        cls = type(value)
        if cls is OutOfBand:
            return self._buffer(value.buffer)
        adapter = adapter_for(cls)
        if adapter is None:
            raise cannot_send(str(cls), "convert it")
        marker = adapter.marker
        if marker is REFERENCE:
            self.refs.append(value)
        return {marker: adapter.pack(value)}

    def _buffer(self, buffer: Buffer) -> Any:
        if len(self._buffers) >= MAX_BUFFERS:
            return buffer
        self._buffers.append(buffer)
        return {BUFFER.marker: len(self._buffers) - 1}


_idle: list[_Encoder] = []
"""Encoders for the next values: making one takes as long as packing a small value.
There is one for each thread that was ever seen packing, and one that failed is not
used again."""


class _Decoder:
    """One decoding: turns tagged values into what they stand for."""

    __slots__ = ("_buffers", "_on_ref", "open_markers")

    def __init__(
        self,
        buffers: Sequence[memoryview | bytes],
        on_ref: Callable[[DataRef], Any] | None,
    ) -> None:
        self._buffers = buffers
        self._on_ref = on_ref
        self.open_markers = 0

    def marker(self, code: int, data: bytes) -> Adapter:
        self.open_markers += 1
        return adapter_of(code, data)

    def tagged(self, mapping: dict[Any, Any]) -> Any:
        if len(mapping) != 1:
            return mapping
        ((key, payload),) = mapping.items()
        if type(key) is not Adapter:
            return mapping
        self.open_markers -= 1
        if key is BUFFER:
            return self._buffer(payload)
        try:
            value = key.unpack(payload)
        except WorkError:
            raise
        except Exception as error:
            raise RemoteProtocolError(
                f"malformed {key.name}: {str(error) or type(error).__name__:.300}"
            ) from error
        if key.marker is REFERENCE and self._on_ref is not None:
            return self._on_ref(value)
        return value

    def _buffer(self, index: Any) -> memoryview:
        if type(index) is not int or not 0 <= index < len(self._buffers):
            raise RemoteProtocolError(
                f"malformed value: buffer {index!r:.20} of {len(self._buffers)}"
            )
        buffer = self._buffers[index]
        if type(buffer) is memoryview and buffer.readonly and buffer.format == "B":
            return buffer
        return memoryview(buffer).cast("B").toreadonly()


def _refuse_deep(value: Any, name: str, data: bytes) -> None:
    """Raise unless the value keeps `MAX_NESTING` after all.

    A tagged value is more levels on the wire than in Python, so that only a pass
    over the value itself can tell.
    """
    error: LocalProtocolError | None = explain(value, name, None)
    if error is None and is_deeper(data, WIRE_NESTING):
        error = cannot_send(f"{name}, of too many levels", "flatten it")
    if error is not None:
        raise error
