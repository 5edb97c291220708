"""A section of the configuration as a class.

Owns how the keys that a section declares become its values. Knows none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, FrozenInstanceError
from typing import Any, ClassVar, Self, dataclass_transform

from opencluster.config.values import Setting


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Settings:
    """The values of one section: given by their keys, and never changed.

    A section is a class below this one, and declares each key by a `field` that has a
    default and, in its metadata, a ``setting``. It is no dataclass: making one takes
    half a millisecond, and every process would make them all when it starts.

    Attributes
    ----------
    settings : mapping
        What is declared, by key.
    """

    settings: ClassVar[Mapping[str, Setting]]
    _defaults: ClassVar[dict[str, Any]]

    def __init_subclass__(cls) -> None:
        declared = {k: v for k, v in vars(cls).items() if isinstance(v, Field)}
        cls.settings = {k: field.metadata["setting"] for k, field in declared.items()}
        cls._defaults = {k: field.default for k, field in declared.items()}

    def __init__(self, **values: Any) -> None:
        unknown = ", ".join(values.keys() - self.settings.keys())
        if unknown:
            raise TypeError(f"{type(self).__name__} has no {unknown}")
        vars(self).update(self._defaults | values)

    def changed(self, **values: Any) -> Self:
        """Return the same with other values for these keys."""
        return type(self)(**vars(self) | values)

    def __setattr__(self, key: str, value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to {key!r} of {self!r}")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    def __repr__(self) -> str:
        values = ", ".join(f"{key}={value!r}" for key, value in vars(self).items())
        return f"{type(self).__name__}({values})"
