"""Settings: defaults, layers, origins, syntax, and what is said about mistakes."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opencluster.config import (
    CatalogueEntry,
    Config,
    load,
    render_default,
    render_reference,
    sources,
)
from opencluster.config.settings import SECTIONS, LogSettings, TracingSettings
from opencluster.config.values import SIZE, Setting
from opencluster.errors import ConfigError

ROOT = Path(__file__).parent.parent
REWRITE = "run `make config` to write this file anew"


@pytest.fixture(autouse=True)
def system_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in for the file under /etc, which does not exist at first."""
    path = tmp_path / "etc" / "config.ini"
    monkeypatch.setattr(sources, "SYSTEM_FILE", path)
    return path


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def ini(tmp_path: Path) -> Path:
    return tmp_path / "my.ini"


def read(ini: Path, text: str, environ: Mapping[str, str] | None = None) -> Config:
    return load([write(ini, text)], environ=environ or {})


def refusal(ini: Path, text: str, environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        read(ini, text, environ)
    assert caught.value.__cause__ is None
    return str(caught.value)


# --- defaults and the files made from them ----------------------------------------


def test_defaults_are_those_of_the_design() -> None:
    config = load(environ={})
    assert config == Config()
    assert config.cluster.factories == ()
    assert config.cluster.lease_s == 10.0
    assert config.cluster.insecure is False
    assert config.network.bind == "127.0.0.1"
    assert config.network.max_message_bytes == 4 * 1024**3
    assert config.factory.port == 0
    assert config.workshop.log_bytes == 10_000_000
    assert config.worker.max_queued == 10_000
    assert config.manager.buffer_bytes == 64_000_000
    assert config.manager.progress == "auto"
    assert config.log.level == "INFO"
    assert config.catalogue == ()


def test_config_is_frozen_and_can_be_pickled() -> None:
    config = load(environ={}, overrides={("worker:a", "target"): "m:C"})
    with pytest.raises(FrozenInstanceError):
        config.log.level = "DEBUG"  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(config)) == config


def test_sections_are_compared_by_their_values_and_changed_by_their_keys() -> None:
    log = load(environ={}, overrides={("log", "level"): "DEBUG"}).log
    assert log == LogSettings(level="DEBUG") == LogSettings().changed(level="DEBUG")
    assert log not in (LogSettings(), TracingSettings(), "DEBUG")
    assert repr(log) == "LogSettings(level='DEBUG')"
    with pytest.raises(TypeError, match="LogSettings has no colour"):
        log.changed(colour="red")


def test_packaged_file_is_made_from_the_settings() -> None:
    text = (ROOT / "opencluster" / "config.ini").read_text(encoding="utf-8")
    assert text == render_default(), REWRITE


def test_top_level_file_is_a_link_to_the_packaged_one() -> None:
    assert (ROOT / "config.ini").readlink() == Path("opencluster/config.ini")


def test_reference_is_made_from_the_settings() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert text == render_reference(), REWRITE


def test_default_file_sets_every_key_to_its_default(ini: Path) -> None:
    config = read(ini, render_default())
    assert config == Config()
    for row in config.rows():
        assert row.origin.startswith(f"{ini}:"), row
        line = int(row.origin.rpartition(":")[2])
        shown = render_default().splitlines()[line - 1]
        assert shown == f"{row.key} = {row.text}".rstrip()


def test_example_sections_of_the_default_file_are_valid(ini: Path) -> None:
    _, _, examples = render_default().partition("#[worker")
    text = "[worker" + examples.replace("\n#", "\n")
    config = read(ini, text, {"HOME": "/home/me"})
    assert [entry.section for entry in config.catalogue] == [
        "worker:WordCount",
        "worker:Imaging",
        "service:Ephemeris",
    ]
    assert config.catalogue[1].arguments == {"pixels": 1024}
    assert config.catalogue[2].command[-1] == "planets 2020.txt"


def test_every_setting_is_explained_in_one_line_and_documented() -> None:
    reference = render_reference()
    for name, section in SECTIONS.items():
        assert f"## [{name}]\n" in reference
        for key, setting in section.settings.items():
            assert setting.explanation.endswith(".")
            assert "\n" not in setting.explanation
            assert f"| `{key}` |" in reference


