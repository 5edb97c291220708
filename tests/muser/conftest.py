from __future__ import annotations

from collections.abc import Iterator

import pytest
from astropy.utils import iers


@pytest.fixture
def _astropy_downloads_nothing() -> Iterator[None]:
    """Packages that ask astropy for UT1 get what is installed, however old."""
    with (
        iers.conf.set_temp("auto_download", False),
        iers.conf.set_temp("auto_max_age", None),
    ):
        yield
