"""Requests in this process: what is cut, written, counted and refused."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from raw_tools import NOON_NS, coded, random_frames, save

from muser_pipeline import batch
from muser_pipeline.archive import index_archive
from muser_pipeline.array import FRAME_PERIOD_NS
from muser_pipeline.batch import Request, UVFITSManager, manager, plan
from muser_pipeline.batch.joining import join
from muser_pipeline.batch.plan import Pace
from muser_pipeline.calibration import (
    correct_delays,
    make_calibration,
    write_calibration,
)
from muser_pipeline.errors import RequestError
from muser_pipeline.geometry import Sun
from muser_pipeline.integration import integrate
from muser_pipeline.raw import Frames
from muser_pipeline.uvfits import write_files
from opencluster import WorkPiece
from opencluster.errors import PieceFailed

P = FRAME_PERIOD_NS
COUNT = 144
START = NOON_NS // 10**9 * 10**9
"""Frames begin somewhere in a period of this second."""
FIRST = NOON_NS
END = FIRST + COUNT * P


@pytest.fixture(autouse=True)
def _in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCLUSTER_ENGINE", "local")


@pytest.fixture(scope="module")
def frames() -> Frames:
    return random_frames(1, COUNT, fringes_stopped=False)


@pytest.fixture(scope="module")
def archive(frames: Frames, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files; in the first, frame 9 cannot be read, and 20 to 23 are lost."""
    folder = tmp_path_factory.mktemp("archive")
    pieces = coded(frames)
    pieces[9][:28] = bytes(28)
    save(folder / "20151101-1208", pieces[:20] + pieces[24:80])
    save(folder / "20151101-1209", pieces[80:])
    return folder


@pytest.fixture
def task(archive: Path, tmp_path: Path) -> dict[str, Any]:
    out = tmp_path / "out"
    asked = {"archive": archive, "start": FIRST, "end": END, "out": out}
    return asked | {"integrate_s": 0.1, "flag_dead": False}


def run(task: dict[str, Any]) -> WorkPiece:
    return UVFITSManager().run(WorkPiece(task))


def manifest_of(result: WorkPiece) -> dict[str, Any]:
    content = json.loads(Path(result["manifest"]).read_text())
    assert isinstance(content, dict)
    return content


