"""What is done on a host: orders, answers, and one real factory."""

from __future__ import annotations

import base64
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ssh_server import free_ports, script

from opencluster import __version__
from opencluster.config import load
from opencluster.errors import LaunchFailed
from opencluster.launchers import embedded, logout, node
from opencluster.launchers.description import ClusterFile, Host
from opencluster.launchers.order import Answer, Order, answer_in
from opencluster.launchers.planning import (
    MAX_FILES_BYTES,
    cluster_keys,
    keys_of_roles,
    orders_of,
)
from opencluster.net import keyfiles
from opencluster.place import Place

FACTORIES = ["tcp://a:1", "tcp://b:2"]


def cluster_file(folder: Path, **changes: Any) -> ClusterFile:
    (folder / "w.py").write_text("...")
    file = ClusterFile(
        folder / "f.yaml",
        "n",
        "ssh",
        hosts=(
            Host("a", ("factory", "workshop"), counts={"W": 3}),
            Host("c", ("workshop",)),
            Host("b", ("factory",)),
        ),
        sections={"worker:W": {"target": "w.py:W", "count": "1"}},
        files={"w.py": folder / "w.py"},
    )
    return replace(file, **changes)


# --- orders and answers ------------------------------------------------------


def test_each_host_is_told_its_part(tmp_path: Path) -> None:
    orders = orders_of(cluster_file(tmp_path), FACTORIES, None)
    assert {n: (o.roles, o.number) for n, o in orders.items()} == {
        "a": (("factory", "workshop"), 1),
        "c": (("workshop",), 0),
        "b": (("factory",), 2),
    }
    sections = orders["a"].sections
    assert sections["worker:W"]["count"] == "3"
    assert orders["c"].sections["worker:W"]["count"] == "1"
    assert sections["cluster"] == {"factories": "tcp://a:1, tcp://b:2"}
    assert sections["network"] == {"bind": "0.0.0.0"}
    assert sections["workshop"] == {"name": "a"}
    assert orders["c"].directory == "~/.local/state/opencluster/n/nodes/c"
    assert base64.b64decode(orders["b"].files["w.py"]) == b"..."
    assert orders["b"].executables == ()
    (tmp_path / "w.py").chmod(0o755)
    orders = orders_of(cluster_file(tmp_path), FACTORIES, None)
    assert orders["b"].executables == ("w.py",)


def test_a_cluster_of_one_computer_needs_no_addresses(tmp_path: Path) -> None:
    host = Host("here", ("factory", "workshop"))
    order = orders_of(cluster_file(tmp_path, hosts=(host,)), [], None)["here"]
    assert order.number == 0
    assert set(order.sections) == {"worker:W"}


def test_keys_are_made_once_and_only_where_they_are_wanted(tmp_path: Path) -> None:
    place = Place(tmp_path / "place")
    place.path.mkdir(mode=0o700)
    file = cluster_file(tmp_path)
    plain = {"cluster": {"insecure": "yes"}}
    assert cluster_keys(replace(file, sections=plain), place) is None
    made = cluster_keys(file, place)
    assert made == place.path / "keys"
    first = keys_of_roles(("factory",), made)
    assert cluster_keys(file, place) == made
    assert keys_of_roles(("factory",), made) == first
    assert set(first) == {"factory.key", "roll"}
    assert set(keys_of_roles(("workshop",), made)) == {"workshop.key", "worker.key"}
    assert keys_of_roles(("workshop",), None) == {}
    (made / "worker.key").unlink()
    with pytest.raises(LaunchFailed, match=r"cannot read .*worker\.key"):
        keys_of_roles(("workshop",), made)
    # others than those of the factory are never replaced
    (made / "factory.key").unlink()
    with pytest.raises(LaunchFailed, match=r"cannot make keys in .*copy the missing"):
        cluster_keys(file, place)
    assert (made / "manager.key").exists()


def test_keys_whose_making_was_cut_short_are_made_anew(tmp_path: Path) -> None:
    place = Place(tmp_path / "place")
    half = place.path / "keys.new"
    keyfiles.make_keys(half)
    (half / "roll").unlink()
    (half / "worker.key").unlink()
    made = cluster_keys(cluster_file(tmp_path), place)
    assert set(keys_of_roles(("factory", "workshop"), made)) == {
        *("factory.key", "roll", "workshop.key", "worker.key")
    }
    assert not half.exists()


def test_files_that_cannot_be_sent(tmp_path: Path) -> None:
    file = cluster_file(tmp_path)
    with (tmp_path / "w.py").open("wb") as sparse:
        sparse.truncate(MAX_FILES_BYTES + 1)
    with pytest.raises(LaunchFailed, match="larger than"):
        orders_of(file, FACTORIES, None)
    (tmp_path / "w.py").unlink()
    with pytest.raises(LaunchFailed, match=r"cannot read .*w\.py: No such file"):
        orders_of(file, FACTORIES, None)


def test_an_order_comes_as_it_was_sent(tmp_path: Path) -> None:
    order = orders_of(cluster_file(tmp_path), FACTORIES, None)["a"]
    assert Order.from_json(order.to_json()) == order