# --- layers and origins -----------------------------------------------------------


def test_each_source_overrules_the_ones_before(
    tmp_path: Path, system_file: Path, ini: Path
) -> None:
    keys = ["retries", "max_kills", "window", "max_credit", "max_pending", "timeout_s"]
    user = tmp_path / "xdg" / "opencluster" / "config.ini"
    named = tmp_path / "named.ini"
    second = tmp_path / "second.ini"
    files = [system_file, user, named, ini, second]
    for number, path in enumerate(files, start=1):
        lines = [f"{key} = {number}" for key in keys[number - 1 :]]
        write(path, "[manager]\n" + "\n".join(lines))
    environ = {
        "XDG_CONFIG_HOME": str(tmp_path / "xdg"),
        "OPENCLUSTER_CONFIG": str(named),
        "OPENCLUSTER_MANAGER_TIMEOUT_S": " 6 ",
        "OPENCLUSTER_LOG_LEVEL": "error",
    }
    overrides = {("log", "level"): "debug"}
    config = load([ini, second], environ, overrides)

    assert [getattr(config.manager, key) for key in keys] == [1, 2, 3, 4, 5, 6]
    for key, path in zip(keys, files, strict=False):
        assert config.origin("manager", key) == f"{path}:2"
    variable = "environment variable OPENCLUSTER_MANAGER_TIMEOUT_S"
    assert config.origin("manager", "timeout_s") == variable
    assert config.log.level == "DEBUG"
    assert config.origin("log", "level") == "command line"
    assert config.origin("manager", "progress") == "default"


def test_user_file_is_under_home_without_xdg(tmp_path: Path) -> None:
    write(tmp_path / ".config/opencluster/config.ini", "[log]\nlevel = ERROR")
    for xdg in ({}, {"XDG_CONFIG_HOME": ""}, {"XDG_CONFIG_HOME": "relative"}):
        assert load(environ={"HOME": str(tmp_path), **xdg}).log.level == "ERROR"


def test_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCLUSTER_LOG_LEVEL", "WARNING")
    assert load().log.level == "WARNING"


def test_rows_show_values_as_text_with_their_origins(ini: Path) -> None:
    text = "[network]\nmax_message_bytes = 67108864\n[worker:a]\ntarget=m:C\ncount=2\n"
    text += "cpus = 0-2\nmax_memory = 1000000\nenv.A = b\narg.c = [1, 'x']"
    rows = {(r.section, r.key): r for r in read(ini, text).rows()}
    assert rows["network", "max_message_bytes"].text == "64 MiB"
    assert rows["network", "max_message_bytes"].origin == f"{ini}:2"
    assert rows["cluster", "insecure"].text == "false"
    assert rows["cluster", "insecure"].origin == "default"
    assert rows["worker:a", "cpus"].text == "0, 1, 2"
    assert rows["worker:a", "max_memory"].text == "1 MB"
    assert rows["worker:a", "env.A"].text == "b"
    assert rows["worker:a", "arg.c"].text == "[1, 'x']"
    assert rows["worker:a", "count"].origin == f"{ini}:5"
    assert rows["worker:a", "type"].origin == "default"
    assert ("worker:a", "gpus") not in rows


def test_unrelated_variables_are_left_alone() -> None:
    environ = {
        "OPENCLUSTER_DIR": "/tmp/x",
        "OPENCLUSTER_CONFIG": "",
        "OPENCLUSTER_SITE_SECRET": "x",
        "OPENCLUSTERS": "x",
    }
    assert load(environ=environ) == Config()


