"""How ``opencluster elastic run`` comes by its settings and its means."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import CliRunner

from opencluster.cli import NO_CLUSTER, main
from opencluster.config.elastic import ElasticType
from opencluster.elastic.means import Jobs
from opencluster.elastic.running import (
    _means,
    each_of,
    settings_for,
    start_beside,
    stop_beside,
)
from opencluster.launchers.cluster_file import load_cluster_file
from opencluster.launchers.record import keep_record
from opencluster.place import Place

FILE = """
launcher: slurm
batch: {nodes: 2, time: "00:30:00"}
workers:
  Fit: {target: "fits:FitWorker", count: 4}
  Slow: {target: "fits:FitWorker", type: Fit, count: 2}
  Sun: {target: "sun:SunWorker"}
services:
  clock: {target: "sun:Clock", count: 1}
elastic:
  Fit: {maximum: 64, target_s: 12.5}
  limits: {launches_per_minute: 2, failures: 5}
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Return a place from which the file was launched."""
    path = tmp_path / "night.yaml"
    path.write_text(FILE)
    made = Place(tmp_path / "c")
    made.path.mkdir()
    keep_record(made, load_cluster_file(path))
    return made


def test_a_computer_brings_what_the_cluster_file_says(tmp_path: Path) -> None:
    path = tmp_path / "night.yaml"
    path.write_text(FILE)
    assert each_of(load_cluster_file(path)) == {"Fit": 6, "Sun": 0}


def test_settings_are_those_of_the_file_that_was_launched(place: Place) -> None:
    config = settings_for(place)
    assert config.elastic_types == (ElasticType("Fit", 0, 64, 12.5),)
    assert config.elastic.launches_per_minute == 2
    assert config.elastic.failures == 5


@pytest.mark.parametrize(("drain_before_s", "ending_s"), [(600, 610.0), (60, 300.0)])
def test_a_job_counts_as_none_before_it_is_drained(
    place: Place, tmp_path: Path, drain_before_s: int, ending_s: float
) -> None:
    path = tmp_path / "night.yaml"
    path.write_text(FILE.replace("nodes: 2", f"drain_before_s: {drain_before_s}"))
    keep_record(place, load_cluster_file(path))
    nobody = cast(Any, None)
    means = _means(settings_for(place), place, nobody, nobody)
    assert isinstance(means, Jobs)
    assert means._allotment.ending_s == ending_s


def test_nothing_is_started_beside_a_cluster_without_elastic_types(
    tmp_path: Path,
) -> None:
    assert not start_beside(Place(tmp_path))
    assert not stop_beside(Place(tmp_path))


@pytest.mark.parametrize("command", ["run", "status", "resume"])
def test_without_a_cluster_there_is_nothing_to_look_after(
    place: Place, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENCLUSTER_DIR", "")
    told = CliRunner().invoke(main, ["--dir", str(place.path), "elastic", command])
    assert told.exit_code == NO_CLUSTER
    assert "no cluster is running" in told.stderr
