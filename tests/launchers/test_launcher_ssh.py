"""The ssh launcher, with a real OpenSSH server that plays all hosts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from ssh_server import (
    ROOT,
    SshServer,
    free_ports,
    python_with_version,
    python_without_opencluster,
    script,
)
from traces import VARIABLE

from opencluster.config import load
from opencluster.errors import ConfigError, LaunchFailed, StartFailed
from opencluster.launchers import embedded
from opencluster.launchers import hosts as hosts_module
from opencluster.launchers.base import Outcome, failures, launcher_of
from opencluster.launchers.cluster_file import load_cluster_file
from opencluster.launchers.commands import Ran
from opencluster.launchers.description import ClusterFile, Host
from opencluster.launchers.order import Answer
from opencluster.launchers.record import keep_record, recorded
from opencluster.launchers.ssh import SshLauncher
from opencluster.net.control import Control
from opencluster.observe import actions
from opencluster.place import Place

pytestmark = pytest.mark.processes

HOSTS = ("alpha", "beta", "gamma", "delta")
PROGRAM = ROOT / "examples/wordcount/wordcount.py"
DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServer]:
    server = SshServer(tmp_path_factory.mktemp("ssh"), (*HOSTS, "bare", "other"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


def command(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``opencluster`` as on a terminal, with a place."""
    return subprocess.run(
        [sys.executable, "-m", "opencluster", "--dir", str(place), *arguments],
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def _environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("OPENCLUSTER_")}
    return kept | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}


def daemons_of(directory: Path) -> list[str]:
    """Return the command lines of all that works in a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0")
        except OSError:
            continue
        if any(str(directory) in word for word in words):
            found.append(" ".join(words))
    return found


def wait_until(has_come: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not has_come():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.02)


# --- a cluster, and hosts that fail ------------------------------------------


@dataclass(frozen=True)
class Cluster:
    """A cluster that was launched, with what was said about it."""

    place: Path
    path: Path
    directory: Path
    said: str
    code: int


CLUSTER = """\
launcher: ssh
directory: {directory}
ssh: {ssh}
hosts:
  - {{host: alpha, address: 127.0.0.1, port: {ports[0]}}}
  - {{host: beta, address: 127.0.0.1, roles: [factory], port: {ports[1]}}}
  - {{host: gamma, roles: [workshop], workers: {{WordCount: 2}}}}
  - {{host: unknown.invalid, roles: [workshop]}}
  - {{host: closed, roles: [workshop]}}
  - {{host: stranger, roles: [workshop]}}
  - {{host: delta, roles: [workshop], python: /nowhere/python}}
  - {{host: bare, roles: [workshop], python: {bare}}}
  - {{host: other, roles: [workshop], python: {other}}}
workers:
  WordCount: {{target: wordcount.py:WordCountWorker, count: 1}}
settings:
  network: {{bind: 127.0.0.1}}
