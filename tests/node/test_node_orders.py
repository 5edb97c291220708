"""What a request to start processes may say."""

from __future__ import annotations

from typing import Any

import pytest

from opencluster.config import CatalogueEntry
from opencluster.errors import RequestRefused
from opencluster.node.orders import MAX_PROCESSES, read_count, read_entry

ORDER: dict[str, Any] = {"kind": "worker", "name": "T", "target": "program.py:T"}


def test_a_request_becomes_an_entry() -> None:
    entry = read_entry(
        ORDER
        | {
            "type": "Blüte 'a'",
            "gpus": 2,
            "cpus": [0, 3],
            "memory_bytes": 5 * 1024**3,
            "max_pieces": None,
            "max_memory": 7,
            "directory": "'/a b'",
            "environment": {"A": "b=c"},
            "arguments": {"a": [1, None, {"b": "\0"}]},
        }
    )
    assert entry == CatalogueEntry(
        kind="worker",
        name="T",
        target="program.py:T",
        type="Blüte 'a'",
        gpus=2,
        cpus=(0, 3),
        memory_bytes=5 * 1024**3,
        max_memory=7,
        directory="'/a b'",
        environment={"A": "b=c"},
        arguments={"a": [1, None, {"b": "\0"}]},
    )
    command = {"kind": "service", "name": "S", "command": ["a", "b c", "'"]}
    assert read_entry(command).command == ("a", "b c", "'")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "manager"),
        ("kind", []),
        ("name", ""),
        ("name", "a/b"),
        ("name", ".."[:1]),
        ("name", "a\0b"),
        ("name", "a" * 65),
        ("name", None),
        ("target", 7),
        ("target", ""),
        ("command", ["a"]),
        ("type", b"T"),
        ("type", "a\0"),
        ("count", "1"),
        ("gpus", "x"),
        ("gpus", "1"),
        ("gpus", -1),
        ("gpus", 1.0),
        ("gpus", True),
        ("gpus", None),
        ("memory_bytes", "1 GB"),
        ("memory_bytes", -1),
        ("max_pieces", "many"),
        ("cpus", [0, "x"]),
        ("cpus", [-1]),
        ("cpus", [10**9]),
        ("cpus", 3),
        ("directory", ["/"]),
        ("environment", [1]),
        ("environment", {"A": 1}),
        ("environment", {1: "A"}),
        ("environment", {"A=": "b"}),
        ("environment", {"": "b"}),
        ("environment", {"A": "\0"}),
        ("arguments", 1),
        ("arguments", {1: 2}),
        ("arguments", {"a": b"b"}),
        ("colour", "red"),
    ],
)
def test_a_field_that_is_wrong_is_named(field: str, value: object) -> None:
    named = {"name": "name of processes", "command": "target"}.get(field, field)
    with pytest.raises(RequestRefused, match=named):
        read_entry(ORDER | {field: value})


@pytest.mark.parametrize("words", [["a", 1], ["a\0"], "a", [[]], [None]])
def test_a_command_is_a_list_of_texts(words: object) -> None:
    with pytest.raises(RequestRefused, match="command: got"):
        read_entry({"kind": "worker", "name": "T", "command": words})


@pytest.mark.parametrize("given", [None, 7, "text", [], {1: 2}])
def test_what_is_no_entry_is_refused(given: object) -> None:
    with pytest.raises(RequestRefused, match="entry|kind"):
        read_entry(given)


def test_a_count_is_a_number_of_processes() -> None:
    assert [read_count(n) for n in (0, MAX_PROCESSES)] == [0, MAX_PROCESSES]
    for given in (-1, MAX_PROCESSES + 1, True, 1.0, "1", None):
        with pytest.raises(RequestRefused, match="count: got .* from 0 to 1000"):
            read_count(given)