# --- values -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "line", "expected"),
    [
        ("cluster", "factories =", ()),
        ("cluster", "factories = a:1, tcp://b:65535", ("tcp://a:1", "tcp://b:65535")),
        ("cluster", "factories = [::1]:9000", ("tcp://[::1]:9000",)),
        ("cluster", "factories =\n  a:1\n  b:2", ("tcp://a:1", "tcp://b:2")),
        ("cluster", "factories = a:1, # first\n  b:2", ("tcp://a:1", "tcp://b:2")),
        ("cluster", "lease_s = 1e1", 10.0),
        ("cluster", "INSECURE : Yes", True),
        ("cluster", "insecure = on", True),
        ("cluster", "insecure = off", False),
        ("cluster", "insecure = No ; for now", False),
        ("worker", "max_memory = 2048", 2048),
        ("worker", "max_memory = 64 MB", 64_000_000),
        ("network", "max_message_bytes = 2GiB", 2 * 1024**3),
        ("worker", "max_memory = 1.5 kb", 1500),
        ("network", "bind = ::1  # loopback", "::1"),
        ("network", 'bind = "a # b"', "a # b"),
        ("network", "bind = a#b;c", "a#b;c"),
        ("network", "bind = # nothing", ""),
        ("network", "ports =", ()),
        ("network", "ports = 9200-9399", (9200, 9399)),
        ("network", "ports = 9200", (9200, 9200)),
        ("workshop", "name = Ann's ; hers", "Ann's"),
        ("factory", "port = 65535", 65535),
        ("manager", "progress = NEVER", "never"),
        ("log", "level = debug", "DEBUG"),
    ],
)
def test_values_are_typed(ini: Path, section: str, line: str, expected: object) -> None:
    config = read(ini, f"[{section}]\n{line}")
    key = line.split("=")[0].split(":")[0].strip().lower()
    value: Any = getattr(getattr(config, section), key)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("section", "key", "text", "expected"),
    [
        ("cluster", "factories", "node1", "a list such as node1:9000"),
        ("cluster", "factories", "a:1 http://b:2", "a list such as"),
        ("cluster", "factories", "*:9000", "a list such as"),
        ("cluster", "factories", "a:0", "a list such as"),
        ("cluster", "factories", "a:65536", "a list such as"),
        ("cluster", "lease_s", "soon", "a number of seconds, at least 0.02"),
        ("cluster", "lease_s", "nan", "a number of seconds"),
        ("cluster", "lease_s", "inf", "a number of seconds"),
        ("cluster", "heartbeat_interval_s", "0", "at least 0.01"),
        ("cluster", "insecure", "maybe", "true or false"),
        ("cluster", "insecure", "", "true or false"),
        ("network", "max_message_bytes", "1", "at least 64 MiB"),
        ("network", "max_message_bytes", "-5 MB", "a number of bytes"),
        ("network", "max_message_bytes", "5 parsecs", "unit such as 64 MB"),
        ("network", "max_message_bytes", "1" * 400 + ".5 GB", "a number of bytes"),
        ("network", "ports", "9399-9200", "a range of ports such as 9200-9399"),
        ("network", "ports", "0-10", "a range of ports"),
        ("network", "ports", "1-65536", "a range of ports"),
        ("network", "ports", "9200-", "a range of ports"),
        ("factory", "port", "80.5", "an integer"),
        ("factory", "port", "-1", "an integer, from 0 to 65535"),
        ("factory", "port", "65536", "an integer, from 0 to 65535"),
        ("workshop", "oom_score_adj", "-500", "from 0 to 1000"),
        ("manager", "progress", "sometimes", "auto, always or never"),
        ("log", "level", "LOUD", "DEBUG, INFO, WARNING, ERROR or CRITICAL"),
        ("worker:x", "count", "-1", "an integer, at least 0"),
        ("worker:x", "cpus", "3-1", "a list of CPU numbers"),
        ("worker:x", "cpus", "-1", "a list of CPU numbers"),
        ("worker:x", "cpus", "0-999999999", "a list of CPU numbers"),
        ("worker:x", "command", "sh -c 'oops", "balanced quotes"),
        ("worker:x", "target", "module", "module:Class or path.py:Class"),
        ("worker:x", "target", "a.py:B.c", "module:Class or path.py:Class"),
        ("worker:x", "memory_bytes", "lots", "unit such as 64 MB"),
        ("service:x", "directory", "~nobody-has-this-name/x", "home"),
    ],
)
def test_wrong_value_names_file_section_key_and_both_values(
    ini: Path, section: str, key: str, text: str, expected: str
) -> None:
    message = refusal(ini, f"# a comment\n[{section}]\n{key} = {text}\n")
    assert message.startswith(f"{ini}:3: [{section}] {key}: got ")
    assert repr(text)[:60].rstrip("'") in message
    assert expected in message