def bytes_below(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_are_those_of_the_steps_one_after_the_other(
    task: dict[str, Any], frames: Frames, tmp_path: Path
) -> None:
    whole = {"start": FIRST + 80 * P, "flag_known": False}
    found = manifest_of(run(task | whole))
    apart = tmp_path / "apart"
    apart.mkdir()
    corrected = correct_delays(frames.select(slice(80, None)))
    expected = write_files(corrected, apart, Sun(), "integration", 10**8)
    assert [row["sha256"] for row in found["files"]] == [f.sha256 for f in expected]
    assert [row["bytes"] for row in found["files"]] == [f.size_bytes for f in expected]
    for row in found["files"]:
        content = (task["out"] / row["name"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == row["sha256"]
    assert found["frames"]["read"] == 64
    assert sum(row["frames"] for row in found["files"]) == 64


def cut_into(monkeypatch: pytest.MonkeyPatch, frames: int) -> None:
    """Let pieces be of so many frames, or of one unit."""
    monkeypatch.setattr(Pace, "length_ns", lambda self, share: frames * P)


KINDS: list[dict[str, Any]] = [
    {},
    {"per": "frame"},
    {"integrate_s": None},
    {"integrate_s": None, "per": "band", "bands": [1, 3]},
    {"per": "band"},
    {"per": "range", "polarizations": ["LL"]},
    {"per": "range", "flag_outliers": True, "integrate_s": 0.2},
]


@pytest.mark.parametrize("kind", KINDS)
def test_it_does_not_matter_where_a_request_is_cut(
    kind: dict[str, Any],
    task: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = []
    for frames in (1, 70, 10**6):
        cut_into(monkeypatch, frames)
        out = tmp_path / f"of {frames}"
        seen.append((run(task | kind | {"out": out})["files"], bytes_below(out)))
    assert seen[0][0] > 0
    assert seen[0] == seen[1] == seen[2]


def test_long_averages_are_made_in_parts(
    task: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    long = {"integrate_s": 0.2, "flag_known": False, "flag_outliers": False}
    as_one = manifest_of(run(task | long))
    monkeypatch.setattr(plan, "LONG_NS", 10**8)
    in_parts = manifest_of(run(task | long | {"out": task["out"] / "parts"}))
    assert len(as_one["files"]) == 4
    for row in (*as_one["files"], *in_parts["files"]):
        # times are rounded once more in parts
        del row["sha256"]
    assert in_parts == as_one


def test_parts_of_bands_and_hands_make_the_whole(frames: Frames) -> None:
    some = correct_delays(frames.select(slice(0, 48)))
    parts = [
        integrate(some.select((some.band == band) & (some.polarization == hand)), 10**8)
        for band in (2, 0)
        for hand in ("LL", "RR")
    ]
    whole = integrate(some.select(np.isin(some.band, [0, 2])), 10**8)
    joined = join(parts, 10**8, [0, 2], ("RR", "LL"))
    assert joined.polarizations == whole.polarizations
    for name in ("start_utc_ns", "end_utc_ns", "bands", "data", "weights", "frames"):
        found, expected = getattr(joined, name), getattr(whole, name)
        np.testing.assert_array_equal(found, expected, err_msg=name)
    np.testing.assert_allclose(joined.time_utc_ns, whole.time_utc_ns, rtol=0, atol=2)


def test_what_is_missing_is_counted_as_the_archive_counts_it(
    task: dict[str, Any], archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    span = {"start": FIRST - 10 * P, "end": END + 7 * P}
    with index_archive(archive, 1).select(span["start"], span["end"]) as selection:
        gaps = [(g.start_utc_ns, g.end_utc_ns, g.frames) for g in selection.gaps]
        assert [frames for _, _, frames in gaps] == [10, 1, 4, 7]
    for frames in (1, 70):
        cut_into(monkeypatch, frames)
        found = manifest_of(run(task | span))
        assert [tuple(row.values()) for row in found["gaps"]] == [
            (end, frames, start) for start, end, frames in gaps
        ]
    assert found["frames"]["missing"] == 22
    assert found["frames"]["read"] == COUNT - 5
    assert found["frames"]["skipped"] == 1
    assert found["skipped"] == [
        {
            "file": "20151101-1208",
            "number": 9,
            "offset": 900_000,
            "reason": "wrong sync",
        }
    ]


def test_flags_and_calibration_reach_the_files(
    task: dict[str, Any], frames: Frames, tmp_path: Path
) -> None:
    table = tmp_path / "scan.cal"
    write_calibration(table, make_calibration(correct_delays(frames)))
    more = {"flag_inputs": [0], "flag_known": False}
    (row, *_) = manifest_of(run(task | more))["files"]
    assert row["flagged_part"] == pytest.approx(39 / 780, abs=1e-6)
    with fits.open(task["out"] / row["name"]) as file:
        weights = file[0].data.data[..., 2]
        baseline = file[0].data.par("BASELINE")
    is_flagged = (weights == 0).reshape(len(weights), -1).all(axis=1)
    np.testing.assert_array_equal(is_flagged, baseline // 256 == 1)

    plain = run(task | {"out": tmp_path / "plain"})
    turned = run(task | {"out": tmp_path / "turned", "calibration": table})
    own = run(task | {"out": tmp_path / "own", "static_delays_ns": [0.0] * 44})
    checksums = [manifest_of(r)["files"][0]["sha256"] for r in (plain, turned, own)]
    assert len(set(checksums)) == 3


def test_a_request_without_data_says_so(task: dict[str, Any], tmp_path: Path) -> None:
    later = run(task | {"start": "2020-01-01T00:00:00", "end": "2020-01-01T00:00:01"})
    assert (later["files"], later["frames"], later["missing"]) == (0, 0, 320)
    assert later["note"] == "no data: there are no frames of this time in the archive"
    assert manifest_of(later)["note"] == later["note"]
    (tmp_path / "nothing").mkdir()
    empty = run(task | {"archive": tmp_path / "nothing", "out": tmp_path / "empty"})
    assert "no raw files of this array" in empty["note"]
    assert manifest_of(empty)["files"] == []


def test_a_band_that_is_not_there_leaves_an_empty_manifest(
    task: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "fixed"
    save(path, coded(random_frames(1, 8, mode="fixed", first=2)))
    result = run(task | {"archive": path, "bands": [3], "out": tmp_path / "o"})
    assert result["note"] == (
        "no data: frames of this time are of other bands or polarizations"
    )


@pytest.mark.parametrize("per", ["integration", "range"])
@pytest.mark.parametrize("array", [1, 2])
def test_files_of_a_fixed_band_have_no_room_for_others(
    array: int, per: str, task: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "fixed"
    save(path, coded(random_frames(array, 8, mode="fixed", first=3)))
    result = run(task | {"archive": path, "integrate_s": 10.0, "per": per})
    (row,) = manifest_of(result)["files"]
    assert (row["bands"], row["polarizations"], row["frames"]) == ([1], ["RR"], 8)
    assert "_b1_RR_n8" in row["name"]


def test_loops_of_the_other_array_become_files(
    task: dict[str, Any], tmp_path: Path
) -> None:
    path = save(tmp_path / "loops", coded(random_frames(2, 70)))
    result = run(task | {"archive": path, "integrate_s": None, "bands": [0, 1, 32]})
    first, second = manifest_of(result)["files"]
    assert (result["array"], first["frames"], second["frames"]) == ("MUSER-II", 6, 4)
    assert first["name"].endswith("Z_b0+1+32_RR-LL_n6.uvfits")


def test_requests_that_overlap_share_files(task: dict[str, Any]) -> None:
    first = run(task | {"end": FIRST + 100 * P})
    before = bytes_below(task["out"])
    second = run(task | {"start": FIRST + 30 * P})
    again = run(task | {"end": FIRST + 100 * P})
    after = bytes_below(task["out"])
    assert first["manifest"] == again["manifest"] != second["manifest"]
    assert before.items() <= after.items()
    rows = manifest_of(first)["files"] + manifest_of(second)["files"]
    names = [row["name"] for row in rows]
    assert len(names) > len(set(names))
    for row in rows:
        content = after[row["name"]]
        assert hashlib.sha256(content).hexdigest() == row["sha256"]


def test_files_made_in_another_way_are_not_mixed(task: dict[str, Any]) -> None:
    run(task)
    with pytest.raises(RequestError, match=r"integrate_s: 0.1, not 0.2\): choose ano"):
        run(task | {"integrate_s": 0.2})
    (task["out"] / "recipe.json").write_text("?")
    with pytest.raises(RequestError, match=r"recipe.json cannot be read"):
        run(task)


def test_what_a_dead_worker_left_is_removed_later(task: dict[str, Any]) -> None:
    task["out"].mkdir()
    old, new = task["out"] / ".a.1-2.part", task["out"] / ".b.1-2.part"
    for path in (old, new):
        path.touch()
    long_ago = time.time() - 7 * 3600
    os.utime(old, (long_ago, long_ago))
    run(task)
    assert (old.exists(), new.exists()) == (False, True)


@pytest.fixture
def vanishing(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Return an archive whose first file is removed when it has been looked at."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in archive.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    find = manager.find_archive

    def find_and_remove(request: Request) -> Any:
        found = find(request)
        found.files[0].path.unlink()
        return found

    monkeypatch.setattr(manager, "find_archive", find_and_remove)
    yield copy


def test_a_file_that_disappears_is_named_and_its_frames_are_missing(
    vanishing: Path, task: dict[str, Any]
) -> None:
    result = run(task | {"archive": vanishing})
    found = manifest_of(result)
    assert result["unreadable"] == 1
    assert found["unreadable"] == [
        {"file": "20151101-1208", "reason": "No such file or directory"}
    ]
    assert (found["frames"]["read"], found["frames"]["missing"]) == (64, 80)


def test_frames_that_have_no_average_are_refused_with_the_reason(
    task: dict[str, Any], tmp_path: Path
) -> None:
    sun = coded(random_frames(1, 32))
    other = random_frames(1, 8, start_ns=FIRST + 32 * P, target="satellite")
    path = tmp_path / "mixed"
    save(path, sun + coded(other))
    second = {"archive": path, "start": FIRST // 10**9 * 10**9, "integrate_s": 1.0}
    found = manifest_of(run(task | second))
    assert found["files"] == []
    assert [row["reason"] for row in found["refused"]] == [
        "frames of satellite and sun have no average"
    ]
    assert "none could be used" in found["note"]


FULL = """
import os, sys
from pathlib import Path
os.environ["OPENCLUSTER_ENGINE"] = "local"
from muser_pipeline.batch import UVFITSManager
from opencluster import WorkPiece
from opencluster.errors import PieceFailed
archive, out, start, end = sys.argv[1:]
task = WorkPiece(archive=archive, out=out, start=int(start), end=int(end),
                 integrate_s=0.1)
try:
    UVFITSManager().run(task)
except PieceFailed as error:
    assert "No space left on device" in str(error), error
else:
    sys.exit("there was room")
print(*sorted(path.suffix for path in Path(out).iterdir()))
"""


def test_a_full_disk_ends_a_request_without_half_a_file(
    archive: Path, tmp_path: Path
) -> None:
    # only this process sees the small file system, which vanishes with it
    mount = 'mount -t tmpfs -o size=3m,mode=700 small "$0" && exec "$@"'
    run = [sys.executable, "-c", FULL, archive, tmp_path, str(FIRST), str(END)]
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mount, tmp_path, *run],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [".json", ".uvfits", ".uvfits"]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"band": [1]}, "has no band: it has archive"),
    ({"archive": 3}, "archive: 3 is no path"),
    ({"archive": "/nowhere"}, "archive: there is no archive /nowhere"),
    ({"start": "noon"}, "start: 'noon' is no time such as"),
    ({"start": 1.5}, "start: 1.5 is neither text nor whole nanoseconds"),
    ({"end": FIRST}, "end: it is not after the start"),
    ({"bands": [4]}, "MUSER-I has the bands 0 to 3, not 4"),
    ({"bands": [-1]}, "bands: -1 is below 0"),
    ({"bands": [0.5]}, "are no whole numbers"),
    ({"polarizations": ["XX"]}, "'XX' is not one of RR, LL"),
    ({"polarizations": []}, "polarizations: some of RR, LL are needed"),
    ({"integrate_s": 0}, "0 is no length of an average"),
    ({"per": "night"}, "per: 'night' is not one of frame, integration"),
    ({"layout": "newest"}, "layout: 'newest' is not one of"),
    ({"array": 3}, "array: 3 is not one of 0, 1, 2"),
    ({"source": "Moon"}, "source: there is no source 'Moon'"),
    ({"flag_inputs": [44]}, "the inputs 0 to 43, not 44"),
    ({"static_delays_ns": [1.0]}, "MUSER-I has 44 inputs, not 1"),
    ({"calibration": "/nowhere.cal"}, "calibration: .*No such file"),
    ({"out": "/proc/nothing"}, "out: nothing can be written there"),
    ({"per": "range", "end": FIRST + 3600 * 10**9}, "one file of 36,000 averages"),
]


@pytest.mark.parametrize(("change", "expected"), WRONG)
def test_a_wrong_request_is_explained(
    change: dict[str, Any], expected: str, task: dict[str, Any]
) -> None:
    with pytest.raises(RequestError, match=expected):
        run(task | change)


def test_a_request_must_be_complete(task: dict[str, Any]) -> None:
    del task["archive"], task["end"]
    with pytest.raises(RequestError, match="a request needs archive, end"):
        run(task)


def test_an_archive_of_both_arrays_must_be_told_apart(
    task: dict[str, Any], tmp_path: Path
) -> None:
    save(tmp_path / "20151101-1200", coded(random_frames(1, 2)))
    save(tmp_path / "20151101-1201", coded(random_frames(2, 2)))
    both = task | {"archive": tmp_path}
    with pytest.raises(RequestError, match="has files of both arrays; say which"):
        run(both)
    result = run(both | {"array": 2})
    assert (result["array"], result["frames"]) == ("MUSER-II", 2)


def test_a_worker_learns_how_long_pieces_should_be() -> None:
    pace = Pace(1000.0)
    for _ in range(100):
        pace.learn(500, 0.25)
    assert pace.length_ns(1.0) == pytest.approx(2000 * P, rel=1e-3)
    assert pace.length_ns(0.25) == pytest.approx(8000 * P, rel=1e-3)
    pace.most_frames = 10
    assert pace.length_ns(1.0) == 10 * P


def test_errors_of_pieces_are_not_swallowed(
    task: dict[str, Any], tmp_path: Path
) -> None:
    task["out"].mkdir()
    request = Request.read(task).of_array(1)
    worker = batch.UVFITSWorker()
    worker.startup()
    with pytest.raises(KeyError):
        worker.perform(WorkPiece(request=vars(request)))
    with pytest.raises(PieceFailed, match="Not a directory"):
        sub = tmp_path / "a file"
        sub.touch()
        piece = plan.whole_slices(
            request, index_archive(task["archive"], 1).files, Pace(1e6)
        )
        fields = vars(request) | {"out": sub / "below"}
        work = WorkPiece(request=fields, slice=vars(next(piece)))
        UVFITSManager().submit("UVFITS", work).result()
