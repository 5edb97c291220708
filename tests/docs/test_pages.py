"""Every code block of README.md and docs/ is run, or checked as far as it can be."""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import textwrap
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import command_lines
import pytest
import yaml
from pages import PAGES, ROOT, Block, blocks_of, has_fences_only_in_pairs

from opencluster.config import load
from opencluster.engines.choice import close_engines
from opencluster.launchers import embedded
from opencluster.launchers.cluster_file import load_cluster_file
from opencluster.place import Place

TIMEOUT_S = 60.0
AT_MOST_NOT_RUN = 44
"""Whoever adds a block that cannot be run has to change this, and think twice."""
WITH_BLOCKS = [page for page in PAGES if blocks_of(page)]


class Reader:
    """Does what a page says, from its first block to its last.

    Parameters
    ----------
    folder : Path
        Where the reader is; the repository's files are at hand there.
    """

    def __init__(self, folder: Path, computers: Computers | None) -> None:
        self.folder = folder
        self.names: dict[str, Any] = {"__name__": "__page__"}
        self.printed = ""
        self._computers = computers

    def do(self, block: Block) -> None:
        """Run or check one block."""
        if "run by" in block.marks:
            test = ROOT / block.marks["run by"].strip()
            assert block.page.name in test.read_text(encoding="utf-8")
        elif "not run" in block.marks:
            assert len(block.marks["not run"]) > 8, "why not?"
            self.look_at(block)
        elif "on" in block.marks:
            assert self._computers is not None
            where = block.marks["on"].strip()
            names = ["node1", "node2", "node3"] if where == "each" else [where]
            for name in names:
                self.printed = self._computers.run(name, block.text)
        else:
            getattr(self, f"do_{block.language or 'nothing'}", self.do_nothing)(block)

    def look_at(self, block: Block) -> None:
        """Check a block that is not run."""
        if block.language in {"sh", "console"}:
            script = block.text if block.language == "sh" else _commands(block)
            with redirect_stdout(StringIO()):  # what --help says
                command_lines.check(script)
        elif block.language == "python":
            tree = ast.parse(block.text)
            tree.body = [
                n for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom)
            ]
            exec(compile(tree, str(block), "exec"), {})

    # --- by language ---------------------------------------------------------

    def do_nothing(self, block: Block) -> None:
        """Say that there is no way to check it."""
        pytest.fail(
            f"{block}: {block.language or 'no language'}: say how it is checked, "
            "or why it cannot be, by a comment before it (see tests/docs/pages.py)"
        )

    def do_python(self, block: Block) -> None:
        """Run it with the names of the blocks before it, or keep it as its file."""
        code = compile(block.text, str(block), "exec")
        before, after = (
            compile(block.marks.get(kind, ""), f"{kind} {block}", "exec")
            for kind in ("before", "after")
        )
        if block.file_name:
            for folder in [self.folder, *self.folder.parent.glob("homes/node1")]:
                (folder / block.file_name).write_text(block.text)
        out = StringIO()
        with redirect_stdout(out):
            exec(before, self.names)
            exec(code, self.names)
            exec(after, self.names)
        self.printed = out.getvalue()

    def do_sh(self, block: Block) -> None:
        """Run it in a shell."""
        self.printed = self._shell(block, block.marks.get("before", "") + block.text)

    def do_console(self, block: Block) -> None:
        """Run the lines behind the dollars, and compare what they print."""
        commands = _commands(block)
        out = self._shell(block, block.marks.get("before", "") + commands)
        shown = [
            line
            for line in block.text.replace("\\\n", "").splitlines()
            if not line.startswith("$ ")
        ]
        _compare(block, "\n".join(shown), out)

    def do_text(self, block: Block) -> None:
        """Compare it with what the block before it printed."""
        _compare(block, block.text, self.printed)

    def do_ini(self, block: Block) -> None:
        """Have the settings read."""
        file = self.folder / (block.file_name or "page.ini")
        file.write_text(block.marks.get("before", "") + block.text)
        load([file])

    def do_toml(self, block: Block) -> None:
        tomllib.loads(block.text)

    def do_json(self, block: Block) -> None:
        json.loads(block.text)

    def do_yaml(self, block: Block) -> None:
        """Parse it; what is a file by itself describes a cluster."""
        yaml.safe_load(block.text)
        if block.file_name:
            for program in re.findall(r"(?<![\w./-])[\w-]+\.py\b", block.text):
                (self.folder / program).touch()
            (self.folder / block.file_name).write_text(block.text)
            load_cluster_file(self.folder / block.file_name)

    def _shell(self, block: Block, script: str) -> str:
        # Python is run on this process alone, commands on what they say
        engine = "OPENCLUSTER_ENGINE"
        done = subprocess.run(
            ["bash", "-euc", script],
            cwd=self.folder,
            env={name: text for name, text in os.environ.items() if name != engine},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
        return done.stdout


class Computers:
    """Three computers in networks of their own; see three_computers.sh.

    Parameters
    ----------
    folder : Path
        Has the homes and the commands.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        script = str(Path(__file__).with_name("three_computers.sh"))
        own = ["--net", "--mount", "--pid", "--fork", "--mount-proc"]
        self._process = subprocess.Popen(
            ["unshare", *own, "--kill-child", "bash", script, str(folder)],
            env=os.environ | {"TMPDIR": str(folder)},  # sockets vanish with it
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, computer: str, script: str) -> str:
        """Run commands on one of them, and return what they print."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._number += 1
        file = self._folder / f"block{self._number}"
        file.write_text(script)
        if self._number == 1 and self._process.stdout.readline() != "ready\n":
            pytest.skip("three computers with networks cannot be made here")
        self._process.stdin.write(f"{computer} {file}\n")
        self._process.stdin.flush()
        status = self._process.stdout.readline()
        out = file.with_suffix(".out").read_text()
        errors = file.with_suffix(".err").read_text()
        assert status == "0\n", f"on {computer}:\n{script}\n{out}{errors}"
        return out

    def close(self) -> None:
        """End everything that runs on them."""
        self._process.kill()
        self._process.communicate()


def _commands(block: Block) -> str:
    joined = block.text.replace("\\\n", "")
    return "".join(line[2:] + "\n" for line in joined.splitlines() if line[:2] == "$ ")


def _compare(block: Block, shown: str, printed: str) -> None:
    """Compare lines, but for numbers, blanks, and what three dots stand for."""
    for line in filter(str.strip, shown.splitlines()):
        pattern = ""
        for part in re.split(r"(\.\.\.|\d[\d.,:]*|\s+)", line.strip()):
            pattern += (
                ".*"
                if part == "..."
                else r"[\d.,:]+"
                if part[:1].isdigit()
                else r"\s+"
                if part.isspace()
                else re.escape(part)
            )
        assert re.search(rf"^\s*{pattern}\s*$", printed, re.MULTILINE), (
            f"{block}: {line!r} is not in\n{printed}"
        )


@pytest.fixture
def reader(request: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    """Return who reads a page, with a folder and a cluster of their own."""
    for name in [n for n in os.environ if n.startswith("OPENCLUSTER_")]:
        monkeypatch.delenv(name)
    with ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="oc-")))
        folder, programs, homes = base / "here", base / "bin", base / "homes"
        for name in ("bin", "node1"):
            (homes / name).mkdir(parents=True)
        for made in (folder, programs):
            made.mkdir()
        for name in ("README.md", "LICENSE", "examples", "deploy", "setup.cfg"):
            (folder / name).symlink_to(ROOT / name)
        for name, what in {"opencluster": "-m opencluster", "python": ""}.items():
            script = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {what} "$@"\n'
            (programs / name).write_text(script)
            (programs / name).chmod(0o755)
        monkeypatch.chdir(folder)
        monkeypatch.setenv("PATH", f"{homes}/bin:{programs}:{os.environ['PATH']}")
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        monkeypatch.setenv("COLUMNS", "120")
        monkeypatch.setenv("HOME", str(base))
        for name in ("CONFIG", "STATE", "RUNTIME"):
            monkeypatch.delenv(f"XDG_{name}_HOME", raising=False)
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        monkeypatch.syspath_prepend(str(folder))
        page: Path = request.getfixturevalue("page")
        computers = None
        if any("on" in block.marks for block in blocks_of(page)):
            computers = Computers(homes)
            stack.callback(computers.close)
        monkeypatch.setenv("OPENCLUSTER_ENGINE", "local")
        stack.callback(close_engines)
        stack.callback(embedded.stop, Place(base / ".local/state/opencluster/default"))
        yield Reader(folder, computers)


@pytest.mark.processes
@pytest.mark.parametrize("page", WITH_BLOCKS, ids=lambda page: page.stem)
def test_every_block_of_a_page(page: Path, reader: Reader) -> None:
    assert has_fences_only_in_pairs(page)
    for block in blocks_of(page):
        try:
            reader.do(block)
        except Exception as error:
            error.add_note(f"in {block}:\n{textwrap.indent(block.text, '    ')}")
            raise


def test_few_blocks_are_not_run() -> None:
    found = [b for page in WITH_BLOCKS for b in blocks_of(page) if "not run" in b.marks]
    assert len(found) <= AT_MOST_NOT_RUN, "\n".join(
        f"{block}: {block.marks['not run']}" for block in found
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_within_the_text(page: Path) -> None:
    text = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.M | re.S)
    for words in re.findall(r"`((?:opencluster|python -m bench|make) [^`]*)`", text):
        line = " ".join(words.split())
        if "..." not in line and "*" not in line:
            with redirect_stdout(StringIO()):
                command_lines.check(f"{line}\n", is_whole=False)
