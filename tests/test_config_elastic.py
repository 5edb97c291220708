"""The sections ``[elastic]`` and ``[elastic:TYPE]``."""

from __future__ import annotations

from pathlib import Path

import pytest

from opencluster.config import load, render_default
from opencluster.config.elastic import ElasticType
from opencluster.errors import ConfigError


def read(folder: Path, text: str) -> tuple[ElasticType, ...]:
    path = folder / "config.ini"
    path.write_text(text)
    return load([path], {}).elastic_types


def test_a_section_says_what_is_wanted_of_a_type(tmp_path: Path) -> None:
    text = "[elastic:WordCount]\nmaximum = 64\n[ELASTIC:Image]\ntarget_s = 5\nminimum=1"
    first, second = read(tmp_path, text)
    assert first == ElasticType("WordCount", 0, 64, 30.0)
    assert second == ElasticType("Image", 1, 1, 5.0)
    assert second.section == "elastic:Image"


def test_nothing_is_elastic_by_itself(tmp_path: Path) -> None:
    assert read(tmp_path, "[worker:A]\ntarget = m:A\n") == ()
    assert read(tmp_path, render_default()) == ()


def test_all_keys_are_shown_with_their_places(tmp_path: Path) -> None:
    path = tmp_path / "config.ini"
    path.write_text("[elastic:A]\nmaximum = 3\n")
    rows = [r for r in load([path], {}).rows() if r.section == "elastic:A"]
    assert [(r.key, r.text) for r in rows] == [
        ("minimum", "0"),
        ("maximum", "3"),
        ("target_s", "30.0"),
    ]
    assert rows[1].origin == f"{path}:2"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[elastic:A]\nmaxmum = 3", ":2: [elastic:A] maxmum: unknown key"),
        ("[elastic:A]\nmaximum = 0", ":2: [elastic:A] maximum: got '0'"),
        ("[elastic:A]\ntarget_s = 0", ":2: [elastic:A] target_s: got '0'"),
        (
            "[elastic:A]\nminimum = 5",
            ":2: [elastic:A] minimum: got 5, expected at most",
        ),
        ("[elastic:]\nminimum = 0", ":1: [elastic:]: expected the name of a worker"),
        ("[elastic]\nbackoff_s = 700", "default: [elastic] backoff_max_s: got 600.0"),
        ("[elastik:A]\nminimum = 0", "did you mean elastic:TYPE?"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert expected in str(caught.value)