def test_long_values_are_shortened_in_messages(ini: Path) -> None:
    message = refusal(ini, "[factory]\nport = " + "x" * 100_000)
    assert len(message.replace(str(ini), "")) < 300


@given(st.integers(min_value=0, max_value=2**60))
def test_sizes_survive_being_written_and_read(size_bytes: int) -> None:
    assert SIZE.parse(SIZE.render(size_bytes)) == size_bytes


@given(st.text())
def test_every_setting_takes_or_refuses_any_text(text: str) -> None:
    settings: list[Setting] = [
        setting
        for section in SECTIONS.values()
        for setting in section.settings.values()
    ]
    for setting in settings:
        try:
            value = setting.read(text)
        except ValueError as error:
            assert "expected" in str(error)
        else:
            assert setting.read(setting.kind.render(value)) == value


# --- the catalogue ----------------------------------------------------------------


def test_catalogue_section_with_everything(ini: Path) -> None:
    config = read(
        ini,
        """
        [worker:Imaging]
        target = observatory.imaging:ImagingWorker
        type = ImagingGPU
        count = 2
        cpus = 0-2, 8
        memory_bytes = 2 GiB
        gpus = 1
        directory = data
        max_pieces = 100
        max_memory = 1 GB
        env.OMP_NUM_THREADS = 4
        env.Path = "/a b:/c"
        arg.pixels = 1024
        arg.name = sun
        arg.bands = {"low": [1, 2],
            "high": (3,)}    ; goes on
        """,
    )
    assert config.catalogue == (
        CatalogueEntry(
            kind="worker",
            name="Imaging",
            target="observatory.imaging:ImagingWorker",
            type="ImagingGPU",
            count=2,
            cpus=(0, 1, 2, 8),
            memory_bytes=2 * 1024**3,
            gpus=1,
            directory=str(ini.parent / "data"),
            max_pieces=100,
            max_memory=1_000_000_000,
            environment={"OMP_NUM_THREADS": "4", "Path": "/a b:/c"},
            arguments={
                "pixels": 1024,
                "name": "sun",
                "bands": {"low": [1, 2], "high": (3,)},
            },
        ),
    )


def test_catalogue_defaults(ini: Path) -> None:
    (entry,) = read(ini, "[service:ephemeris]\ncommand = run 'a b' -x").catalogue
    assert entry.kind == "service"
    assert entry.command == ("run", "a b", "-x")
    assert entry.type == entry.name == "ephemeris"
    assert (entry.target, entry.count, entry.gpus) == ("", 0, 0)
    assert entry.max_pieces is None
    assert entry.max_memory is None


def test_relative_target_counts_from_the_file_that_names_it(ini: Path) -> None:
    text = "[worker:a]\ntarget = sub/work.py:A\n[worker:b]\ntarget = /abs/work.py:B"
    first, second = read(ini, text).catalogue
    assert first.target == f"{ini.parent}/sub/work.py:A"
    assert second.target == "/abs/work.py:B"


def test_catalogue_sections_are_merged_by_key(ini: Path, system_file: Path) -> None:
    write(system_file, "[worker:a]\ntarget = m:A\ncount = 1\nenv.X = 1\nenv.Y = 1")
    text = "[worker:a]\ntarget =\ncommand = run\nenv.X = 2"
    (entry,) = load([write(ini, text)], {}, {("worker:a", "count"): "7"}).catalogue
    assert (entry.target, entry.command, entry.count) == ("", ("run",), 7)
    assert entry.environment == {"X": "2", "Y": "1"}


