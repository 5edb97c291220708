"""The figures of a heartbeat, packed once by who reports and unpacked by who looks.

A factory keeps what came as it came: it hears of thousands of processes each second,
and of who looks at them now and then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import msgpack

from opencluster.errors import LocalProtocolError, RemoteProtocolError
from opencluster.wire import nesting

MAX_LEVELS = 8
"""Containers inside each other in figures; ours have four."""


def pack(figures: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Return figures, by the identity of whose they are, as bytes.

    Raises
    ------
    LocalProtocolError
        When they are not plain.
    """
    try:
        packed: bytes = msgpack.packb(figures)
    except (TypeError, ValueError, OverflowError) as error:
        raise LocalProtocolError(f"cannot send figures: {error}") from error
    return packed


def unpack(packed: bytes) -> dict[str, dict[str, Any]]:
    """Return figures by the identity of whose they are.

    Raises
    ------
    RemoteProtocolError
        When the bytes are no figures.
    """
    try:
        nesting.check(memoryview(packed), MAX_LEVELS)
        figures = msgpack.unpackb(
            packed,
            ext_hook=_refuse_extension,
            timestamp=_TIMESTAMP_AS_INT,
            strict_map_key=False,
        )
    except RemoteProtocolError:
        raise
    except Exception as error:
        raise RemoteProtocolError(f"malformed figures: {error}") from error
    if type(figures) is not dict or not all(
        type(identity) is str and type(of_one) is dict
        for identity, of_one in figures.items()
    ):
        raise RemoteProtocolError("malformed figures: no mapping of mappings")
    return figures


# msgpack reads its own timestamps without asking; as integers they are plain.
_TIMESTAMP_AS_INT = 2


def _refuse_extension(code: int, data: bytes) -> NoReturn:
    # in an answer to somebody else it would spoil all of that
    raise RemoteProtocolError(f"malformed figures: extension {code}")


def merged(reports: Iterable[bytes]) -> dict[str, dict[str, Any]]:
    """Return the figures of several reports; those that make no sense are left out."""
    found: dict[str, dict[str, Any]] = {}
    for report in reports:
        try:
            found |= unpack(report)
        except RemoteProtocolError:
            # who sent it harms nobody's view but that of itself
            continue
    return found
