"""The truth of images once more, with a worker that has a GPU."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

REALTIME = Path(__file__).parent.parent / "realtime"
sys.path.insert(0, str(REALTIME))

from image_programs import HOLD  # noqa: E402
from test_truth import (  # noqa: E402, F401
    folder,
    frames,
    published,
    test_a_worker_that_is_killed_while_it_cleans_costs_no_image,
    test_bursts_are_where_they_are_and_as_bright,
    test_images_say_when_and_of_what_they_are,
    test_the_disk_is_as_large_as_the_sun,
    test_the_sun_is_not_turned_or_mirrored,
)

from opencluster.testing import LocalCluster  # noqa: E402

ENTRY = {
    "kind": "worker",
    "name": "MUSERImage",
    "target": f"{REALTIME / 'image_programs.py'}:HeldWorker",
    "gpus": 1,
}


@pytest.fixture(scope="module")
def cluster(cupy: Any, folder: Path) -> Iterator[LocalCluster]:  # noqa: F811
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOLD, str(folder))
        with LocalCluster() as here:
            here.ask_workshop("start", {"entry": ENTRY, "count": 1})
            yield here


def test_the_worker_has_the_gpu(cluster: LocalCluster) -> None:
    (row,) = cluster.ask_factory("find", {"kind": "worker"})
    assert row["type"] == "MUSERImageGPU"
