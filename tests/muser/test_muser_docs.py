"""What docs/muser.md shows can be done."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from muser_pipeline.cli import muser_command

TEXT = (Path(__file__).parents[2] / "docs" / "muser.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, flags=re.DOTALL)


def test_the_examples_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (sky,) = blocks("toml")
    Path("sky.toml").write_text(sky)
    (console,) = blocks("console")
    command, path, _ = console.replace("\\\n", "").splitlines()
    arguments = command.replace("10s", "50ms").split()
    assert arguments[:3] == ["$", "opencluster", "muser"]
    done = CliRunner().invoke(muser_command, arguments[3:])
    assert done.exit_code == 0, done.output
    assert done.stdout.strip() == path
    read, search = blocks("python")
    exec(read, {"path": path})
    assert capsys.readouterr().out == "1 16 new\n(16, 780, 16) 412500000.0\n"
    exec(search, {"directory": "archive"})
    # two frames of the band in each of two loops
    assert capsys.readouterr().out.startswith("4 304 (Gap(")
    here, *_ = blocks("sh")
    arguments = here.replace("\\\n", "").replace("process", "local").split()
    assert arguments[:2] == ["opencluster", "muser"]
    done = CliRunner().invoke(muser_command, arguments[2:])
    assert done.exit_code == 0, done.output
    assert "1 files of 16 frames of MUSER-I" in done.stderr
