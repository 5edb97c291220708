"""The names that users may rely on, and what importing them costs."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from cluster_programs import TARGET

import opencluster
from opencluster import Manager, WorkPiece, errors
from opencluster.testing import LocalCluster

ROOT = Path(__file__).parent.parent
HEAVY = {
    *("astropy", "click", "cupy", "numpy", "psutil", "psycopg", "pynvml", "rich"),
    "sqlalchemy",
}
"""What an idle worker has no use for."""


def test_public_names_are_these() -> None:
    assert opencluster.__all__ == [
        "Completed",
        "DataRef",
        "Factory",
        "IngestServer",
        "Manager",
        "ManagerPool",
        "Service",
        "TaskDispatcher",
        "TaskQueue",
        "WorkPiece",
        "Worker",
        "Workshop",
        "empty",
        "register_type",
        "remote",
    ]


@pytest.mark.parametrize("name", opencluster.__all__)
def test_a_public_name_can_be_imported_and_is_explained(name: str) -> None:
    value = getattr(opencluster, name)
    assert callable(value)
    assert inspect.getdoc(value)


def test_public_methods_are_explained() -> None:
    for name in opencluster.__all__:
        value = getattr(opencluster, name)
        if not inspect.isclass(value):
            continue
        for method, function in inspect.getmembers(value, inspect.isfunction):
            if not method.startswith("_"):
                assert inspect.getdoc(function), f"{name}.{method}"


def test_star_import_gives_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from opencluster import *", names)
    assert set(opencluster.__all__) <= set(names)


def test_names_can_be_completed_before_they_are_used() -> None:
    code = "import opencluster\nassert {*opencluster.__all__} <= {*dir(opencluster)}"
    assert imported_by(code)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Foreman'"):
        _ = opencluster.Foreman
    with pytest.raises(ImportError):
        exec("from opencluster import Foreman")


def test_the_version_is_that_of_the_package() -> None:
    text = (ROOT / "setup.cfg").read_text()
    assert f"version = {opencluster.__version__}\n" in text


def test_every_error_is_one_of_opencluster() -> None:
    classes = [v for v in vars(errors).values() if inspect.isclass(v)]
    own = [c for c in classes if issubclass(c, Exception)]
    assert len(own) > 10
    for cls in own:
        assert issubclass(cls, errors.OpenClusterError), cls
        assert inspect.getdoc(cls)


def imported_by(code: str) -> set[str]:
    """Return the top-level modules that a program has imported at its end."""
    show = "import json, sys\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{show}"],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return {name.split(".")[0] for name in json.loads(done.stdout)}


def test_importing_opencluster_imports_nothing_heavy() -> None:
    modules = imported_by("import opencluster")
    assert "opencluster" in modules
    assert not modules & (HEAVY | {"zmq", "msgpack"})


def test_importing_the_base_classes_imports_nothing_heavy() -> None:
    modules = imported_by("from opencluster import Manager, Service, Worker, WorkPiece")
    assert "msgpack" in modules
    # sockets come with the first engine, or when a process is made ready
    assert not modules & (HEAVY | {"zmq"})


def test_the_program_of_a_worker_imports_nothing_heavy() -> None:
    modules = imported_by("import opencluster.start, opencluster.serving.runner")
    assert "zmq" in modules
    assert not modules & HEAVY


WITHOUT = """
import sys
sys.modules["{package}"] = None
from opencluster import TaskQueue
TaskQueue("{url}")
"""


@pytest.mark.parametrize(
    ("package", "url", "extra"),
    [
        ("sqlalchemy", "sqlite:////tmp/none", "queue"),
        ("psycopg", "postgresql://none/none", "postgresql"),
    ],
)
def test_what_the_queue_needs_is_named_when_it_is_missing(
    package: str, url: str, extra: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(package=package, url=url)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "ConfigError: " in done.stderr
    assert f"package {package}: install it" in done.stderr
    assert f"pip install 'opencluster[{extra}]'" in done.stderr
    assert f"\n{extra} =\n" in (ROOT / "setup.cfg").read_text()


def test_a_worker_process_imports_nothing_heavy() -> None:
    with LocalCluster({f"{TARGET}:ToolWorker": 1}):
        (result,) = Manager().map("Tool", [WorkPiece(do="modules")])
    assert "opencluster" in result["modules"]
    assert not result["modules"] & HEAVY
