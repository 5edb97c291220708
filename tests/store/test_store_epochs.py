"""The file of a factory's epochs, on a real disk."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from opencluster.core.epochs import NO_EPOCH, Epoch
from opencluster.errors import OpenClusterError
from opencluster.store.epochs import EpochFile

LED = Epoch(7, 1, 99)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "state" / "epoch"
    EpochFile(path).write(9, LED)
    assert EpochFile(path).read() == (9, LED)
    assert [p.name for p in path.parent.iterdir()] == ["epoch"]


def test_a_missing_file_is_no_epoch_and_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert EpochFile(tmp_path / "epoch").read() == (0, NO_EPOCH)
    assert not caplog.records


@pytest.mark.parametrize(
    "content",
    [
        "",
        "torn\0",
        "7",
        "[]",
        "{}",
        '{"seen": 3}',
        '{"seen": "many", "led": [1, 0, 2]}',
        '{"seen": 3, "led": [1, 0]}',
        '{"seen": 3, "led": [1, 0, -2]}',
        '{"seen": 3, "led": [1, 0, ',
        "\ufffe",
    ],
)
def test_a_torn_file_counts_as_none_and_is_told(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "epoch"
    path.write_text(content)
    file = EpochFile(path)
    assert file.read() == (0, NO_EPOCH)
    assert "cannot be read" in caplog.text
    file.write(1, NO_EPOCH)
    assert file.read() == (1, NO_EPOCH)


def test_a_file_that_knows_a_higher_number_to_have_led_has_seen_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "epoch"
    path.write_text('{"seen": 3, "led": [7, 1, 99]}')
    assert EpochFile(path).read() == (7, LED)


def test_the_directory_is_for_its_owner_alone(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    directory.mkdir(mode=0o755)
    EpochFile(directory / "epoch")
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_directory_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OpenClusterError, match=r"epoch.*--dir"):
        EpochFile(tmp_path / "file" / "epoch")


def test_what_cannot_be_written_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "epoch"
    file = EpochFile(path)
    file.write(3, NO_EPOCH)
    path.with_suffix(".new").mkdir()
    with pytest.raises(OSError, match="directory"):
        file.write(4, LED)
    assert file.read() == (3, NO_EPOCH)
