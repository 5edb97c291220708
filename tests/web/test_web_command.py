"""``opencluster web`` as people start it, and what is installed with it."""

from __future__ import annotations

import configparser
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner
from gallery_tools import TIMEOUT_S

from muser_pipeline.realtime.index import ImageRecord
from opencluster.cli import main
from opencluster.errors import ConfigError, SecurityError
from opencluster_web.serving import parse_bind

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.processes
def test_it_serves_until_it_is_interrupted(
    archive: tuple[Path, list[ImageRecord]], tmp_path: Path
) -> None:
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.settimeout(TIMEOUT_S)
    told.bind(str(tmp_path / "notify"))
    argv = ["web", "--images", str(archive[0]), "--bind", "127.0.0.1:0"]
    argv += ["--dir", str(tmp_path / "cluster")]
    process = subprocess.Popen(
        [sys.executable, "-m", "opencluster", *argv],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify")},
    )
    with process, told:
        assert process.stderr is not None
        line = process.stderr.readline()
        url = re.search(r"http://127\.0\.0\.1:\d+/", line)
        assert url, line + process.stderr.read()
        assert told.recv(100) == b"READY=1"
        with urllib.request.urlopen(url[0], timeout=TIMEOUT_S) as answer:
            assert str(tmp_path / "cluster") in answer.read().decode()
        with urllib.request.urlopen(f"{url[0]}muser/", timeout=TIMEOUT_S) as answer:
            assert answer.status == 200
            assert "Latest images" in answer.read().decode()
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 0
        assert process.stderr.read() == ""
        assert told.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("bind", ["0.0.0.0:80", "192.0.2.1:80", "[::]:80", "host:1"])
def test_others_are_not_let_in_before_there_are_accounts(
    bind: str, tmp_path: Path
) -> None:
    done = CliRunner().invoke(
        main, ["web", "--images", str(tmp_path), "--bind", bind], standalone_mode=False
    )
    assert done.exit_code == 1
    assert f"refusing to listen at {bind}" in done.output
    assert "accounts" in done.output


@pytest.mark.parametrize("bind", ["8080", "127.0.0.1", ":8080", "127.0.0.1:99999", ""])
def test_an_address_that_is_none_is_told(bind: str) -> None:
    with pytest.raises(ConfigError, match=r"write 127\.0\.0\.1:8080"):
        parse_bind(bind)


def test_loopback_has_several_names() -> None:
    assert parse_bind("localhost:80") == ("localhost", 80)
    assert parse_bind("[::1]:0") == ("[::1]", 0)
    with pytest.raises(SecurityError, match="ssh -L 80:"):
        parse_bind("::1:80")


def test_an_address_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        argv = ["web", "--images", str(tmp_path), "--bind", bind]
        done = CliRunner().invoke(main, argv)
    assert done.exit_code == 1
    assert f"cannot listen at {bind}" in done.output


def test_what_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "opencluster_web.application")
    monkeypatch.setitem(sys.modules, "flask_bootstrap", None)
    done = CliRunner().invoke(main, ["web", "--images", str(tmp_path)])
    assert done.exit_code == 1
    assert "needs the Python package flask_bootstrap" in done.output
    assert "pip install 'opencluster[web]'" in done.output


def test_help_has_an_example() -> None:
    shown = CliRunner().invoke(main, ["web", "--help"]).output
    assert "opencluster web --images images --bind" in shown
    assert "  web " in CliRunner().invoke(main, ["--help"]).output


def test_every_template_and_asset_is_installed() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    patterns = setup["options.package_data"]["opencluster_web"].split()
    installed = {path for pattern in patterns for path in (ROOT / "web").glob(pattern)}
    there = {
        path
        for folder in ("static", "templates")
        for path in (ROOT / "web" / folder).rglob("*")
        if path.is_file()
    }
    assert there <= installed
    assert not [path for path in there if ".min." in path.name]
