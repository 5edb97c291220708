"""YAML with the line of each value, as data of an unknown author.

Owns the syntax: a file is small, flat and plain. Tags, anchors and aliases are refused,
since nothing here needs them, and so are keys that stand twice. Knows no key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from opencluster.errors import ConfigError

MAX_FILE_BYTES = 1024**2
"""Largest file that is read: a thousand hosts take a tenth of it."""
MAX_NESTING = 12
"""Arguments of a class may be nested; more than this is a mistake."""


@dataclass(frozen=True)
class Item:
    """A value, and where it stands.

    Attributes
    ----------
    line : int
        Its first line, from 1.
    text : str
        A scalar as it is written, without quotes.
    value : object
        A scalar as YAML means it; `None` for an empty one.
    entries : mapping of str to Item, or None
        What a mapping holds.
    items : sequence of Item, or None
        What a list holds.
    """

    line: int
    text: str = ""
    value: Any = None
    entries: Mapping[str, Item] | None = None
    items: Sequence[Item] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is written there."""
        return self.entries is None and self.items is None and self.value is None

    def plain(self) -> Any:
        """Return the value as plain dictionaries, lists and scalars."""
        if self.entries is not None:
            return {key: item.plain() for key, item in self.entries.items()}
        if self.items is not None:
            return [item.plain() for item in self.items]
        return self.value


def read_yaml(path: Path) -> Item:
    """Return what a file holds.

    Raises
    ------
    ConfigError
        When it cannot be read, or is no plain YAML; with the line.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise ConfigError(
            f"{path}: larger than {MAX_FILE_BYTES} bytes, so no cluster file"
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: byte {error.start} is not UTF-8, so this is no text file"
        ) from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, name: str) -> Item:
    """Return what a text holds; `name` is that of its file.

    Raises
    ------
    ConfigError
        When it is no plain YAML; with the line.
    """
    try:
        _check_plain(text, name)
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            return Item(1) if node is None else _item(loader, node, name)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = _line(error.problem_mark or error.context_mark)
        raise ConfigError(
            f"{name}:{line}: this is no YAML: {error.problem or error.context}"
        ) from None
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{name}: this is no YAML: {reason}") from None


def _line(mark: Any) -> int:
    return 1 if mark is None else mark.line + 1


def _check_plain(text: str, name: str) -> None:
    """Refuse what makes small texts large, before anything is built of it."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        line = _line(event.start_mark)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ConfigError(
                f"{name}:{line}: anchors and aliases (& and *) are not taken here; "
                "put texts that begin with one of them between quotes"
            )
        if getattr(event, "tag", None):
            raise ConfigError(
                f"{name}:{line}: tags (!) are not taken here; put texts that begin "
                "with one between quotes"
            )
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_NESTING:
            raise ConfigError(f"{name}:{line}: nested deeper than {MAX_NESTING} levels")


def _item(loader: yaml.SafeLoader, node: yaml.Node, name: str) -> Item:
    line = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        entries: dict[str, Item] = {}
        for key, value in node.value:
            at = f"{name}:{key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError(f"{at}: expected a name before the colon")
            if key.value in entries:
                first = entries[key.value].line
                raise ConfigError(f"{at}: {key.value} is set before, in line {first}")
            found = _item(loader, value, name)
            # a block begins below its key, which is where people look for it
            entries[key.value] = Item(
                key.start_mark.line + 1,
                found.text,
                found.value,
                found.entries,
                found.items,
            )
        return Item(line, entries=entries)
    if isinstance(node, yaml.SequenceNode):
        return Item(line, items=[_item(loader, each, name) for each in node.value])
    return Item(line, str(node.value), _scalar(loader, node, name))


def _scalar(loader: yaml.SafeLoader, node: yaml.Node, name: str) -> Any:
    if node.tag == "tag:yaml.org,2002:timestamp":
        # nothing here is a date, and a time limit may look like one
        return node.value
    try:
        return loader.construct_object(node)
    except ValueError as error:
        raise ConfigError(f"{name}:{node.start_mark.line + 1}: {error}") from None
