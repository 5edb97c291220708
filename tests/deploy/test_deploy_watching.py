"""Alerts and the dashboard ask for metrics that daemons show."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from opencluster.config import load
from opencluster.core.metrics import PREFIX
from opencluster.dispatcher import TaskDispatcher
from opencluster.factory import Factory
from opencluster.node import metrics as node
from opencluster.node.gpus import Gpu
from opencluster.place import Place
from opencluster.workshop import Workshop

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Give the names of all metrics, asked of daemons that do not run."""
    path = tmp_path_factory.mktemp("m")
    config, place = load([]), Place(path / "cluster")
    factory = Factory(config, [f"ipc://{path}/f.sock"], path / "state")
    workshop = Workshop(config, place)
    dispatcher = TaskDispatcher(config, place)
    found = [*factory.metrics(), *workshop.metrics(), *dispatcher.metrics()]
    found += node.of_computer({}, [Gpu("uuid", "name")])
    for daemon in (factory, workshop):
        daemon.stop()
        daemon.run()
    dispatcher.stop()
    dispatcher.run()
    return {PREFIX + metric.name for metric in found}


def names_in(text: str) -> set[str]:
    return set(re.findall(rf"\b{PREFIX}\w+", text))


def test_alerts_ask_for_what_is_there(shown: set[str]) -> None:
    alerts = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())
    rules: list[dict[str, Any]] = alerts["groups"][0]["rules"]
    assert len(rules) == len({rule["alert"] for rule in rules}) >= 10
    for rule in rules:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert names_in(rule["expr"]) <= shown
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"]


def test_the_handbook_tells_what_to_do_about_each_alert() -> None:
    alerts = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())
    told = re.findall(
        r"^\*\*(\w+)\*\* \((page|ticket)\)",
        (DEPLOY.parent / "docs/operations.md").read_text(),
        re.MULTILINE,
    )
    assert told == [
        (rule["alert"], rule["labels"]["severity"])
        for rule in alerts["groups"][0]["rules"]
    ]


def test_the_dashboard_asks_for_what_is_there(shown: set[str]) -> None:
    board = json.loads((DEPLOY / "grafana/opencluster.json").read_text())
    asked = [t["expr"] for panel in board["panels"] for t in panel["targets"]]
    assert len(asked) > 15
    for expression in asked:
        assert names_in(expression) <= shown, expression
