"""The compose file describes a cluster; containers are not built here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from opencluster.cli import main
from opencluster.config import load

DEPLOY = Path(__file__).parents[2] / "deploy"


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(
        (DEPLOY / "compose.yaml").read_text()
    )["services"]
    return found


def test_three_factories_and_two_workshops_know_each_other() -> None:
    found = services()
    assert sorted(found) == [
        *("factory1", "factory2", "factory3", "keys", "workshop1", "workshop2"),
    ]
    for name, service in found.items():
        if name == "keys":
            continue
        assert service["hostname"] == name
        config = load([], environ=service["environment"])
        named = [f"tcp://factory{n}:9100" for n in (1, 2, 3)]
        assert list(config.cluster.factories) == named


def test_commands_are_those_of_the_program() -> None:
    commands = main.list_commands(None)  # type: ignore[arg-type]
    for name, service in services().items():
        words = service["command"]
        if name.startswith("factory"):
            assert words[0] in commands
            assert words[1:] == ["--number", name[-1]]
        else:
            assert " opencluster " in words[0].replace('"', " ")


def test_the_image_has_the_extras_that_exist() -> None:
    import configparser

    setup = configparser.ConfigParser()
    setup.read(DEPLOY.parent / "setup.cfg")
    text = (DEPLOY / "Containerfile").read_text()
    extras = text.partition("opencluster[")[2].partition("]")[0].split(",")
    assert len(extras) > 3
    assert set(extras) <= set(setup["options.extras_require"])
