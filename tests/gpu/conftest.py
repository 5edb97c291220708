"""What runs on a GPU: collected by `make test-gpu` alone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from muser_pipeline.imaging.backend import library_of

sys.path.insert(0, str(Path(__file__).parent.parent / "imaging"))


@pytest.fixture(scope="session")
def cupy() -> Any:
    """Fail where there is no GPU: the tests were asked for."""
    return library_of("cuda")
