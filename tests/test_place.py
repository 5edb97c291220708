"""A cluster's directory: where it is, what it holds, and what is removed from it."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from opencluster.config import load
from opencluster.errors import ConfigError, SecurityError
from opencluster.launchers import embedded
from opencluster.place import (
    DIRECTORY_VARIABLE,
    Place,
    check_listening,
    factories,
    keys_directory,
    listening_endpoint,
)


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


def test_who_has_no_home_names_a_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_STATE_HOME", DIRECTORY_VARIABLE):
        monkeypatch.delenv(name, raising=False)

    def nobody(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(ConfigError, match="has no home directory, in which a cluster"):
        Place.find()
    assert Place.find("/scratch/night").path == Path("/scratch/night")


def test_the_directories_are_closed_to_others(short: Path) -> None:
    place = Place(short / "cluster")
    place.make()
    for directory in (place.path, place.logs, place.sockets):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


@pytest.mark.parametrize("name", ["logs", "run"])
@pytest.mark.parametrize("mode", [0o750, 0o705, 0o777])
def test_a_folder_that_was_open_to_others_before_is_refused(
    short: Path, name: str, mode: int
) -> None:
    (short / name).mkdir()
    (short / name).chmod(mode)
    with pytest.raises(SecurityError, match=f"chmod 700 {short / name}"):
        Place(short).make()


def test_a_directory_in_which_others_can_replace_things_is_refused(
    short: Path,
) -> None:
    short.chmod(0o755)
    Place(short).make()
    short.chmod(0o775)
    with pytest.raises(SecurityError, match="mode 775"):
        Place(short).make()


def test_the_keys_are_where_the_settings_or_the_directory_say(short: Path) -> None:
    place = Place(short)
    assert keys_directory(load(files=[], environ={}), place) is None
    (short / "keys").mkdir()
    assert keys_directory(load(files=[], environ={}), place) == short / "keys"
    named = load(files=[], environ={}, overrides={("cluster", "keys"): "/etc/oc"})
    assert keys_directory(named, place) == Path("/etc/oc")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "localhost", "[::1]"])
def test_what_only_this_computer_reaches_needs_no_keys(host: str) -> None:
    assert listening_endpoint(load(files=[], environ={}), host, 1) == f"tcp://{host}:1"


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "192.0.2.1", "node7", "127.example.org", "localhost.example.org"],
)
def test_everything_else_needs_keys_or_a_word_that_it_is_meant(host: str) -> None:
    config = load(files=[], environ={})
    with pytest.raises(SecurityError, match="opencluster keys new"):
        listening_endpoint(config, host, 1)
    assert listening_endpoint(config, host, 1, has_keys=True) == f"tcp://{host}:1"
    is_meant = load(files=[], environ={}, overrides={("cluster", "insecure"): "true"})
    assert listening_endpoint(is_meant, host, 1) == f"tcp://{host}:1"


def test_a_free_port_is_one_that_the_firewall_lets_through() -> None:
    config = load(files=[], environ={}, overrides={("network", "ports"): "9200-9399"})
    assert listening_endpoint(config, "*", 0) == "tcp://127.0.0.1:9200-9399"
    assert listening_endpoint(config, "*", 7) == "tcp://127.0.0.1:7"


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
    assert embedded.stop(place) is False
    assert theirs.read_text() == "years of work"
    assert embedded.stop(Place(tmp_path / "nothing")) is False
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


@pytest.mark.parametrize("endpoint", ["ipc:///run/x.sock", "tcp://127.0.0.1:1"])
def test_a_local_endpoint_needs_no_keys(endpoint: str) -> None:
    check_listening(load(files=[], environ={}), endpoint, has_keys=False)


@pytest.mark.parametrize("endpoint", ["ipc://@name", "tcp://10.0.0.1:1", "tcp://*:1"])
def test_an_endpoint_that_others_reach_needs_keys(endpoint: str) -> None:
    with pytest.raises(SecurityError, match="opencluster keys new"):
        check_listening(load(files=[], environ={}), endpoint, has_keys=False)


def test_the_cluster_file_is_its_owners_alone(short: Path) -> None:
    before = os.umask(0)
    try:
        Place(short).write({"factories": []})
    finally:
        os.umask(before)
    assert stat.S_IMODE(Place(short).cluster_file.stat().st_mode) == 0o600