"""


@pytest.fixture(scope="module")
def cluster(
    server: SshServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "wordcount.py").write_text(PROGRAM.read_text())
    path, place = folder / "night.yaml", folder / "place"
    path.write_text(
        CLUSTER.format(
            directory=folder / "hosts",
            ssh=server.command,
            ports=free_ports(2),
            bare=python_without_opencluster(folder),
            other=python_with_version(folder, "0.0.1"),
        ).replace("{host: alpha,", "{host: alpha, roles: [factory, workshop],")
    )
    # as docs/launch.md shows it
    done = command(place, "up", str(path))
    try:
        yield Cluster(place, path, folder / "hosts", done.stderr, done.returncode)
    finally:
        ended = command(place, "down")
    assert ended.returncode == 0, ended.stderr
    assert daemons_of(folder / "hosts") == []


def test_hosts_that_work_are_told_with_what_was_started(cluster: Cluster) -> None:
    assert "alpha: started factory and workshop" in cluster.said
    assert "beta: started factory (" in cluster.said
    assert "gamma: started workshop (" in cluster.said
    (line,) = [x for x in cluster.said.splitlines() if x.startswith("gamma: started")]
    assert line.endswith("it is the computer that alpha is, so has two workshops")
    (line,) = [x for x in cluster.said.splitlines() if x.startswith("beta: started")]
    assert line.endswith(" s)")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("unknown.invalid", "its name does not resolve: correct it in the cluster"),
        ("closed", "no ssh server listens there: start it, or name its port"),
        ("stranger", "it lets nobody in with your keys: `ssh-copy-id stranger`"),
        ("delta", "there is no Python at /nowhere/python: write `python: PATH`"),
        ("bare", "OpenCluster is not installed for "),
        ("other", "OpenCluster 0.0.1 is installed here, and 0.1.0 where the order"),
    ],
)
def test_a_host_that_fails_is_told_with_what_to_do(
    cluster: Cluster, host: str, expected: str
) -> None:
    assert cluster.code == 1
    assert f"{host}: {expected}" in cluster.said
    assert "6 hosts of 9 failed" in cluster.said


def workers_of(control: Control) -> list[tuple[str, int]]:
    """Return how many workers each workshop has, by its name."""
    entries = control.factory("find")
    shops = {e["id"]: e["name"] for e in entries if e["kind"] == "workshop"}
    workers = [e["workshop"] for e in entries if e["kind"] == "worker"]
    return sorted((name, workers.count(shop)) for shop, name in shops.items())


def test_the_cluster_is_used_from_its_place(cluster: Cluster) -> None:
    with embedded.control_of(load(environ={}), Place(cluster.place)) as control:
        assert len(control.factory("status")["factories"]) == 2
        # another test kills a workshop, and its entries stay for a while
        wait_until(lambda: workers_of(control) == [("alpha", 1), ("gamma", 2)])
        told = actions.scale(control, "WordCount", 4)
        assert told == "WordCount: 2 on alpha, 2 on gamma"
        assert workers_of(control) == [("alpha", 2), ("gamma", 2)]
        actions.scale(control, "WordCount", 3)
    text = cluster.place / "text"
    text.write_text("to be or not to be\n")
    done = command(
        cluster.place, "run", str(cluster.path.parent / PROGRAM.name), str(text)
    )
    assert done.returncode == 0, done.stderr
    assert "2  to" in done.stdout


def test_a_host_has_the_secrets_of_its_roles_and_no_others(cluster: Cluster) -> None:
    found = {
        path.parent.name: sorted(each.name for each in path.glob("*.key"))
        for path in cluster.directory.glob("nodes/*/keys")
    }
    assert found == {
        "alpha": ["factory.key", "worker.key", "workshop.key"],
        "beta": ["factory.key"],
        "gamma": ["worker.key", "workshop.key"],
    }
    for path in cluster.directory.glob("nodes/*"):
        assert path.stat().st_mode & 0o777 == 0o700
    for path in cluster.directory.glob("nodes/*/keys/*"):
        assert path.stat().st_mode & 0o777 == 0o600


def test_what_runs_elsewhere_is_neither_started_nor_stopped_here(
    cluster: Cluster,
) -> None:
    for deed in (embedded.start, embedded.stop):
        with pytest.raises(StartFailed, match="`opencluster down` ends it"):
            deed(Place(cluster.place))


def test_up_again_starts_what_has_ended_and_leaves_the_rest(cluster: Cluster) -> None:
    before = pids(cluster.directory)
    ended = before["gamma", "workshop"]
    os.kill(ended, signal.SIGKILL)
    file = load_cluster_file(cluster.path)
    # what is new in the file needs no restart
    new = {"worker:New": {"target": "wordcount.py:WordCountWorker"}}
    wanted = replace(
        file,
        hosts=tuple(h for h in file.hosts if h.name in HOSTS[:3]),
        sections={**file.sections, **new},
    )
    launcher = launcher_of(wanted, Place(cluster.place))
    told: list[Outcome] = []
    outcomes = launcher.launch(told.append)
    assert failures(outcomes) == []
    assert [o.host for o in outcomes] == ["alpha", "beta", "gamma"]
    messages = {o.host: o.message.partition(" (")[0] for o in told}
    assert messages == {
        "alpha": "runs already, and takes over what is new: worker New is new",
        "beta": "runs already",
        "gamma": "started workshop",
    }
    with embedded.control_of(load(environ={}), Place(cluster.place)) as control:
        shop = actions.find_computer(control, "alpha")
        assert set(shop["attributes"]["catalogue"]) == {"New", "WordCount"}
    # hosts that this file does not have are not forgotten
    known = recorded(Place(cluster.place))
    assert known is not None
    assert {h.name for h in known.hosts} == {"alpha", "beta", "gamma"}
    after = pids(cluster.directory)
    assert after.pop(("gamma", "workshop")) != before.pop(("gamma", "workshop"))
    assert after == before


def pids(directory: Path) -> dict[tuple[str, str], int]:
    """Return the processes of the daemons, by host and command."""
    return {
        (node.name, row["command"]): row["pid"]
        for node in (directory / "nodes").iterdir()
        for row in embedded.strays(Place(node))
    }


# --- cut short ---------------------------------------------------------------


def test_what_was_killed_half_way_is_started_again_and_ended(
    server: SshServer, tmp_path: Path
) -> None:
    path, place = tmp_path / "one.yaml", tmp_path / "place"
    (port,) = free_ports(1)
    path.write_text(
        f"launcher: ssh\nssh: {server.command}\ndirectory: {tmp_path}/hosts\n"
        f"hosts: [{{host: delta, port: {port}}}]\n"
        "settings: {network: {bind: 127.0.0.1}}\n"
    )
    node = tmp_path / "hosts/nodes/delta"
    up = subprocess.Popen(
        [sys.executable, "-m", "opencluster", "--dir", str(place), "up", str(path)],
        env=_environment(),
        stderr=subprocess.DEVNULL,
    )
    # the factory has begun, and its workshop has not
    wait_until(lambda: embedded.strays(Place(node)))
    up.kill()
    up.wait()
    for process in _on_host(server):
        os.kill(process, signal.SIGKILL)
    file = load_cluster_file(path)
    (outcome,) = launcher_of(file, Place(place)).launch(lambda _: None)
    assert outcome.is_done, outcome
    assert set(pids(tmp_path / "hosts")) == {
        ("delta", "factory"),
        ("delta", "workshop"),
    }
    with embedded.control_of(load(environ={}), Place(place)) as control:
        assert [s["name"] for s in control.factory("find")] == ["delta"]
    assert (node / "keys").is_dir()
    (outcome,) = launcher_of(file, Place(place)).take_down(lambda _: None)
    assert outcome.is_done, outcome
    assert daemons_of(tmp_path / "hosts") == []
    # nothing is left that lets anybody in, and no trace of a cluster
    assert not (node / "keys").exists()
    assert Place(place).read() == {}
    assert recorded(Place(place)) is None


def test_a_host_that_ends_what_a_log_in_leaves_is_noticed(
    server: SshServer, tmp_path: Path
) -> None:
    nodes, path = tmp_path / "hosts/nodes", tmp_path / "two.yaml"
    # as systemd-logind does it there, when the session has ended
    ssh = script(
        tmp_path / "ssh",
        f'{server.command} "$@"; code=$?\n'
        'case "$*" in *" gamma "*"node up") ;; *) exit $code;; esac\n'
        f"for p in $(grep -lsa {nodes}/gamma /proc/[0-9]*/cmdline); do\n"
        '  p=${p#/proc/}; p=${p%/cmdline}; [ "$p" = $$ ] || kill $p 2>/dev/null\n'
        "done\nexit $code",
    )
    (port,) = free_ports(1)
    path.write_text(
        f"launcher: ssh\nssh: {ssh}\ndirectory: {tmp_path}/hosts\nhosts:\n"
        f"  - {{host: alpha, roles: [factory], address: 127.0.0.1, port: {port}}}\n"
        "  - {host: gamma, roles: [workshop]}\n"
        "settings: {network: {bind: 127.0.0.1}}\n"
    )
    done = command(tmp_path / "place", "up", str(path))
    try:
        assert "gamma: started workshop (" in done.stderr
        log = f"gamma: its workshop ended soon after the start: see {nodes}/gamma/logs;"
        assert log in done.stderr
        assert "KillUserProcesses=yes (docs/launch.md)" in done.stderr
        assert "1 host of 2 failed" in done.stderr
        assert done.returncode == 1
    finally:
        ended = command(tmp_path / "place", "down")
    assert ended.returncode == 0, ended.stderr


def _on_host(server: SshServer) -> list[int]:
    """Return the processes that carry out orders now."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0")
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue
        is_ours = f"{VARIABLE}={os.environ[VARIABLE]}".encode() in environment
        if is_ours and "opencluster.launchers.node" in words:
            found.append(int(entry.name))
    return found


