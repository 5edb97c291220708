"""The cluster file: what it means, and how its mistakes are told."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from opencluster.config import load
from opencluster.config.render import render_sections
from opencluster.errors import ConfigError
from opencluster.launchers.batch.script import Job, script
from opencluster.launchers.cluster_file import (
    Batch,
    ClusterFile,
    Host,
    load_cluster_file,
)
from opencluster.launchers.yaml_lines import MAX_FILE_BYTES

PAGE = Path(__file__).parent.parent.parent / "docs/launch.md"
BOTH = ("factory", "workshop")
SLURM = """\
launcher: slurm
batch:
  nodes: 2
"""
WORKER = "workers: {Count: {target: 'words:Count'}}\n"


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A folder with programs, where `read` writes cluster files."""
    (tmp_path / "words.py").write_text("class Count: ...\n")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/part.py").write_text("PARTS = 2\n")
    return tmp_path


def read(folder: Path, text: str) -> ClusterFile:
    path = folder / "night.yaml"
    path.write_text(text)
    return load_cluster_file(path)


def problems(folder: Path, text: str) -> list[str]:
    """Return what is wrong, each without the path of the file."""
    with pytest.raises(ConfigError) as raised:
        read(folder, text)
    path = str(folder / "night.yaml")
    lines = str(raised.value).splitlines()
    lines = [line for line in lines if "problems in" not in line]
    return [line.strip().removeprefix(f"{path}:") for line in lines]


# --- what it means ----------------------------------------------------------


def test_an_empty_file_is_a_cluster_of_this_computer(written: Path) -> None:
    file = read(written, "")
    assert file == ClusterFile(
        written / "night.yaml",
        name="night",
        directory="~/.local/state/opencluster/night",
        python=sys.executable,
    )


FULL = """\
name: obs
launcher: ssh
directory: /scratch/obs
python: /opt/oc/bin/python
ssh: ssh -F "my config"
factory_port: 9200
hosts:
  - node1
  - host: node2
    roles: [workshop, factory]
    workers: {Count: 0}
    python: ~/oc/bin/python
    port: 9101
    address: 10.0.0.2
workers:
  Count: {target: words.py:Count, count: 4, max_memory: 2 GB, cpus: [0-3, 8]}
  Short: 'words:Short'
services:
  Sky:
    command: [python3, -m, sky, "a # b"]
    env: {TABLE: "planets # 2020", N: 010}
    arg: {pixels: 1024, name: "7", parts: [1, {a: null}]}
files: [lib]
limits: {max_types: 500}
settings:
  network: {announce: ib0, compression: none}
  worker: {drain_timeout_s: 1.5e1}
elastic:
  Count: {minimum: 0, maximum: 64, target_s: 30}
  limits: {launches_per_minute: 4}
"""


def test_everything_that_a_file_can_say(written: Path) -> None:
    file = read(written, FULL)
    assert (file.name, file.launcher) == ("obs", "ssh")
    assert (file.directory, file.factory_port) == ("/scratch/obs", 9200)
    assert file.ssh == ("ssh", "-F", "my config")
    assert file.hosts == (
        Host("node1", ("workshop",), port=9200, python="/opt/oc/bin/python"),
        Host("node2", BOTH, "10.0.0.2", 9101, "~/oc/bin/python", {"Count": 0}),
    )
    assert file.names == ["Count", "Short", "Sky"]
    # a relative target is copied as well as what is listed
    assert file.files == {
        "lib/part.py": written / "lib/part.py",
        "words.py": written / "words.py",
    }
    wanted = {"minimum": "0", "maximum": "64", "target_s": "30"}
    assert file.sections["elastic:Count"] == wanted
    assert file.sections["elastic"] == {"launches_per_minute": "4"}


def test_the_hosts_read_of_it_what_was_written(written: Path) -> None:
    file = read(written, FULL)
    ini = written / "config.ini"
    ini.write_text(render_sections(file.sections_for({"Count": 1})))
    config = load([ini], environ={})
    count, short, sky = config.catalogue
    assert (count.target, count.count) == (f"{written}/words.py:Count", 1)
    assert (count.max_memory, count.cpus) == (2_000_000_000, (0, 1, 2, 3, 8))
    assert short.target == "words:Short"
    assert sky.command == ("python3", "-m", "sky", "a # b")
    # as it is written, whatever YAML makes of it
    assert sky.environment == {"TABLE": "planets # 2020", "N": "010"}
    assert sky.arguments == {"pixels": 1024, "name": "7", "parts": [1, {"a": None}]}
    assert config.limits.max_types == 500
    assert (config.network.announce, config.network.compression) == ("ib0", "none")
    assert config.worker.drain_timeout_s == 15.0
    # that is for one who looks after all of them
    assert config.elastic_types == ()


