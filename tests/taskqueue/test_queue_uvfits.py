"""A request for UVFITS files whose database goes away while they are made."""

from __future__ import annotations

from pathlib import Path

import pytest
from dispatcher_tools import Scene
from postgres_server import PostgresServer
from queue_tools import wait_until

from muser_pipeline.array import FRAME_PERIOD_NS
from muser_pipeline.batch import UVFITSManager
from muser_pipeline.demo import START_NS, simulate_sun
from opencluster import WorkPiece

COUNT = 240


@pytest.mark.processes
@pytest.mark.parametrize("kind", ["postgresql"], indirect=True)
def test_files_do_not_show_that_the_database_was_gone(
    scene: Scene, postgres: PostgresServer, tmp_path: Path
) -> None:
    task = WorkPiece(
        archive=simulate_sun(tmp_path / "archive"),
        start=START_NS,
        end=START_NS + COUNT * FRAME_PERIOD_NS,
        integrate_s=0.025,
    )
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "out"
    UVFITSManager("local").run(WorkPiece(task | {"out": undisturbed}))

    number = scene.queue.submit(UVFITSManager, WorkPiece(task | {"out": out}))
    scene.process()
    wait_until(lambda: out.is_dir() and any(out.glob("*.uvfits")))
    postgres.stop()
    try:
        wait_until(lambda: any(out.glob("*.manifest.json")))
    finally:
        postgres.start()
    shown = scene.queue.wait(number)
    assert (shown.state, shown.attempt) == ("done", 1)
    assert scene.queue.result(number)["frames"] == COUNT
    files = {path.name: path.read_bytes() for path in out.iterdir()}
    assert files == {path.name: path.read_bytes() for path in undisturbed.iterdir()}
