"""Which types travel beyond msgpack's own, and under which code or name.

Owns the table of adapters and knows no type by itself: the modules `types`, `exact`,
`arrays` and `astronomy` enter theirs (all but the first when the first such value is
met, so that other processes stay small), users enter theirs through `register_type`.

A value of such a type travels as a map of one item, ``{marker: payload}``. The marker
is a msgpack extension that is empty for the types known here, its code being the
type, and for the types of users holds the name. The payload is whatever `pack`
returned, which may hold any sendable value. No other key of a map is an extension.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import msgpack

from opencluster.errors import LocalProtocolError, RemoteProtocolError

T = TypeVar("T")

BUFFER_CODE = 0
USER_CODE = 127
MAX_NAME_BYTES = 255
"""Longest name of a registered type, in UTF-8."""

INLINE_BYTES = 4096
"""Smallest array that should get a frame of its own. Below, copying costs less than
a frame does."""

PLAIN_TYPES = frozenset(
    {type(None), bool, int, float, str, bytes, bytearray, memoryview, list, dict}
)
"""What msgpack packs without asking (integers beyond 64 bits excepted)."""

_EXACT = "opencluster.wire.exact"
_ARRAYS = "opencluster.wire.arrays"
_ASTRONOMY = "opencluster.wire.astronomy"
_ADAPTERS_FOR = {
    **dict.fromkeys(("decimal", "fractions", "uuid"), _EXACT),
    "numpy": _ARRAYS,
    "astropy": _ASTRONOMY,
}
"""Which module enters the types of a package."""
_ADAPTERS_OF = {
    **dict.fromkeys(range(16, 19), _EXACT),
    **dict.fromkeys(range(32, 48), _ARRAYS),
    **dict.fromkeys(range(48, 64), _ASTRONOMY),
}
"""Which module enters a code."""


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """How values of a type become sendable ones and come back.

    Attributes
    ----------
    name : str
        What messages call the type.
    pack, unpack : callable
        Value to payload, payload to value. `unpack` checks what it gets.
    marker : msgpack.ExtType
        What stands for the type on the wire.
    """

    name: str
    pack: Callable[[Any], Any]
    unpack: Callable[[Any], Any]
    marker: msgpack.ExtType

    @property
    def is_user(self) -> bool:
        """Whether `register_type` made it."""
        return bool(self.marker.code == USER_CODE)


@dataclass(slots=True)
class OutOfBand:
    """Bytes inside a payload that should travel as a frame of their own."""

    buffer: memoryview


def _unused(payload: Any) -> NoReturn:
    raise NotImplementedError("the codec itself handles buffers")


BUFFER = Adapter("buffer", _unused, _unused, msgpack.ExtType(BUFFER_CODE, b""))
"""Marks the index of a buffer; its payload is handled by the codec."""

_by_class: dict[type, Adapter] = {}
_by_code: dict[int, Adapter] = {BUFFER_CODE: BUFFER}
_by_name: dict[str, Adapter] = {}


def add_type(
    code: int,
    classes: tuple[type, ...],
    pack: Callable[[Any], Any],
    unpack: Callable[[Any], Any],
) -> msgpack.ExtType:
    """Enter a type of OpenCluster's own, and return its marker.

    The code is part of the protocol.
    """
    adapter = Adapter(classes[0].__name__, pack, unpack, msgpack.ExtType(code, b""))
    _by_code[code] = adapter
    _by_class.update(dict.fromkeys(classes, adapter))
    return adapter.marker


def register_type(
    cls: type[T],
    pack: Callable[[T], Any],
    unpack: Callable[[Any], T],
    name: str | None = None,
) -> None:
    """Make values of a class sendable; call it in every process that meets them.

    Parameters
    ----------
    cls : type
        The class, matched exactly: values of its subclasses are not meant.
    pack : callable
        Takes a value and returns any sendable value.
    unpack : callable
        Takes what `pack` returned, as it arrived, and returns the value.
    name : str, optional
        What the type is called on the wire, the module and name of the class by
        default. Give one where the class is defined in a script, since its module
        is ``__main__`` there and something else at the receiver.

    Raises
    ------
    ValueError
        The class is sendable already, or another class has the name.

    Examples
    --------
    >>> class Beam:
    ...     def __init__(self, width_rad):
    ...         self.width_rad = width_rad
    >>> register_type(Beam, lambda beam: beam.width_rad, Beam, name="my.Beam")
    """
    name = name or full_name(cls)
    known = adapter_for(cls)
    if cls in PLAIN_TYPES or (known and not known.is_user):
        raise ValueError(f"{full_name(cls)} can be sent already")
    data = name.encode()
    if len(data) > MAX_NAME_BYTES:
        raise ValueError(f"the name {name[:40]!r}... is over {MAX_NAME_BYTES} bytes")
    # A class defined again, by a reloaded module or a notebook, replaces itself.
    owners = {full_name(c) for c, a in list(_by_class.items()) if a.name == name}
    if name in _by_name and owners - {full_name(cls)}:
        raise ValueError(f"{name!r} is already the name of {', '.join(owners)}")
    adapter = Adapter(name, pack, unpack, msgpack.ExtType(USER_CODE, data))
    _by_name[name] = _by_class[cls] = adapter


def full_name(cls: type) -> str:
    """Return module (unless it is Python's own) and name of a class."""
    module = "" if cls.__module__ == "builtins" else f"{cls.__module__}."
    return module + cls.__qualname__


def adapter_for(cls: type) -> Adapter | None:
    """Return the adapter for values of exactly this class, if there is one."""
    adapter = _by_class.get(cls)
    if adapter is None:
        module = _ADAPTERS_FOR.get(str(cls.__module__).partition(".")[0])
        if module is not None:
            importlib.import_module(module)
            adapter = _by_class.get(cls)
    return adapter


def adapter_of(code: int, data: bytes) -> Adapter:
    """Return the adapter that a marker from the wire means.

    Raises
    ------
    RemoteProtocolError
        Nothing is known by this code or name.
    """
    if code == USER_CODE:
        return _user_adapter(data)
    adapter = _by_code.get(code)
    if adapter is None:
        adapter = _load_adapter(code)
    if adapter is None:
        raise RemoteProtocolError(
            f"a value of the unknown type code {code} came; is the sender's "
            "OpenCluster newer than this one?"
        )
    if data:
        raise RemoteProtocolError(f"malformed marker of the type code {code}")
    return adapter


def _user_adapter(data: bytes) -> Adapter:
    name = data.decode("utf-8", "replace")
    adapter = _by_name.get(name)
    if adapter is None:
        shown = repr(name)[: MAX_NAME_BYTES + 2]
        raise RemoteProtocolError(
            "a value came whose type is not known here; call "
            f"register_type(..., name={shown}) in this process too"
        )
    return adapter


def _load_adapter(code: int) -> Adapter | None:
    try:
        if code in _ADAPTERS_OF:
            importlib.import_module(_ADAPTERS_OF[code])
    except ImportError as error:
        raise RemoteProtocolError(
            f"a value came that needs a library this computer lacks: {error}"
        ) from error
    return _by_code.get(code)


def refuse(reason: str) -> NoReturn:
    """Raise what an `unpack` raises when it is given something malformed."""
    raise RemoteProtocolError(reason)


def cannot_send(what: str, cure: str) -> LocalProtocolError:
    """Return the error for a value that cannot be sent; the codec adds its path."""
    return LocalProtocolError(f"cannot send {what}; {cure}")
