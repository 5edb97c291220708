"""What `opencluster deploy install` writes, checked by the tools of systemd."""

from __future__ import annotations

import shlex
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from opencluster.cli import main
from opencluster.config import load
from opencluster.errors import ConfigError, SecurityError
from opencluster.net import keyfiles
from opencluster_deploy.installation import CERTIFICATES, plan

FACTORIES = ["127.0.0.1:9100", "127.0.0.2:9100", "127.0.0.3:9100"]
PROGRAM = "/bin/sh"
"""Any program that is where daemons see it."""
MOST_EXPOSED = 30
"""Tenths of the score of systemd-analyze; below it says OK."""


def install(root: Path, *options: str, roles: Sequence[str] = ("workshop",)) -> Result:
    named = [word for role in roles for word in ("--role", role)]
    command = ["deploy", "install", "--root", str(root), "--program", PROGRAM, *named]
    return CliRunner().invoke(
        main, [*command, "--factories", ",".join(FACTORIES), *options]
    )


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """Give the units of all daemons, for a program that is there."""
    plan(list(CERTIFICATES), FACTORIES, root=tmp_path, program=PROGRAM).write_files()
    found = sorted((tmp_path / "etc/systemd/system").iterdir())
    assert [path.name for path in found] == sorted(
        f"opencluster-{role}.service" for role in CERTIFICATES
    )
    return found


def test_systemd_understands_every_word_of_the_units(units: list[Path]) -> None:
    command = ["systemd-analyze", "verify", "--man=no", *map(str, units)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_systemd_finds_the_units_little_exposed(units: list[Path]) -> None:
    limit = f"--threshold={MOST_EXPOSED}"
    command = ["systemd-analyze", "security", "--offline=true", limit]
    for unit in units:
        done = subprocess.run(
            [*command, str(unit)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout


def test_units_report_and_are_watched_over(units: list[Path]) -> None:
    for unit in units:
        lines = unit.read_text().splitlines()
        for line in ("Type=notify", "WatchdogSec=30", "Restart=always"):
            assert line in lines
        (start,) = [line for line in lines if line.startswith("ExecStart=")]
        assert start.startswith(f"ExecStart={PROGRAM} ")
    shop = next(unit for unit in units if "workshop" in unit.name).read_text()
    assert "Delegate=yes" in shop.splitlines()


def test_the_configuration_that_is_written_is_read(
    tmp_path: Path,
) -> None:
    done = install(tmp_path, "--keys", "new", roles=["factory", "workshop"])
    assert done.exit_code == 0, done.output
    config = load([tmp_path / "etc/opencluster/config.ini"])
    assert list(config.cluster.factories) == [f"tcp://{name}" for name in FACTORIES]
    assert config.cluster.keys == "/etc/opencluster/keys"
    assert config.network.bind == "127.0.0.1"
    keys = tmp_path / "etc/opencluster/keys"
    assert {c.role for c in keyfiles.certificates(keys)} > {"factory", "workshop"}
    assert "missing" not in done.output
    assert "systemctl enable --now opencluster-factory.service" in done.output


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    done = install(tmp_path, "--keys", "new", "--dry-run", roles=["factory"])
    assert done.exit_code == 0
    assert f"would write   {tmp_path}/etc/opencluster/config.ini" in done.output
    assert f"would make    {tmp_path}/etc/opencluster/keys" in done.output
    assert list(tmp_path.iterdir()) == []


def test_what_people_have_changed_is_left_and_units_are_replaced(
    tmp_path: Path,
) -> None:
    assert install(tmp_path).exit_code == 0
    config = tmp_path / "etc/opencluster/config.ini"
    unit = tmp_path / "etc/systemd/system/opencluster-workshop.service"
    config.write_text("[cluster]\nfactories = elsewhere:9100\n")
    unit.write_text("[Service]\n")
    done = install(tmp_path)
    assert f"leave   {config}" in done.output
    assert f"replace {unit}" in done.output
    assert f"keep    {tmp_path}/etc/sysusers.d/opencluster.conf" in done.output
    assert "elsewhere" in config.read_text()
    assert "ExecStart" in unit.read_text()


def test_keys_are_copied_and_those_that_are_missing_named(tmp_path: Path) -> None:
    made, root = tmp_path / "made", tmp_path / "root"
    keyfiles.make_keys(made)
    (made / "worker.key").unlink()
    done = install(root, "--keys", str(made))
    assert done.exit_code == 0, done.output
    copied = root / "etc/opencluster/keys/workshop.key"
    assert copied.read_bytes() == (made / "workshop.key").read_bytes()
    assert stat.S_IMODE(copied.stat().st_mode) == 0o600
    assert stat.S_IMODE(copied.parent.stat().st_mode) == 0o700
    (line,) = [line for line in done.output.splitlines() if "missing" in line]
    assert "keys/worker.key" in line


def test_keys_are_not_made_twice(tmp_path: Path) -> None:
    assert install(tmp_path, "--keys", "new").exit_code == 0
    done = install(tmp_path, "--keys", "new")
    assert done.exit_code == 1
    assert "already" in done.output


def test_a_program_that_the_daemons_would_not_see_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="/opt/opencluster"):
        plan(["factory"], FACTORIES, root=tmp_path, program="/home/me/bin/python")


def test_a_folder_of_keys_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SecurityError, match="no folder of keys at /nowhere"):
        plan(["factory"], FACTORIES, root=tmp_path, program=PROGRAM, keys="/nowhere")


@pytest.mark.parametrize("text", ["node1", "node1:", ":9100", "node1:nine"])
def test_factories_that_make_no_sense_are_refused(tmp_path: Path, text: str) -> None:
    command = ["deploy", "install", "--role", "web", "--root", str(tmp_path)]
    done = CliRunner().invoke(main, [*command, "--factories", text])
    assert done.exit_code == 2
    assert "is not HOST:PORT" in done.output


def test_what_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("a file")
    done = install(tmp_path)
    assert done.exit_code == 1
    assert f"cannot write {tmp_path}/etc" in done.output


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("OPENCLUSTER_INGEST_OPTIONS", ["muser", "serve"]),
        ("OPENCLUSTER_WEB_OPTIONS", ["web"]),
    ],
)
def test_the_options_that_are_installed_are_understood(
    tmp_path: Path, variable: str, words: list[str]
) -> None:
    assert install(tmp_path).exit_code == 0
    text = (tmp_path / "etc/opencluster/environment").read_text()
    (options,) = [
        line.partition("=")[2] for line in text.splitlines() if variable in line
    ]
    command: click.Command = main
    for word in words:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), word)
        assert found is not None
        command = found
    # reads them, and runs nothing
    command.make_context(words[-1], shlex.split(options))
