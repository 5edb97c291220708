"""A cluster's directory: where it is, what it holds, and what is removed from it."""

from __future__ import annotations

import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from opencluster.config import load
from opencluster.errors import ConfigError
from opencluster.launchers import local
from opencluster.place import DIRECTORY_VARIABLE, Place, factories


@pytest.fixture
def short() -> Iterator[Path]:
    """Yield a directory whose path leaves room for sockets."""
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


def test_the_option_goes_before_the_environment_and_that_before_the_convention(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv(DIRECTORY_VARIABLE, raising=False)
    assert Place.find().path == tmp_path / "state" / "opencluster" / "default"
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path / "env"))
    assert Place.find().path == tmp_path / "env"
    assert Place.find(tmp_path / "option").path == tmp_path / "option"


def test_the_directories_are_closed_to_others(short: Path) -> None:
    place = Place(short / "cluster")
    place.make()
    for directory in (place.path, place.logs, place.sockets):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_directory_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="--dir"):
        Place(tmp_path / "file" / "cluster").make()


def test_a_long_directory_gets_short_sockets(tmp_path: Path) -> None:
    place = Place(tmp_path / ("x" * 100))
    assert len(str(place.sockets)) <= 60
    assert place.sockets == Place(place.path).sockets
    assert place.sockets != Place(tmp_path / ("y" * 100)).sockets


@pytest.mark.parametrize("content", ["", "torn {", "[]", '{"factories": [{}]}'])
def test_a_torn_cluster_file_is_no_cluster(tmp_path: Path, content: str) -> None:
    place = Place(tmp_path)
    place.cluster_file.write_text(content)
    config = load(files=[], environ={})
    assert [e for endpoints in factories(config, place) for e in endpoints] == []


def test_stopping_where_no_cluster_is_leaves_the_users_files(tmp_path: Path) -> None:
    place = Place(tmp_path / "project")
    (place.path / "run").mkdir(parents=True)
    theirs = place.path / "run" / "results.csv"
    theirs.write_text("years of work")
    assert local.stop(place) is False
    assert theirs.read_text() == "years of work"
    assert local.stop(Place(tmp_path / "nothing")) is False
    assert not (tmp_path / "nothing").exists()


def test_sockets_of_the_dead_are_removed_and_those_of_the_living_are_not(
    short: Path,
) -> None:
    place = Place(short)
    place.make()
    with socket.socket(socket.AF_UNIX) as living, socket.socket(socket.AF_UNIX) as dead:
        living.bind(str(place.sockets / "w-living.sock"))
        living.listen()
        dead.bind(str(place.sockets / "w-dead.sock"))
        dead.close()
        (place.sockets / "shop-WordCount-1.board").touch()
        place.forget()
        left = [path.name for path in place.sockets.iterdir()]
    assert left == ["w-living.sock"]