# --- what needs no server ----------------------------------------------------


def ssh_launcher(*hosts: Host, ssh: str = "ssh") -> SshLauncher:
    file = ClusterFile(Path("/f.yaml"), "n", "ssh", ssh=(ssh,), hosts=hosts)
    return SshLauncher(file, Place(Path("/none")))


@pytest.mark.parametrize(
    ("code", "errors", "expected", "may_run"),
    [
        (255, "ssh: connect to host a port 22: Connection timed out",
         "it does not answer: it is off, or a firewall is between", False),
        (255, "ssh: connect to host a port 22: No route to host",
         "it is off, or no network leads there", False),
        (255, "No ED25519 host key is known for a.\nHost key verification failed.",
         "its host key is unknown or has changed: run `ssh a` by hand once", False),
        (255, "Timeout, server a not responding.", "it stopped answering", True),
        (255, "Something new", "ssh failed: Something new; try `ssh a`", True),
        (127, "bash: /p: No such file", "there is no Python at /p", False),
        (1, "/p: No module named opencluster.launchers.node",
         "another version of OpenCluster is installed for /p", False),
        (1, "/p: No module named opencluster", "OpenCluster is not installed", False),
        (137, "", "its Python ended with status 137: it said nothing; see whether "
         "`ssh a /p -V` works", True),
    ],
)  # fmt: skip
def test_what_ssh_says_is_understood(
    code: int, errors: str, expected: str, may_run: bool
) -> None:
    host = Host("a", ("workshop",), python="/p")
    cause = ssh_launcher(host).explain(host, Ran(code, "", errors))
    assert cause.message.startswith(expected)
    assert cause.may_run == may_run


