"""WorkPiece, the dictionary that users pass between managers, workers and services.

Owns the user's view of a piece of work: how it is built, read and shown. Must not
know the wire, nor import numpy or any other library of arrays.
"""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from opencluster.references import DataRef

MAX_REPR_CHARACTERS = 2000
_MAX_ITEMS = 8
_MAX_LEVEL = 4
_MAX_TEXT = 80
_MAX_INT_BITS = 512
_POINTER_BYTES = 8
_NUMBERS = frozenset({int, float})
"""Of these are most pieces of which there are many: their size must be cheap."""


class WorkPiece(dict[Any, Any]):
    """A dictionary of what a piece of work needs, or of what came out of it.

    Keys are hashable, values are of the types that OpenCluster can send (numbers,
    text, containers, dates, paths, numpy arrays and scalars, astropy quantities and
    times, registered types), nested as deep as needed.

    Parameters
    ----------
    *args : mapping, iterable of pairs, or bool
        What a dictionary takes. A bool in front of it, or alone, is the marker
        `ready` instead.
    **items
        Items whose keys are names.

    Attributes
    ----------
    ready : bool
        A marker for the receiver. It travels with the piece and is no item of it;
        two pieces with equal items are equal whatever it says.

    Examples
    --------
    >>> WorkPiece(path="a.fits", channel=3)
    WorkPiece(path='a.fits', channel=3)
    >>> WorkPiece({"x": 1}, b=2)
    WorkPiece(x=1, b=2)
    >>> WorkPiece(True).ready
    True
    """

    # of the class, as hardly any piece says otherwise: so most need no dictionary of
    # attributes besides their own
    ready = True

    def __init__(self, *args: Any, **items: Any) -> None:
        if args and isinstance(args[0], bool):
            self.ready, args = args[0], args[1:]
        super().__init__(*args, **items)

    def get_obj(self, key: Any, default: Any = None) -> Any:
        """Return the value of a key, or a default when there is none."""
        return self.get(key, default)

    def set_obj(self, key: Any, value: Any) -> None:
        """Set the value of a key."""
        self[key] = value

    # The spellings of the paper's Tables 1 and 2.
    getObj = get_obj  # noqa: N815
    setObj = set_obj  # noqa: N815

    def copy(self) -> WorkPiece:
        """Return a shallow copy, the marker included."""
        twin = WorkPiece(self)
        twin.ready = self.ready
        return twin

    @property
    def nbytes(self) -> int:
        """Approximate size of keys and values, arrays included, in bytes."""
        size = 2 * _POINTER_BYTES * len(self)
        for key, value in self.items():
            if type(key) is not str:
                return _nbytes(self, set())
            size += len(key)
            if type(value) in _NUMBERS:
                size += _POINTER_BYTES
            elif (nbytes := _flat_nbytes(value)) is not None:
                size += nbytes
            else:
                return _nbytes(self, set())
        return size

    def __repr__(self) -> str:
        return _bounded(_SHORT.repr(self))


def _nbytes(value: Any, seen: set[int]) -> int:
    size = _flat_nbytes(value)
    if size is not None:
        return size
    if id(value) in seen:
        return _POINTER_BYTES
    seen.add(id(value))
    return sum(_POINTER_BYTES + _nbytes(child, seen) for child in _children(value))


def _flat_nbytes(value: Any) -> int | None:
    """Return the size of a value that holds no other, and None for a container."""
    # of arrays first, as quickly as can be
    if hasattr(value, "dtype") and type(getattr(value, "nbytes", None)) is int:
        return int(value.nbytes)
    if isinstance(value, str | bytes | bytearray):
        return len(value)
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return None
    if type(value) is DataRef:
        return _POINTER_BYTES  # what it stands for is elsewhere
    nbytes = getattr(value, "nbytes", None)
    if isinstance(nbytes, int):
        return nbytes
    return 0 if value is None or isinstance(value, bool) else _POINTER_BYTES


def _children(container: Any) -> Iterator[Any]:
    if isinstance(container, Mapping):
        yield from container.keys()
        yield from container.values()
    else:
        yield from container


def _bounded(text: str) -> str:
    if len(text) <= MAX_REPR_CHARACTERS:
        return text
    return text[: MAX_REPR_CHARACTERS - 4] + "...)"


def _is_array(value: Any) -> bool:
    """Tell arrays of any library from scalars, which have a dtype and a shape too."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if dtype is None or not isinstance(shape, tuple):
        return False
    numpy = sys.modules.get("numpy")
    return bool(shape) or (numpy is not None and isinstance(value, numpy.ndarray))


class _Short(reprlib.Repr):
    """Representations of values for people, bounded in width and in depth."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = _MAX_LEVEL
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = _MAX_ITEMS
        self.maxdict = _MAX_ITEMS
        self.maxstring = self.maxother = self.maxlong = _MAX_TEXT

    def repr1(self, x: Any, level: int) -> str:
        if isinstance(x, WorkPiece):
            return self._workpiece(x, level)
        if _is_array(x):
            return self._array(x)
        if type(x).__module__ == "builtins":
            return super().repr1(x, level)
        if isinstance(x, dict):
            return f"{type(x).__name__}({self.repr_dict(x, level)})"
        # reprlib chooses by the bare name of a class, which anyone may have taken.
        return self.repr_instance(x, level)

    def repr_bytes(self, x: bytes | bytearray, level: int) -> str:
        text = repr(x[:_MAX_TEXT])
        return text if len(x) <= _MAX_TEXT else f"{text}... ({len(x)} bytes)"

    repr_bytearray = repr_bytes

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to print integers of more than some thousand digits.
        if x.bit_length() > _MAX_INT_BITS:
            return f"<int of {x.bit_length()} bits>"
        return super().repr_int(x, level)

    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        if level <= 0 and x:
            return "{...}"
        return "{" + self._items(x, level, "{}: {}") + "}"

    def _workpiece(self, x: WorkPiece, level: int) -> str:
        parts = [] if x.ready else ["False"]
        if level <= 0 and x:
            parts.append("...")
        elif all(isinstance(key, str) and key.isidentifier() for key in x):
            parts += [self._items(x, level, "{}={}", name=str)] if x else []
        else:
            parts.append(self.repr_dict(x, level))
        return f"WorkPiece({', '.join(parts)})"

    def _items(self, x: dict[Any, Any], level: int, form: str, name: Any = None) -> str:
        parts = []
        for key, value in islice(x.items(), self.maxdict):
            shown = name(key) if name else self.repr1(key, level - 1)
            parts.append(form.format(shown, self.repr1(value, level - 1)))
        if len(x) > self.maxdict:
            parts.append(f"... {len(x) - self.maxdict} more")
        return ", ".join(parts)

    def _array(self, x: Any) -> str:
        kind = "array" if type(x).__name__ == "ndarray" else type(x).__name__
        shape = "x".join(map(str, x.shape)) or "scalar"
        unit = getattr(x, "unit", None)
        parts = [_cut(str(x.dtype)), shape, *([_cut(str(unit))] if unit else [])]
        return f"{kind}({', '.join(parts)})"


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "..."


_SHORT = _Short()
