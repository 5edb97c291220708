from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import muser_pipeline


def test_public_names_are_found_where_they_are_said_to_be() -> None:
    assert sorted(muser_pipeline.__all__) == list(muser_pipeline.__all__)
    assert set(muser_pipeline._HOMES) == set(muser_pipeline.__all__)
    for name, home in muser_pipeline._HOMES.items():
        module = importlib.import_module(f"muser_pipeline.{home}")
        assert getattr(muser_pipeline, name) is getattr(module, name)
        assert name in dir(muser_pipeline)


def test_a_name_that_is_not_there_is_an_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'close_raw'"):
        muser_pipeline.close_raw  # noqa: B018  the look-up is what is tested


def test_importing_the_package_loads_nothing_large() -> None:
    program = "import sys, muser_pipeline as m; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert {"numpy", "astropy", "numba"}.isdisjoint(done.stdout.split())
