"""What is taken of a value that came in a message, and what is too much."""

from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencluster.core.bounds import MAX_LEVELS, UNBOUNDED, Bounds
from opencluster.errors import RegistryError

SMALL = Bounds(max_text=10, max_bytes=1000)


def nested(levels: int, innermost: Any = 0) -> Any:
    value = innermost
    for level in range(levels):
        value = [value] if level % 2 else {"k": value}
    return value


@pytest.mark.parametrize("text", ["", "x" * 10, "\u4e2d" * 10])
def test_short_text_is_taken(text: str) -> None:
    assert SMALL.is_text(text)


@pytest.mark.parametrize("value", ["x" * 11, "\ud800", b"x", 7, None, ["x"]])
def test_what_is_no_short_text_is_not_taken(value: Any) -> None:
    assert not SMALL.is_text(value)


@pytest.mark.parametrize(
    "value",
    [None, True, -1, 2**63, 1.5, "text", b"bytes", [1, (2, "x")], {"a": {"b": []}}],
)
def test_plain_values_are_taken(value: Any) -> None:
    SMALL.check("it", value)


@pytest.mark.parametrize("value", [{1, 2}, 1j, object, bytearray(b"x"), [[set()]]])
def test_what_is_not_plain_is_refused(value: Any) -> None:
    with pytest.raises(RegistryError, match="it holds a .*plain values"):
        SMALL.check("it", value)


@pytest.mark.parametrize("value", [{1: 2}, {"a": {b"k": 1}}, [{None: 1}]])
def test_keys_are_text(value: Any) -> None:
    with pytest.raises(RegistryError, match="keys that are no text"):
        SMALL.check("it", value)


def test_levels_are_bounded() -> None:
    for innermost in (0, {}, []):
        SMALL.check("it", nested(MAX_LEVELS - 1, innermost))
    SMALL.check("it", nested(MAX_LEVELS))
    for levels in (MAX_LEVELS + 1, 80):
        with pytest.raises(RegistryError, match=f"deeper than {MAX_LEVELS} levels"):
            SMALL.check("it", nested(levels))


@pytest.mark.parametrize(
    "value",
    [
        "x" * 1000,
        b"x" * 1000,
        "\u4e2d" * 250,
        {"x" * 1000: 0},
        {"\U0001f600" * 250: 0},
        {f"k{n}": None for n in range(100)},
        [0] * 112,
        [[]] * 200,
        {"a": {"b": ["x" * 500, "y" * 500]}},
    ],
    ids=lambda value: str(value)[:20],
)
def test_size_is_bounded(value: Any) -> None:
    with pytest.raises(RegistryError, match="larger than 1000 .* max_entry_bytes"):
        SMALL.check("it", value)
    UNBOUNDED.check("it", value)


values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2**63) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@given(values)
def test_nothing_that_is_taken_is_larger_on_the_wire(value: Any) -> None:
    size = len(msgpack.packb(value, unicode_errors="surrogatepass"))
    with pytest.raises(RegistryError):
        Bounds(max_bytes=size - 1).check("it", value)


def test_huge_values_are_refused_without_a_copy_of_each_level() -> None:
    value = nested(3, [None] * 1_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(RegistryError, match="larger"):
            SMALL.check("it", value)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20e6
