"""How references, and those who hold values, travel.

Owns the code 19: a `DataRef` is an array of its identity (16 bytes), the size of the
value in bytes, its holder, and the number of the piece that makes it again (nil for
none). A holder is an array of the worker's identity, what tells its computer, its
endpoints and its public key.
"""

from __future__ import annotations

from typing import Any

from opencluster.references import ID_BYTES, DataRef, Holder
from opencluster.wire.registry import add_type, refuse
from opencluster.wire.types import take

MAX_ENDPOINTS = 8
"""Endpoints of one holder."""
MAX_TEXT = 4096
"""Characters of each text of a holder."""
MAX_SIZE = 1 << 62
"""Bytes of a value, and the highest number of a piece; more is a mistake."""


def holder_fields(holder: Holder) -> list[Any]:
    """Return a holder as plain values."""
    endpoints = list(holder.endpoints)
    return [holder.worker, holder.host_id, endpoints, holder.public_key]


def holder_in(fields: Any) -> Holder:
    """Return the holder in plain values from outside.

    Raises
    ------
    RemoteProtocolError
        When it is none.
    """
    worker, host_id, endpoints, public_key = take(fields, str, str, list, str)
    texts = [worker, host_id, public_key, *endpoints]
    if len(endpoints) > MAX_ENDPOINTS or not worker:
        refuse("a holder of no name, or of too many endpoints")
    if not all(type(text) is str and len(text) <= MAX_TEXT for text in texts):
        refuse("a holder whose texts are none, or too long")
    return Holder(worker, host_id, tuple(endpoints), public_key)


def id_in(value: Any) -> bytes:
    """Return the identity of a reference that came from outside.

    Raises
    ------
    RemoteProtocolError
        When it is none.
    """
    if type(value) is not bytes or len(value) != ID_BYTES:
        refuse(f"{value!r:.40} is not the identity of a reference")
    return value


def size_in(value: Any) -> int:
    """Return a size, or a number, that came from outside.

    Raises
    ------
    RemoteProtocolError
        When it is none.
    """
    if type(value) is not int or not 0 <= value < MAX_SIZE:
        refuse(f"{value!r:.40} is not a size")
    return value


def ref_fields(ref: DataRef) -> list[Any]:
    """Return a reference as plain values."""
    return [ref.id, ref.nbytes, holder_fields(ref.holder), ref.piece]


def ref_in(fields: Any) -> DataRef:
    """Return the reference in plain values from outside.

    Raises
    ------
    RemoteProtocolError
        When it is none.
    """
    identity, nbytes, holder, piece = take(fields, Any, Any, Any, Any)
    number = None if piece is None else size_in(piece)
    return DataRef(id_in(identity), size_in(nbytes), holder_in(holder), number)


REFERENCE = add_type(19, (DataRef,), ref_fields, ref_in)
"""The marker of a reference."""