def test_orders_are_the_same_whoever_is_admitted() -> None:
    order = Order("a", "/d", keys={"factory.key": "x", "roll": "1"})
    other = replace(order, keys={"factory.key": "x", "roll": "2"}, is_restart=True)
    assert other.digest() == order.digest()
    assert replace(order, keys={"factory.key": "y"}).digest() != order.digest()
    assert replace(order, number=2).digest() != order.digest()


@pytest.mark.parametrize("text", ["", "[]", "null", "7", "{" * 100_000])
def test_what_is_no_order_is_refused(text: str) -> None:
    with pytest.raises(LaunchFailed, match="expected an order of `opencluster up`"):
        Order.from_json(text)


def test_an_order_of_another_version_only_ends_things() -> None:
    text = replace(Order("a", "/d"), version="0.0.1").to_json()
    with pytest.raises(LaunchFailed, match=f"OpenCluster {__version__} is installed"):
        Order.from_json(text)
    assert Order.from_json(text, is_any_version=True).directory == "/d"


@pytest.mark.parametrize(
    ("before", "after"), [("", ""), ("welcome\n{}\n", '\n{"a": 1}\nbye [\n')]
)
def test_the_answer_is_found_in_what_a_shell_prints(before: str, after: str) -> None:
    answer = Answer(False, "no", "out", "/d", may_run=False)
    assert answer_in(f"{before}{answer.to_json()}{after}") == answer


@pytest.mark.parametrize("text", ["", "hello", '{"opencluster_node": 7}', "[1]"])
def test_no_answer_is_none(text: str) -> None:
    assert answer_in(text) is None


# --- the directory of a host -------------------------------------------------


@pytest.fixture
def order(tmp_path: Path) -> Order:
    """A host with a factory alone."""
    keys = tmp_path / "keys"
    keyfiles.make_keys(keys)
    (port,) = free_ports(1)
    return Order(
        "a",
        str(tmp_path / "a"),
        ("factory",),
        1,
        {
            "cluster": {"factories": f"tcp://127.0.0.1:{port}"},
            "network": {"bind": "127.0.0.1"},
        },
        keys_of_roles(("factory",), keys),
        {name: base64.b64encode(b"...").decode() for name in ("lib/w.py", "tool")},
        ("tool",),
    )


@pytest.fixture
def ended(order: Order) -> Iterator[None]:
    """Leave nothing behind, whatever happens."""
    yield
    node.down(replace(order, roles=("factory", "workshop")))


@pytest.mark.processes
@pytest.mark.usefixtures("ended")
def test_a_host_from_up_to_down(order: Order) -> None:
    place = Place(Path(order.directory))
    assert node.up(order).message == "started factory"
    (row,) = embedded.strays(place)
    assert stat.S_IMODE(place.path.stat().st_mode) == 0o700
    assert (place.path / "programs/lib/w.py").read_bytes() == b"..."
    modes = [(place.path / "programs" / name).stat().st_mode for name in order.files]
    assert [bool(mode & stat.S_IXUSR) for mode in modes] == [False, True]
    assert {p.name for p in (place.path / "keys").iterdir()} == {"factory.key", "roll"}
    assert node.up(order).message == "runs already"
    # neither a changed order nor one for the workshop alone ends it
    other = replace(order, sections=dict(order.sections) | {"log": {"level": "ERROR"}})
    with pytest.raises(LaunchFailed, match="the same command with --restart ends that"):
        node.up(other)
    node.down(replace(order, roles=("workshop",)))
    assert embedded.strays(place) == [row]
    assert node.up(replace(other, is_restart=True)).message == "started factory"
    (restarted,) = embedded.strays(place)
    assert restarted["pid"] != row["pid"]
    assert "ERROR" in (place.path / "programs/config.ini").read_text()
    assert node.down(order).is_done
    assert embedded.strays(place) == []
    assert not (place.path / "keys").exists()


LOGIND = "KillUserProcesses=yes\nKillOnlyUsers=\nKillExcludeUsers=operator\n"


