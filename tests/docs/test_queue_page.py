"""What docs/queue.md shows works, and it explains all that there is."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import click
import pytest

from opencluster.cli.submit import submit_command
from opencluster.core.tasks import State
from opencluster.launchers import embedded
from opencluster.place import Place
from opencluster.taskqueue import Request, Task

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "queue.md").read_text()
TIMEOUT_S = 100.0


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="oc-") as directory:
        try:
            yield Path(directory)
        finally:
            embedded.stop(Place(Path(directory) / "c"))


@pytest.mark.processes
def test_the_example_does_what_the_page_says(folder: Path) -> None:
    (script,) = (block for block in blocks("python") if block.startswith("# night.py"))
    (commands,) = blocks("sh")
    (folder / "night.py").write_text(script)
    (folder / "opencluster").write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m opencluster "$@"\n'
    )
    (folder / "opencluster").chmod(0o755)
    theirs = {n: v for n, v in os.environ.items() if not n.startswith("OPENCLUSTER_")}
    ours = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "OPENCLUSTER_DIR": str(folder / "c"),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "100",
    }
    done = subprocess.run(
        ["bash", "-euc", commands],
        cwd=folder,
        env=theirs | ours,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("1\n2\n2 queued\n")
    (result,) = re.findall(r"`(WorkPiece\(night=.*?\))`", PAGE)
    assert re.search(rf"result +{re.escape(result)}\n", done.stdout)
    begun = re.findall(r"task (\d) \(attempt 1\) begins", done.stderr)
    assert begun == ["2", "1"]


def test_every_state_field_and_option_is_explained() -> None:
    for state in State:
        assert f"\n| `{state}` |" in PAGE
    for field in fields(Task):
        assert f"`{field.name}`" in PAGE, field.name
    for field in fields(Request):
        assert f"`{field.name}`" in PAGE, field.name
    shown = {"--wait", "--json", "--unchecked", "--dir"}
    for parameter in submit_command.params:
        if isinstance(parameter, click.Option) and parameter.opts[0] not in shown:
            assert f"`{parameter.opts[0]}" in PAGE, parameter.opts