def test_a_cluster_always_has_a_name(tmp_path: Path) -> None:
    # without one, its directory would be that of all clusters
    path = tmp_path / "-_-.yaml"
    path.touch()
    file = load_cluster_file(path)
    assert file.name == "cluster"
    assert file.directory == "~/.local/state/opencluster/cluster"


def test_it_is_kept_as_plain_data(written: Path) -> None:
    file = read(written, FULL)
    assert ClusterFile.from_fields(file.to_fields()) == file


@pytest.mark.parametrize(
    ("names", "factories"),
    [("a", "a"), ("ab", "a"), ("abc", "abc"), ("abcde", "abc")],
)
def test_one_or_three_hosts_are_factories(
    written: Path, names: str, factories: str
) -> None:
    file = read(written, f"launcher: ssh\nhosts: [{', '.join(names)}]\n")
    assert "".join(h.name for h in file.hosts if h.is_factory) == factories
    assert all("workshop" in host.roles for host in file.hosts)


def test_hosts_that_say_what_they_are_stay_that(written: Path) -> None:
    hosts = "[{host: a, roles: [workshop]}, b, c, {host: d, roles: workshop}]"
    file = read(written, f"launcher: ssh\nhosts: {hosts}\n")
    assert [host.roles for host in file.hosts] == [
        ("workshop",), BOTH, ("workshop",), ("workshop",)
    ]  # fmt: skip


def test_what_a_batch_system_is_asked_for(written: Path) -> None:
    batch = "{nodes: 4, time: 2:00:00, gpus_per_node: 1, options: [--exclusive]}"
    file = read(written, f"launcher: slurm\nbatch: {batch}\n")
    wanted = Batch(nodes=4, time="2:00:00", gpus_per_node=1, options=("--exclusive",))
    assert file.batch == wanted
    assert file.hosts == ()


def test_counts_of_a_host_replace_those_of_the_catalogue() -> None:
    sections = {"worker:A": {"target": "m:A", "count": "4"}, "cluster": {"count": "1"}}
    file = replace(ClusterFile(Path("f"), "n"), sections=sections)
    changed = file.sections_for({"A": 2, "cluster": 3})
    assert changed["worker:A"]["count"] == "2"
    assert changed["cluster"] == {"count": "1"}
    assert file.sections["worker:A"]["count"] == "4"


def test_the_files_of_the_page_are_in_order(tmp_path: Path) -> None:
    (tmp_path / "wordcount.py").write_text("")
    found = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    files = [read(tmp_path, text) for text in found]
    launchers = [file.launcher for file in files]
    assert launchers[:3] == ["ssh", "slurm", "ssh"]
    assert files[2].name == "observatory"
    assert script("slurm", Job("night", "/scratch/night", "python3", files[1].batch))


# --- mistakes ---------------------------------------------------------------