def test_the_command_is_that_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host("me@a", ("workshop",), python="~/my env/bin/python")
    shown = ssh_launcher(host, ssh="/opt/ssh").command(host, "up")
    assert shown[0] == "/opt/ssh"
    assert shown[-3:] == [
        "--",
        "me@a",
        "exec ~/'my env/bin/python' -m opencluster.launchers.node up",
    ]
    monkeypatch.setenv("OPENCLUSTER_SSH", "ssh -F 'other config'")
    assert ssh_launcher(host).command(host, "up")[:3] == ["ssh", "-F", "other config"]
    monkeypatch.setenv("OPENCLUSTER_SSH", "ssh -F 'other")
    with pytest.raises(ConfigError, match="OPENCLUSTER_SSH is no command line: No cl"):
        ssh_launcher(host).command(host, "up")


def test_a_factory_is_where_ssh_takes_its_name_for(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host a\n  HostName a.cluster.example\n")
    hosts = [
        Host("a", ("factory",)),
        Host("me@b", ("factory",), port=9101),
        Host("c", ("factory",), address="10.0.0.3"),
    ]
    file = ClusterFile(
        Path("/f"), "n", "ssh", ssh=("ssh", "-F", str(config)), hosts=tuple(hosts)
    )
    launcher = SshLauncher(file, Place(tmp_path))
    assert [launcher.endpoint(host) for host in hosts] == [
        "tcp://a.cluster.example:9100",
        "tcp://b:9101",
        "tcp://10.0.0.3:9100",
    ]
    # without any ssh, the name must do
    assert ssh_launcher(ssh="/nowhere/ssh").endpoint(hosts[1]) == "tcp://b:9101"


def test_two_factories_at_one_place_are_refused(tmp_path: Path) -> None:
    both = [Host(n, ("factory",), address="10.0.0.1") for n in ("a", "b")]
    file = ClusterFile(Path("/f"), "n", "ssh", hosts=tuple(both))
    place = Place(tmp_path / "place")
    with pytest.raises(LaunchFailed, match=r"two factories would be at tcp://10\.0\."):
        SshLauncher(file, place).launch(lambda _: None)
    place.forget()


def test_no_factory_is_where_others_cannot_reach_it(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host a c\n  HostName 127.0.0.1\n")
    a, b, c, d = (
        Host("a", ("factory",)),
        Host("b", ("workshop",)),
        Host("c", ("workshop",)),
        Host("d", ("factory",), address="fd00::1"),
    )
    file = ClusterFile(Path("/f"), "n", "ssh", ssh=("ssh", "-F", str(config)))
    place = Place(tmp_path)
    with pytest.raises(LaunchFailed, match="would be at 127.0.0.1, where no other"):
        SshLauncher(replace(file, hosts=(a, b)), place).describe()
    # of one computer, or as the user says, they may be anywhere
    for hosts in ((a, c), (replace(a, address="127.0.0.1"), b)):
        launcher = SshLauncher(replace(file, hosts=hosts), place)
        assert launcher.endpoint(hosts[0]) == "tcp://127.0.0.1:9100"
    with pytest.raises(LaunchFailed, match="at fd00::1, and OpenCluster talks IPv4"):
        SshLauncher(file, place).endpoint(d)


def test_a_dry_run_shows_everything_but_secrets(tmp_path: Path) -> None:
    (tmp_path / "w.py").write_text("")
    path = tmp_path / "n.yaml"
    path.write_text(
        "launcher: ssh\nhosts: [{host: a, address: 10.0.0.1}, b]\n"
        "workers: {W: {target: 'w.py:W', count: 2}}\n"
    )
    place = Place(tmp_path / "place")
    shown = launcher_of(load_cluster_file(path), place).describe()
    for part in (
        f"# controlled from {place.path}",
        "# a: factory, workshop",
        "# b: workshop",
        "keys factory.key, workshop.key, worker.key",
        "keys workshop.key, worker.key\nprograms w.py",
        "directory ~/.local/state/opencluster/n/nodes/b",
        "factories = tcp://10.0.0.1:9100",
        "target = w.py:W",
    ):
        assert part in shown
    assert not place.path.exists()


def test_what_was_launched_otherwise_is_ended_first(tmp_path: Path) -> None:
    host = Host("a", ("factory", "workshop"), address="10.0.0.1")
    file = ClusterFile(Path("/f"), "n", "ssh", ssh=("/nowhere/ssh",), hosts=(host,))
    place = Place(tmp_path)
    keep_record(place, file)
    moved = replace(file, directory="/scratch/n")
    with pytest.raises(LaunchFailed, match="launched with directory: ~/.local"):
        SshLauncher(moved, place).launch(lambda _: None)
    # whatever fails with another file, what is known of before stays
    other = replace(file, sections={"limits": {"max_types": "7"}})
    (outcome,) = SshLauncher(other, place).launch(lambda _: None)
    assert not outcome.is_done
    assert recorded(place) == file
    place.forget()


def test_one_command_at_a_time_launches_from_a_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = Host("a", ("factory", "workshop"), address="10.0.0.1")
    file = ClusterFile(Path("/f"), "n", "ssh", ssh=("/nowhere/ssh",), hosts=(host,))
    place = Place(tmp_path / "place")
    order = SshLauncher._order
    first = threading.Event()
    at_once: list[bool] = []
    second = threading.Thread(
        target=lambda: SshLauncher(file, place).take_down(lambda _: None)
    )

    def slowly(self: SshLauncher, *given: Any) -> Outcome:
        if not first.is_set():
            first.set()
            second.start()
            second.join(0.2)
            at_once.append(not second.is_alive())
        return order(self, *given)

    monkeypatch.setattr(SshLauncher, "_order", slowly)
    SshLauncher(file, place).launch(lambda _: None)
    second.join(DEADLINE_S)
    assert at_once == [False]


def test_another_file_with_the_name_of_one_in_force_is_refused(tmp_path: Path) -> None:
    host = Host("a", ("factory", "workshop"), address="10.0.0.1")
    path, other = tmp_path / "a.yaml", tmp_path / "b.yaml"
    for each in (path, other):
        each.touch()
    file = ClusterFile(path, "n", "ssh", ssh=("/nowhere/ssh",), hosts=(host,))
    place = Place(tmp_path / "place")
    place.make()
    keep_record(place, file)
    twin = SshLauncher(replace(file, path=other), place)
    with pytest.raises(LaunchFailed, match=f"was launched by {path}: give this clust"):
        twin.launch(lambda _: None)
    # one that was moved, or has two names, is the same
    path.unlink()
    path.symlink_to(other)
    assert not twin.launch(lambda _: None)[0].is_done
    path.unlink()
    assert not twin.launch(lambda _: None)[0].is_done
    place.forget()


@pytest.mark.parametrize("failures_in_passing", [3, 4])
def test_a_server_that_is_crowded_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures_in_passing: int
) -> None:
    monkeypatch.setattr(hosts_module, "PAUSE_S", 0.0)
    said = "kex_exchange_identification: Connection closed by remote host"
    ssh = script(
        tmp_path / "ssh",
        f"echo >>{tmp_path}/calls\n"
        f"if [ $(wc -l <{tmp_path}/calls) -le {failures_in_passing} ]; then\n"
        f"  echo '{said}' >&2; exit 255\nfi\n"
        f"echo '{Answer(True, 'started factory').to_json()}'",
    )
    host = Host("a", ("factory",), address="10.0.0.1")
    file = ClusterFile(Path("/f"), "n", "ssh", ssh=(ssh,), hosts=(host,))
    place = Place(tmp_path / "place")
    (outcome,) = SshLauncher(file, place).launch(lambda _: None)
    place.forget()
    if failures_in_passing < hosts_module.ATTEMPTS:
        assert outcome.message.startswith("started factory")
    else:
        assert outcome.message.startswith("its ssh server, or one on the way, takes no")


def test_without_a_factory_nothing_else_is_tried(tmp_path: Path) -> None:
    hosts = (Host("a", ("factory",)), Host("b", ("workshop",)))
    file = ClusterFile(
        Path("/f"), "n", "ssh", ssh=("/nowhere/ssh",), hosts=hosts, python="/p"
    )
    place = Place(tmp_path / "place")
    told: list[Outcome] = []
    outcomes = SshLauncher(file, place).launch(told.append)
    assert outcomes == told
    assert [o.message for o in outcomes] == [
        "cannot run /nowhere/ssh: No such file or directory",
        "not tried, since no factory runs that it could register with",
    ]
    # so there is nothing to end either, and nothing that looks like a cluster
    assert recorded(place) is None
    assert place.read() == {}
