"""Who may import whom, checked on the source without importing it.

The arrows are those of the design: each room knows the rooms below it and none above
or beside it. A new room gets its line in `MAY_IMPORT`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {
    "opencluster": "opencluster",
    "muser_pipeline": "muser_pipeline",
    "web": "opencluster_web",
    "deploy": "opencluster_deploy",
    "examples": "examples",
}
"""Folders with source, and the names under which they are imported."""

GROUND = {"errors", "references", "workpiece"}
RULES = GROUND | {"core", "wire", "config"}
MEANS = RULES | {"net", "node", "store", "engines.base"}
SHARED = {
    *("place", "registration", "serving", "keeping", "inputs", "proxy", "tracing"),
    "engines.choice",
}
"""What several of the base classes are built on."""

ALCOVES = {"engines.base", "engines.choice"}
"""Modules that are known where the rest of their room is not: what an engine is, and
how one is found by its name."""

BASE_CLASSES = {"factory", "workshop", "worker", "service", "manager"}
SHELL = MEANS | SHARED
UPPER = SHELL | BASE_CLASSES | {"observe"}
PLACES = {"engines", "launchers"}
DAEMONS = {"taskqueue", "dispatcher", "ingest", "elastic"}
PUBLIC = {"__init__", "errors", "references", "workpiece", "testing", "ingest"}

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "references": set(),
    "workpiece": {"errors", "references"},
    "config": {"errors"},
    "core": {"errors"},
    "wire": GROUND,
    "net": RULES,
    "node": RULES,
    "store": RULES,
    "engines.base": RULES,
    "observe": MEANS | {"place"},
    "place": {"errors", "config"},
    "targets": {"errors"},
    "start": {"errors", "config", "core", "targets"},
    "priorities": set(),
    "progress": set(),
    "stream": GROUND,
    "arrays": {"config", "net"},
    "mapping": GROUND | {"engines.base", "progress", "stream"},
    "engines.choice": {"errors", "config", "place", "engines.base"},
    "proxy": {"engines.base"},
    "registration": MEANS | {"place"},
    "keeping": MEANS,
    "tracing": {"errors", "config", "engines.base"},
    "inputs": MEANS | {"keeping"},
    "serving": MEANS
    | {"place", "registration", "keeping", "inputs", "tracing", "engines.choice"},
    **dict.fromkeys(BASE_CLASSES, SHELL),
    "collective": GROUND | {"core", "engines.base"},
    "futures": {"errors", "engines.base"},
    "handle": {"workpiece", "engines.base", "priorities"},
    "manager": SHELL
    | {"mapping", "stream", "collective", "futures", "priorities", "handle"},
    "pool": GROUND | {"manager"},
    "putting_back": MEANS | {"engines.choice", "observe", "place"},
    "launchers": MEANS | {"place", "__init__"},
    "engines": UPPER | {"targets", "launchers"},
    **{name: UPPER | {"engines"} for name in DAEMONS},
    "ingest": UPPER | {"engines", "start"},
    "taskqueue": MEANS | {"place", "targets", "priorities"},
    "taskrun": MEANS | {"engines.choice", "manager", "start", "targets"},
    "dispatcher": MEANS | {"place", "taskqueue", "taskrun"},
    "elastic": MEANS | {"place", "observe", "launchers"},
    "testing": UPPER | PLACES | DAEMONS,
    "__init__": GROUND
    | BASE_CLASSES
    | {"arrays", "wire", "mapping", "pool", "taskqueue", "dispatcher", "ingest"},
    "demo": {"__init__"},
    "cli": UPPER
    | PLACES
    | DAEMONS
    | {"__init__", "testing", "demo", "targets", "start", "priorities", "putting_back"},
    "__main__": {"cli"},
}
"""Rooms of opencluster, and the rooms that each may import besides itself."""

OUTSIDE: dict[str, set[str]] = {
    "muser_pipeline": PUBLIC,
    "muser_pipeline.imaging": set(),
    "opencluster_deploy": {"errors", "net"},
    "opencluster_web": UPPER | PLACES | DAEMONS | {"__init__", "putting_back", "start"},
    "examples": PUBLIC | BASE_CLASSES | PLACES | DAEMONS,
}
"""Folders beside opencluster, and the rooms of opencluster that each may import."""

CORE_MODULES = {
    "__future__",
    "abc",
    "bisect",
    "collections",
    "dataclasses",
    "enum",
    "functools",
    "heapq",
    "itertools",
    "math",
    "random",
    "re",
    "typing",
}
GPU = {"cupy", "numba", "pycuda", "pynvml", "torch"}
HEAVY = GPU | {
    "astropy",
    "click",
    "dask",
    "distributed",
    "flask",
    "matplotlib",
    "numpy",
    "psutil",
    "rich",
}
"""Not imported at the head of a module: idle workers must stay small."""

LATE = {
    "opencluster.arrays": {"numpy"},
    "opencluster.wire.arrays": {"numpy"},
    "opencluster.wire.astronomy": {"astropy", "numpy"},
    "opencluster.wire.exact": set(),
}
"""Modules that are imported when such a value is met, and what they may have loaded."""

READS_OR_WRITES = {"open", "print", "input"}


@dataclass(frozen=True)
class Import:
    """One imported module, absolute, with the name taken from it if there is one."""

    module: str
    name: str
    line: int
    is_at_head: bool

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


def name_of(path: Path) -> str:
    """Return the name under which a source file is imported."""
    folder, *parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join([FOLDERS[folder], *parts])


def package_of(name: str) -> list[str]:
    """Return what a relative import inside the module of this name starts from."""
    return name.split(".")[:-1]


def imports_of(tree: ast.Module, name: str) -> Iterator[Import]:
    """Yield all imports of a module, those inside functions too."""
    yield from _imports(tree, name, is_at_head=True)


def _imports(node: ast.AST, name: str, is_at_head: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, "", child.lineno, is_at_head)
        elif isinstance(child, ast.ImportFrom):
            module = child.module or ""
            if child.level:
                package = package_of(name)
                base = package[: len(package) - child.level + 1]
                module = ".".join([*base, *filter(None, [module])])
            for alias in child.names:
                yield Import(module, alias.name, child.lineno, is_at_head)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _imports(child, name, is_at_head=False)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            for statement in child.body:
                holder = ast.Module([statement], [])
                yield from _imports(holder, name, is_at_head=False)
            for statement in child.orelse:
                yield from _imports(ast.Module([statement], []), name, is_at_head)
        else:
            yield from _imports(child, name, is_at_head)


def room_of(parts: list[str]) -> str:
    """Return the room of a module of opencluster, given the parts of its name."""
    if len(parts) == 1:
        return "__init__"
    alcove = ".".join(parts[1:3])
    return alcove if alcove in ALCOVES else parts[1]


def room_imported(found: Import) -> str:
    """Return the room that an import from opencluster reaches."""
    parts = found.module.split(".")
    named = [*parts, found.name] if found.name else parts
    is_room = len(parts) == 1 and found.name in MAY_IMPORT
    is_alcove = ".".join(named[1:3]) in ALCOVES
    return room_of(named if is_room or is_alcove else parts)


def violations(name: str, source: str) -> list[str]:
    """Return one line for each rule that the source of a module breaks."""
    tree = ast.parse(source)
    imports = list(imports_of(tree, name))
    found = [*_arrows(name, imports), *_heavy(name, imports)]
    if name.startswith("opencluster.core"):
        found += _impurities(tree, imports)
    return found


def _arrows(name: str, imports: list[Import]) -> Iterator[str]:
    parts = name.split(".")
    allowed: set[str] | None
    if parts[0] == "opencluster":
        room = room_of(parts)
        if room not in MAY_IMPORT:
            yield f"{name} is in a room without a rule: add it to MAY_IMPORT"
        allowed = MAY_IMPORT.get(room, set()) | {room}
        forbidden_tops = set(FOLDERS.values()) - {"opencluster"} | {"tests", "bench"}
    else:
        is_imaging = parts[:2] == ["muser_pipeline", "imaging"]
        allowed = OUTSIDE["muser_pipeline.imaging" if is_imaging else parts[0]]
        forbidden_tops = {"tests", "bench"}
        if is_imaging:
            yield from _leaving_imaging(imports)
    for found in imports:
        if found.top in forbidden_tops:
            yield f"line {found.line}: imports {found.module}"
        elif found.top == "opencluster" and room_imported(found) not in allowed:
            yield f"line {found.line}: imports {found.module} {found.name}".rstrip()


def _leaving_imaging(imports: list[Import]) -> Iterator[str]:
    for found in imports:
        full = f"{found.module}.{found.name}"
        if found.top == "muser_pipeline" and ".imaging" not in full:
            yield f"line {found.line}: imaging must not know {found.module}"


def _heavy(name: str, imports: list[Import]) -> Iterator[str]:
    parts = name.split(".")
    heavy = HEAVY if parts[0] == "opencluster" else GPU
    if parts[:2] == ["opencluster", "cli"]:
        heavy = heavy - {"click", "rich"}
    heavy = heavy - LATE.get(name, set())
    for found in imports:
        is_late = {found.module, f"{found.module}.{found.name}"} & LATE.keys()
        # the public names tell a type checker alone where they are
        if is_late and name != "opencluster.__init__":
            yield f"line {found.line}: {found.module} is loaded by name, and late"
        if found.is_at_head and found.top in heavy:
            yield f"line {found.line}: imports {found.top} at the head of the module"


def _impurities(tree: ast.Module, imports: list[Import]) -> Iterator[str]:
    for found in imports:
        if found.top != "opencluster" and found.top not in CORE_MODULES:
            yield f"line {found.line}: core must not import {found.module}"
        if found.module == "random" and found.name not in ("", "Random"):
            yield f"line {found.line}: core takes randomness as an argument"
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id="random"), attr=attr):
                if attr != "Random":
                    yield f"line {node.lineno}: core takes randomness as an argument"
            case ast.Call(func=ast.Name(id="Random")):
                yield f"line {node.lineno}: core takes randomness as an argument"
            case ast.Call(func=ast.Attribute(attr="Random")):
                yield f"line {node.lineno}: core takes randomness as an argument"
            case ast.Call(func=ast.Name(id=called)) if called in READS_OR_WRITES:
                yield f"line {node.lineno}: core must not call {called}()"


def source_files() -> list[Path]:
    """Return every source file that has rules, in a stable order."""
    return sorted(path for folder in FOLDERS for path in ROOT.glob(f"{folder}/**/*.py"))


@pytest.mark.parametrize(
    "path", source_files(), ids=lambda path: str(path.relative_to(ROOT))
)
def test_source_keeps_the_import_arrows(path: Path) -> None:
    assert violations(name_of(path), path.read_text(encoding="utf-8")) == []


def test_there_is_source_to_check() -> None:
    names = {name_of(path) for path in source_files()}
    assert {"opencluster.errors", "opencluster.config.settings"} <= names
    assert any(name.startswith("opencluster.core.") for name in names)


BAD = [
    ("opencluster.errors", "import opencluster.workpiece", "opencluster.workpiece"),
    ("opencluster.core.a", "import opencluster.net.b", "opencluster.net.b"),
    ("opencluster.core.a", "from ..wire import codec", "opencluster.wire codec"),
    ("opencluster.core.a", "from opencluster import config", "opencluster config"),
    ("opencluster.core.a", "import time", "core must not import time"),
    ("opencluster.core.a", "def f():\n    import os.path", "line 2: core must not"),
    ("opencluster.core.a", "from random import random", "takes randomness"),
    ("opencluster.core.a", "import random\nrandom.shuffle([])", "takes randomness"),
    ("opencluster.core.a", "import random\nrandom.Random()", "takes randomness"),
    ("opencluster.core.a", "print('x')", "must not call print()"),
    ("opencluster.wire.a", "import opencluster.config", "opencluster.config"),
    ("opencluster.wire.a", "from opencluster.core import x", "opencluster.core x"),
    ("opencluster.net.a", "from opencluster.node import b", "opencluster.node b"),
    ("opencluster.node.a", "from opencluster import net", "opencluster net"),
    ("opencluster.node.a", "class A:\n    import psutil", "psutil at the head"),
    ("opencluster.store.a", "from ..net.b import c", "opencluster.net.b c"),
    ("opencluster.worker", "from . import manager", "opencluster manager"),
    ("opencluster.worker", "import opencluster.service", "opencluster.service"),
    ("opencluster.service", "from opencluster.worker import W", "opencluster.worker"),
    ("opencluster.place", "import opencluster.net.link", "opencluster.net.link"),
    ("opencluster.serving.a", "from opencluster import worker", "opencluster worker"),
    ("opencluster.manager", "import opencluster.engines", "opencluster.engines"),
    ("opencluster.manager", "from .engines.local import x", "engines.local x"),
    ("opencluster.manager", "def f():\n    from opencluster.engines import cluster",
     "line 2: imports opencluster.engines cluster"),
    ("opencluster.engines.base", "from opencluster import Manager", "Manager"),
    ("opencluster.engines.local", "import opencluster.cli", "opencluster.cli"),
    ("opencluster.engines.local", "import opencluster.start", "opencluster.start"),
    ("opencluster.engines.choice", "from .local import x", "engines.local x"),
    ("opencluster.launchers.embedded", "import opencluster.engines", "engines"),
    ("opencluster.launchers.embedded", "import opencluster.manager", "manager"),
    ("opencluster.start", "import opencluster.worker", "opencluster.worker"),
    ("opencluster.mapping", "import opencluster.net", "opencluster.net"),
    ("opencluster.progress", "import opencluster.errors", "opencluster.errors"),
    ("opencluster.worker", "import opencluster.mapping", "opencluster.mapping"),
    ("opencluster.demo.words", "from opencluster.net import b", "opencluster.net b"),
    ("opencluster.config.a", "from ..wire import b", "opencluster.wire b"),
    ("opencluster.cli.a", "import opencluster_web", "imports opencluster_web"),
    ("opencluster.cli.a", "import numpy", "numpy at the head"),
    ("opencluster.wire.a", "try:\n    import numpy as np\nexcept ImportError: ...",
     "line 2: imports numpy at the head"),
    ("opencluster.wire.arrays", "import astropy", "astropy at the head"),
    ("opencluster.wire.codec", "from opencluster.wire import arrays", "and late"),
    ("opencluster.worker", "import opencluster.wire.arrays", "and late"),
    ("opencluster.workshop", "import rich.progress", "rich at the head"),
    ("opencluster.attic.a", "", "without a rule"),
    ("opencluster.utils", "", "without a rule"),
    ("muser_pipeline.a", "from opencluster.net import b", "opencluster.net b"),
    ("muser_pipeline.a", "import cupy", "cupy at the head"),
    ("muser_pipeline.imaging.a", "import opencluster", "imports opencluster"),
    ("muser_pipeline.imaging.a", "from .. import frames", "must not know"),
    ("opencluster_web.a", "import opencluster.cli", "opencluster.cli"),
    ("examples.hello.a", "from opencluster.wire import codec", "opencluster.wire"),
]  # fmt: skip

GOOD = [
    ("opencluster.core.a", "from random import Random\ndef f(r: Random): ..."),
    ("opencluster.core.a", "from collections.abc import Mapping\nimport heapq"),
    ("opencluster.core.a", "from . import b\nfrom opencluster.errors import C"),
    ("opencluster.wire.a", "def f():\n    import numpy"),
    ("opencluster.wire.arrays", "import numpy"),
    ("opencluster.wire.a", "if TYPE_CHECKING:\n    import numpy"),
    ("opencluster.net.a", "from opencluster import config, errors\nimport zmq"),
    ("opencluster.manager", "from opencluster.engines.base import Engine"),
    ("opencluster.manager", "from opencluster.engines import base"),
    ("opencluster.manager", "from opencluster.engines.choice import find_engine"),
    ("opencluster.engines.cluster", "from opencluster.manager import Manager"),
    ("opencluster.engines.process", "from opencluster.launchers import embedded"),
    ("opencluster.demo.words", "from opencluster import Manager, Worker"),
    ("opencluster.cli.a", "from opencluster.demo import words"),
    ("opencluster.ingest", "import opencluster.engines.cluster"),
    ("opencluster.cli.a", "import click\nimport rich\nfrom opencluster import Worker"),
    ("opencluster.__main__", "from opencluster.cli import main"),
    ("muser_pipeline.a", "from opencluster import Worker\nimport numpy"),
    ("muser_pipeline.imaging.a", "from . import b\nimport numpy"),
    ("examples.hello.a", "from opencluster import Worker"),
]


@pytest.mark.parametrize(("name", "source", "expected"), BAD)
def test_checker_finds_a_broken_rule(name: str, source: str, expected: str) -> None:
    found = violations(name, source)
    assert any(expected in line for line in found), found


@pytest.mark.parametrize(("name", "source"), GOOD)
def test_checker_accepts_what_is_allowed(name: str, source: str) -> None:
    assert violations(name, source) == []