@pytest.mark.parametrize(
    ("section", "lines", "place", "expected"),
    [
        ("worker:a", "count = 1", ":1: [worker:a] target", "neither is given"),
        ("worker:a", "target=m:A\ncommand=b", ":3: [worker:a] command", "both are"),
        ("worker:", "target=m:A", ":1: [worker:]", "got the name ''"),
        ("worker:a/b", "target=m:A", ":1: [worker:a/b]", "letters, digits"),
        ("worker:a", "env.1 = 2", ":2: [worker:a] env.1", "a name after env."),
        ("worker:a", "arg. = 2", ":2: [worker:a] arg.", "a name after arg."),
        ("worker:a", "cuont = 2", ":2: [worker:a] cuont", "did you mean count?"),
        ("worker:a", "enf.X = 2", ":2: [worker:a] enf.X", "env.NAME"),
    ],
)
def test_wrong_catalogue_section(
    ini: Path, section: str, lines: str, place: str, expected: str
) -> None:
    message = refusal(ini, f"[{section}]\n{lines}")
    assert message.startswith(f"{ini}{place}: ")
    assert expected in message


# --- mistakes ---------------------------------------------------------------------


def test_unknown_key_suggests_the_nearest(ini: Path) -> None:
    message = refusal(ini, "[cluster]\nlease = 5")
    assert message.startswith(f"{ini}:2: [cluster] lease: unknown key 'lease'")
    assert message.endswith("did you mean lease_s?")


def test_unknown_key_without_a_near_one_lists_all(ini: Path) -> None:
    message = refusal(ini, "[log]\ncolour = red")
    assert message.startswith(f"{ini}:2: [log] colour: ")
    assert message.endswith("known: level")


def test_key_of_another_section_is_sent_there(ini: Path) -> None:
    message = refusal(ini, "[worker]\nretries = 5")
    assert message.startswith(f"{ini}:2: [worker] retries: ")
    assert "belongs into [manager]" in message


@pytest.mark.parametrize(
    ("section", "near"),
    [("managr", "manager"), ("wurker:a", "worker:NAME"), ("xyz", "cluster, network")],
)
def test_unknown_section_names_key_and_suggests(
    ini: Path, section: str, near: str
) -> None:
    message = refusal(ini, f"\n[{section}]\nretries = 1")
    assert message.startswith(f"{ini}:2: [{section}] retries: unknown section")
    assert near in message


def test_empty_unknown_section(ini: Path) -> None:
    assert refusal(ini, "[nothing]").startswith(f"{ini}:1: [nothing]: unknown")


def test_all_problems_are_reported_at_once(ini: Path, system_file: Path) -> None:
    write(system_file, "[log]\nlevel = LOUD")
    text = "[factory]\nport = x\nprot = 1\nnonsense\n[worker:a]\ncount = 1\n[x]\n"
    message = refusal(ini, text, {"OPENCLUSTER_MANAGER_RETRIES": "few"})
    assert message.startswith("7 problems in the configuration:\n")
    for place in (
        f"{system_file}:2: [log] level: ",
        f"{ini}:2: [factory] port: ",
        f"{ini}:3: [factory] prot: ",
        f"{ini}:4: [factory]: got 'nonsense', expected key = value",
        f"{ini}:5: [worker:a] target: ",
        f"{ini}:7: [x]: ",
        "environment variable OPENCLUSTER_MANAGER_RETRIES: [manager] retries: ",
    ):
        assert f"\n  {place}" in message


def test_number_of_reported_problems_is_bounded(ini: Path) -> None:
    message = refusal(ini, "[log]\n" + "junk\n" * 1000)
    assert message.startswith("1000 problems")
    assert message.endswith("and 980 more")
    assert len(message.splitlines()) == 22