@pytest.fixture
def logind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a logind tells of itself that ends what log-ins leave, as this one."""
    cgroup = tmp_path / "cgroup"
    cgroup.write_text("0::/user.slice/user-7.slice/session-3.scope\n")
    monkeypatch.setattr(logout, "CGROUP", cgroup)
    monkeypatch.setattr(logout, "_user", lambda: "ann")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    told = tmp_path / "told"
    told.write_text(LOGIND)
    script(tmp_path / "loginctl", f"cat {told}")
    return told


def test_a_host_may_end_what_a_log_in_leaves(logind: Path, tmp_path: Path) -> None:
    assert logout.ends_processes()
    for told in (
        LOGIND.replace("yes", "no"),
        LOGIND.replace("operator", "root ann"),
        LOGIND.replace("OnlyUsers=", "OnlyUsers=guest"),
        "",
    ):
        logind.write_text(told)
        assert not logout.ends_processes()
    logind.write_text(LOGIND.replace("OnlyUsers=", "OnlyUsers=guest ann"))
    assert logout.ends_processes()
    # a unit of the user's own outlives log-ins
    unit = "0::/user.slice/user-7.slice/user@7.service/app.slice/run-1.scope\n"
    (tmp_path / "cgroup").write_text(unit)
    assert not logout.ends_processes()


@pytest.mark.processes
@pytest.mark.usefixtures("ended")
def test_a_host_tells_why_its_daemons_are_gone(order: Order, logind: Path) -> None:
    mind = "mind that systemd-logind ends there what a log-in leaves (KillUserProcesses"
    assert mind in node.up(order).message
    assert node.look(order).message == "runs"
    (row,) = embedded.strays(Place(Path(order.directory)))
    embedded.end(row)
    answer = node.look(order)
    assert not answer.is_done
    log = f"its factory ended soon after the start: see {order.directory}/logs; "
    assert answer.message.startswith(f"{log}systemd-logind ends there what a log-in")
    assert "opencluster.factory" in answer.output
    logind.write_text("")
    assert node.look(order).message.startswith(f"{log}a host may also end")


def test_a_port_that_is_taken_is_told(order: Order) -> None:
    port = int(order.sections["cluster"]["factories"].rpartition(":")[2])
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(LaunchFailed, match=f"port {port} of the factory is taken"):
            node.up(order)
    assert embedded.strays(Place(Path(order.directory))) == []


def test_an_address_of_another_computer_is_told(order: Order) -> None:
    sections = dict(order.sections) | {"network": {"bind": "192.0.2.1"}}
    with pytest.raises(LaunchFailed, match=r"no factory can listen at 192\.0\.2\.1"):
        node.up(replace(order, sections=sections))


@pytest.mark.processes
@pytest.mark.usefixtures("ended")
def test_neither_daemons_nor_secrets_are_left_where_nothing_can_be_noted(
    order: Order,
) -> None:
    directory = Path(order.directory)
    # a full disk, as seen from there: the daemon has begun when it is to be noted
    (directory / "cluster.new").mkdir(parents=True)
    directory.chmod(0o700)
    done = subprocess.run(
        [sys.executable, "-m", "opencluster.launchers.node", "up"],
        input=order.to_json(),
        capture_output=True,
        text=True,
        check=False,
    )
    answer = answer_in(done.stdout)
    assert answer is not None
    assert (done.returncode, answer.is_done, done.stderr) == (1, False, "")
    assert answer.message == (
        f"cannot use {directory}/cluster.new: Is a directory; make room there, or "
        "write another `directory:` in the cluster file"
    )
    assert embedded.strays(Place(directory)) == []
    assert not (directory / "keys").exists()


@pytest.mark.parametrize("name", ["../w.py", "/tmp/w.py", "a/../../w.py"])
def test_no_file_is_written_elsewhere(order: Order, name: str) -> None:
    with pytest.raises(LaunchFailed, match="would lie outside"):
        node.up(replace(order, files={name: ""}))


def test_settings_are_read_as_they_were_written_in_any_locale(order: Order) -> None:
    sections = {"worker:W": {"target": "w:W", "env.WHO": "Zoë"}}
    code = (
        "import sys\n"
        "from opencluster.launchers import host_folder, order\n"
        "told = order.Order.from_json(sys.stdin.read())\n"
        "place = host_folder.place_of(told)\n"
        "place.path.mkdir()\n"
        "host_folder.lay_out(told, place)\n"
    )
    ascii_alone = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run(
        [sys.executable, "-c", code],
        input=replace(order, sections=sections).to_json(),
        env=os.environ | ascii_alone,
        text=True,
        check=True,
    )
    config = load([Path(order.directory) / "programs" / "config.ini"], environ={})
    assert config.catalogue[0].environment == {"WHO": "Zoë"}


def test_no_key_is_written_elsewhere(order: Order) -> None:
    with pytest.raises(LaunchFailed, match="is no name for a file of keys"):
        node.up(replace(order, keys={"../factory.key": ""}))


def test_keys_that_came_with_no_order_stay(order: Order) -> None:
    kept = Path(order.directory) / "keys"
    keyfiles.make_keys(kept)
    assert node.down(order).is_done
    assert (kept / "factory.key").exists()


def test_a_directory_must_be_named_in_full(order: Order) -> None:
    for directory in ("here", ""):
        with pytest.raises(LaunchFailed, match="expected a path from / or ~/"):
            node.up(replace(order, directory=directory))


def test_a_host_without_anything_has_nothing_to_end(order: Order) -> None:
    assert node.down(order).message == "nothing runs"


def test_the_program_answers_whatever_comes_in() -> None:
    argv = [sys.executable, "-m", "opencluster.launchers.node"]
    done = subprocess.run(
        [*argv, "up"], input="", capture_output=True, text=True, check=False
    )
    answer = answer_in(done.stdout)
    assert answer is not None
    assert (done.returncode, answer.is_done, answer.may_run) == (1, False, False)
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        "usage: node up|down|look|run < ORDER\n",
    )
