"""Why a value cannot be sent, and where in it the obstacle stands.

Owns the slow pass over a value that follows a failure (or a suspicion of too deep
nesting), and the advice in its messages. Encodes nothing.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, overload

from opencluster.errors import LocalProtocolError
from opencluster.wire.nesting import MAX_NESTING
from opencluster.wire.registry import (
    PLAIN_TYPES,
    Adapter,
    OutOfBand,
    adapter_for,
    full_name,
)

_MAX_KEY_CHARACTERS = 60
_CODE_TYPES = (FunctionType, BuiltinFunctionType, MethodType, ModuleType, type)


class _Obstacle(Exception):
    """What stands in the way, for use inside this module."""


@overload
def explain(value: Any, name: str, error: Exception) -> LocalProtocolError: ...


@overload
def explain(value: Any, name: str, error: None) -> LocalProtocolError | None: ...


def explain(
    value: Any, name: str, error: Exception | None
) -> LocalProtocolError | None:
    """Return the error that names the place of what cannot be sent.

    Parameters
    ----------
    value : object
        The value that could not be encoded.
    name : str
        What the path begins with.
    error : Exception or None
        What the encoding raised, told when the pass finds nothing; with None, finding
        nothing means that all is well.

    Returns
    -------
    LocalProtocolError or None
    """
    try:
        _visit(value, name, 0, [])
    except _Obstacle as obstacle:
        return LocalProtocolError(str(obstacle))
    except RecursionError:
        return LocalProtocolError(
            f"{name}: cannot send it, the call stack is nearly used up here"
        )
    if error is None:
        return None
    return LocalProtocolError(f"{name}: cannot send it: {error}")


def _visit(value: Any, path: str, depth: int, above: list[int]) -> None:
    cls = type(value)
    if cls is memoryview and not value.c_contiguous:
        raise _Obstacle(f"{path}: cannot send a memoryview with gaps; use bytes()")
    if cls is OutOfBand or (cls in PLAIN_TYPES and not isinstance(value, dict | list)):
        return
    adapter = None if cls in PLAIN_TYPES else adapter_for(cls)
    if adapter is None and cls not in PLAIN_TYPES:
        raise _Obstacle(f"{path}: cannot send {cls}; {_cure(value)}")
    if id(value) in above:
        raise _Obstacle(f"{path}: cannot send a {cls.__name__} that contains itself")
    is_level = adapter is None or adapter.is_user or _is_container(value)
    if depth + is_level > MAX_NESTING:
        raise _Obstacle(
            f"{_ends(path)}: nested deeper than {MAX_NESTING} levels; flatten it"
        )
    above.append(id(value))
    for child_path, child in _children(value, path, adapter):
        _visit(child, child_path, depth + is_level, above)
    above.pop()


def _is_container(value: Any) -> bool:
    return isinstance(value, dict | list | tuple | set | frozenset)


def _children(
    value: Any, path: str, adapter: Adapter | None
) -> Iterator[tuple[str, Any]]:
    if adapter is not None and adapter.is_user:
        yield f"{path}.pack()", _payload(value, path, adapter)
    elif isinstance(value, dict):
        for key, child in value.items():
            label = _label(key)
            yield f"{path} (key {label})", key
            yield f"{path}[{label}]", child
    elif isinstance(value, list | tuple):
        for index, child in enumerate(value):
            yield f"{path}[{index}]", child
    elif isinstance(value, set | frozenset):
        for child in value:
            yield f"{path} (member {_label(child)})", child
    elif adapter is not None:
        # What arrays and the like are made of has no path that the user would know.
        payload = _payload(value, path, adapter)
        for child in payload if type(payload) is list else [payload]:
            yield path, child


def _payload(value: Any, path: str, adapter: Adapter) -> Any:
    try:
        return adapter.pack(value)
    except LocalProtocolError as error:
        raise _Obstacle(f"{path}: {error}") from error
    except Exception as error:
        told = _cut(_shown(error))
        raise _Obstacle(
            f"{path}: cannot send {type(value)}; packing it raised {told}"
        ) from error


def _label(key: Any) -> str:
    if isinstance(key, str):
        return json.dumps(_cut(key), ensure_ascii=False)
    return _cut(_shown(key))


def _shown(value: Any) -> str:
    """Return the representation of something, which may be unable to give one."""
    try:
        return repr(value)
    except Exception:
        return object.__repr__(value)


def _cut(text: str) -> str:
    if len(text) <= _MAX_KEY_CHARACTERS:
        return text
    return text[:_MAX_KEY_CHARACTERS] + "..."


def _ends(path: str) -> str:
    """Shorten the path to something a hundred levels deep."""
    return path if len(path) <= 120 else f"{path[:80]}...{path[-30:]}"


def _cure(value: Any) -> str:
    cls = type(value)
    if isinstance(value, _CODE_TYPES):
        return "send data, and let the receiver import its own code"
    if isinstance(value, enum.Enum):
        return f"convert it to its .value or .name, {_or_register(cls)}"
    if hasattr(value, "__next__") or cls is range:
        return "convert it to a list"
    for base in cls.__mro__[1:-1]:
        if base in PLAIN_TYPES or adapter_for(base) is not None:
            return f"convert it to {full_name(base)}, {_or_register(cls)}"
    return f"convert it to a dict, list or array, {_or_register(cls)}"


def _or_register(cls: type) -> str:
    return f"or register_type({cls.__name__}, pack, unpack)"