def test_all_mistakes_are_told_at_once_in_the_order_of_the_lines(written: Path) -> None:
    text = """\
launcher: ssh
hosts:
  - node1
  - host: node2
    roles: [factory, workshp]
    workers: {Cout: 1}
    prot: 3
  - node1
  - {host: -oProxyCommand=evil, port: 70000}
workers:
  Count: {target: words.py:Count, count: four}
  Bad: {}
files: [none.py, ../up.py, config.ini]
limits: {max_typs: 3}
settings:
  network: {bidn: x}
  cluster: {keys: /k, lease_s: 1}
  netwrk: {}
elastic: {Coun: {minimum: -1}}
"""
    assert problems(written, text) == [
        "5: hosts[1].roles: got 'workshp', did you mean workshop?",
        "6: hosts[1].workers: Cout is not in the catalogue, did you mean Count?",
        "7: hosts[1]: unknown key 'prot', did you mean port?",
        "8: hosts[2]: node1 stands there before, as hosts[0]",
        "9: hosts[3].host: got '-oProxyCommand=evil', expected the name of a host, "
        "as ssh takes it",
        "9: hosts[3].port: got 70000, expected an integer from 1 to 65535",
        "11: workers.Count.count: got 'four', expected an integer, at least 0",
        "12: workers.Bad: expected one of target and command, neither is given",
        f"13: files[0]: there is no file {written}/none.py",
        "13: files[1]: got '../up.py', expected a path inside the folder of the "
        "cluster file",
        "13: files[2]: got 'config.ini', expected another name than config.ini",
        "14: limits.max_typs: unknown key 'max_typs', did you mean max_types?",
        "16: settings.network.bidn: unknown key 'bidn', did you mean bind?",
        "17: settings.cluster.keys: it cannot be set here: `opencluster up` makes and "
        "sends the keys",
        "18: settings.netwrk: there is no such section, did you mean network?",
        "19: elastic.Coun: it is not in the catalogue, did you mean Count?",
        "19: elastic.Coun.minimum: got '-1', expected an integer, from 0 to 100000",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a\n", "1: expected keys with values"),
        ("launchr: ssh\n", "1: unknown key 'launchr', did you mean launcher?"),
        ("\nlauncher: shh\n", "2: launcher: got 'shh', did you mean ssh?"),
        ("name: a/b\n", "1: name: got 'a/b', expected letters"),
        ("directory: here\n", "1: directory: got 'here', expected a path from"),
        ("launcher: ssh\n", "1: hosts: expected a list of at least one host"),
        ("launcher: ssh\nhosts: [{host: a, roles: workshop}]\n", "2: hosts: none of"),
        ("launcher: ssh\nhosts: [{host: a, roles: []}]\n", "2: hosts[0].roles: exp"),
        ("launcher: ssh\nhosts: [{}]\n", "2: hosts[0].host: expected the name"),
        ("hosts: [a]\n", "1: hosts: the launcher local takes no list of hosts"),
        ("batch: {nodes: 2}\n", "1: batch: the launcher local takes no batch"),
        ("launcher: slurm\nbatch: {nodes: 0}\n", "2: batch.nodes: got 0, expected"),
        ("launcher: pbs\nbatch: {node: 3}\n", "2: batch: unknown key 'node', did"),
        ("launcher: pbs\n", "1: batch.cpus_per_node: PBS must be told how many CPUs"),
        ("launcher: pbs\nbatch: {nodes: 3}\n", "2: batch.cpus_per_node: PBS must be"),
        (f"{SLURM}  time: 1:30\n", "4: batch.time: 1:30 is no longer than drain_bef"),
        (f"{SLURM}  time: soon\n", "4: batch.time: got 'soon', expected hours"),
        (f"{SLURM}  account: a b\n", "4: batch.account: got 'a b', expected letters"),
        (f"{SLURM}  queue: x;y\n", "4: batch.queue: got 'x;y', expected letters"),
        (f"{SLURM}directory: ~/my night\n", "4: directory: '~/my night' cannot stand"),
        ("ssh: 'a \"b'\n", "1: ssh: expected a command line with balanced quotes"),
        ("python: [a]\n", "1: python: expected a text"),
        (f"{WORKER}settings: {{'worker:A': {{}}}}\n", "2: settings.worker:A: write it"),
        ("settings: {cluster: {lease_s: 1}}\n", "1: settings.cluster.lease_s: got 1.0"),
        ("settings: {web: {host: {a: b}}}\n", "1: settings.web.host: expected a value"),
        ("services: {S: {command: x, env: {A: \"a\\nb\"}}}\n", "1: services.S.env.A: "),
        ("services: {S: {command: x, env: {A: \"a\\0b\"}}}\n", "1: services.S.env.A: "),
        # --- no YAML that is taken here
        ("a: b: c\n", "1: this is no YAML: mapping values are not allowed here"),
        ("name: a\nname: b\n", "2: name is set before, in line 1"),
        ("name: &a b\n", "1: anchors and aliases (& and *) are not taken here"),
        ("name: *a\n", "1: anchors and aliases (& and *) are not taken here"),
        ("name: !!python/name:os.system x\n", "1: tags (!) are not taken here"),
        (f"name: {'[' * 50}{']' * 50}\n", "1: nested deeper than 12 levels"),
        ("? [a]\n: b\n", "1: expected a name before the colon"),
        ("name: a\n---\nname: b\n", "2: this is no YAML: but found another document"),
        ("name: \t\x07\n", " this is no YAML: unacceptable character"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_line(
    written: Path, text: str, expected: str
) -> None:
    found = problems(written, text)
    assert any(line.startswith(expected) for line in found), found


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load_cluster_file(tmp_path / "none.yaml")
    path = tmp_path / "large.yaml"
    path.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(ConfigError, match="larger than 1048576 bytes"):
        load_cluster_file(path)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigError, match="byte 0 is not UTF-8"):
        load_cluster_file(path)
