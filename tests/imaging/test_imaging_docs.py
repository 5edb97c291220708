"""What docs/imaging.md shows can be done."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from sun_tools import RADIUS, disk_of, sun_snapshot
from vlbi_scene import gaussian, without_phases
from vlbi_scene import seen as snapshot_of

from muser_pipeline.imaging import uvfits

TEXT = (Path(__file__).parents[2] / "docs" / "imaging.md").read_text(encoding="utf-8")


def test_the_examples_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    burst = (30.0, 1e-3, 2e-3, 0.0)
    seen = sun_snapshot([burst], disk_of(100.0, RADIUS), noise=0.5)
    monkeypatch.setattr(uvfits, "read_uvfits", lambda path: seen)
    blocks = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    make, read = (each for each in blocks if "publish" in each)
    names: dict[str, Any] = {"path": "burst.uvfits", "folder": tmp_path}
    exec(make, names)
    assert capsys.readouterr().out == "324 iterations\n"
    (image,) = (each for each in blocks if "weigh(" in each)
    exec(image, names)
    assert capsys.readouterr().out.startswith("Beam(major_rad=0.0003")
    exec(read, names)
    assert capsys.readouterr().out.startswith("2015-06-22T05:00:00.000 68.5")
    (find,) = (each for each in blocks if "phased(" in each)
    names["snapshot"] = without_phases(snapshot_of(gaussian))
    exec(find, names)
    assert capsys.readouterr().out.startswith("gaussian (")