def test_an_overruled_mistake_is_no_mistake(ini: Path, system_file: Path) -> None:
    write(system_file, "[log]\nlevel = LOUD")
    assert read(ini, "[log]\nlevel = ERROR").log.level == "ERROR"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("OPENCLUSTER_CLUSTER_LEASES", "[cluster] leases: unknown key"),
        ("OPENCLUSTER_CLUSTR_LEASE_S", "did you mean OPENCLUSTER_CLUSTER_LEASE_S?"),
    ],
)
def test_misspelt_variable_is_reported(name: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(environ={name: "5"})
    assert str(caught.value).startswith(f"environment variable {name}: ")
    assert expected in str(caught.value)


def test_wrong_override_is_reported() -> None:
    with pytest.raises(ConfigError) as caught:
        load(environ={}, overrides={("factory", "port"): "x", ("a", "b"): ""})
    assert "command line: [factory] port: got 'x'" in str(caught.value)
    assert "command line: [a] b: unknown section" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "key", "other", "other_value"),
    [
        ("[cluster]\nlease_s = 1.5", "lease_s", "heartbeat_interval_s", "1.0"),
        ("[network]\nzmtp_timeout_s = 1", "zmtp_timeout_s", "zmtp_heartbeat_s", "2.0"),
        (
            "[workshop]\nrestart_delay_max_s = 0",
            "restart_delay_max_s",
            "restart_delay_s",
            "0.5",
        ),
    ],
)
def test_settings_that_contradict_each_other(
    ini: Path, text: str, key: str, other: str, other_value: str
) -> None:
    message = refusal(ini, text)
    assert message.startswith(f"{ini}:2: {text.splitlines()[0]} {key}: got ")
    assert f"{other} = {other_value} (default)" in message


# --- files that are none ----------------------------------------------------------


def test_named_file_must_exist(tmp_path: Path) -> None:
    absent = tmp_path / "absent.ini"
    with pytest.raises(ConfigError, match="No such file.*named by --config") as caught:
        load([absent], environ={})
    assert str(caught.value).startswith(f"{absent}: cannot be read")
    with pytest.raises(ConfigError, match="variable OPENCLUSTER_CONFIG") as caught:
        load(environ={"OPENCLUSTER_CONFIG": str(absent)})
    assert str(caught.value).startswith(f"{absent}: cannot be read")


def test_unreadable_file_is_named(tmp_path: Path, system_file: Path) -> None:
    system_file.mkdir(parents=True)
    with pytest.raises(ConfigError) as caught:
        load([tmp_path], environ={})
    assert f"{system_file}: cannot be read: Is a directory" in str(caught.value)
    assert f"{tmp_path}: cannot be read: Is a directory" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x7fELF\x02\x01\xff\xfe" + bytes(range(256)), "is not UTF-8"),
        (b"[log]\n\0level = INFO", "NUL bytes"),
        (b"#" * (1024**2 + 1), "larger than 1048576 bytes"),
    ],
)
def test_junk_is_refused(ini: Path, data: bytes, expected: str) -> None:
    ini.write_bytes(data)
    with pytest.raises(ConfigError, match=expected) as caught:
        load([ini], environ={})
    assert str(caught.value).startswith(f"{ini}: ")


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_byte_order_mark_and_line_ends_do_not_matter(ini: Path, line_end: str) -> None:
    lines = ["\ufeff[log]", "level = ERROR", "", "; done"]
    ini.write_bytes(line_end.join(lines).encode())
    config = load([ini], environ={})
    assert config.log.level == "ERROR"
    assert config.origin("log", "level") == f"{ini}:2"


def test_empty_file_changes_nothing(ini: Path) -> None:
    assert read(ini, "") == Config()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("level = INFO\nx = 1\n", ":1: a key before the first [section] header"),
        ("[log]\nlevel = A\nlevel = B", ":3: [log] level: set before, at "),
        ("[log]\n[factory]\n[log]", ":3: [log]: this section was opened before, at "),
        ("[log\nlevel = INFO", ":1: got '[log', expected [section]"),
        ("[]\nlevel = INFO", ":1: got '[]', expected [section]"),
        ("[log]\n= INFO", ":2: [log]: got '= INFO', expected key = value"),
    ],
)
def test_broken_syntax_is_located(ini: Path, text: str, expected: str) -> None:
    assert f"{ini}{expected}" in refusal(ini, text)


def test_headless_file_is_reported_once(ini: Path) -> None:
    assert refusal(ini, "a = 1\nb = 2\nc = 3").count("header") == 1


@given(st.text())
def test_any_text_file_is_read_or_refused(text: str) -> None:
    problems: list[sources.Problem] = []
    path = Path("any.ini")
    found = sources.parse(path, text, problems)
    for section in found.values():
        for value in section.values.values():
            assert value.origin.startswith("any.ini:")
    assert all(str(problem).startswith("any.ini:") for problem in problems)
