"""Pieces that end every worker: kept with evidence, looked at, put back, deleted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from opencluster import Manager, WorkPiece
from opencluster.cli import main
from opencluster.config import load
from opencluster.errors import LetterError, PoisonPiece
from opencluster.launchers.connection import connect
from opencluster.observe.dead_letters import Letters
from opencluster.place import Place
from opencluster.putting_back import put_back
from opencluster.testing import LocalCluster

pytestmark = pytest.mark.processes
ARRAY = np.ones(50_000)


def opencluster(*words: str) -> Result:
    return CliRunner().invoke(main, ["letters", *words], catch_exceptions=False)


def deadly(mended: Path) -> WorkPiece:
    """Return a piece that ends its workers until a file is there."""
    return WorkPiece(array=ARRAY, mended=str(mended))


def met(mended: Path) -> PoisonPiece:
    """Return what a program meets whose piece ends its workers."""
    with pytest.raises(PoisonPiece) as caught:
        Manager().submit("Suicide", deadly(mended)).result(60.0)
    return caught.value


@pytest.fixture(scope="module")
def error(
    cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory
) -> PoisonPiece:
    return met(tmp_path_factory.mktemp("never") / "mended")


@pytest.fixture
def elsewhere(cluster: LocalCluster, tmp_path: Path) -> Iterator[Letters]:
    """Return the letters as another computer sees them."""
    config = load()
    with connect(config, cluster.place) as control:
        yield Letters(config, Place(tmp_path / "elsewhere"), control)


def test_the_error_names_the_letter_and_the_commands(error: PoisonPiece) -> None:
    assert f"It is kept as dead letter {error.letter}: " in str(error)
    assert f"opencluster letters put-back {error.letter}" in str(error)


def test_a_letter_is_listed_and_shown_with_the_end_of_each_worker(
    error: PoisonPiece,
) -> None:
    assert error.letter in opencluster("list").stdout
    rows = json.loads(opencluster("list", "--json").stdout)["letters"]
    (row,) = [row for row in rows if row["id"] == error.letter]
    assert (row["type"], row["deaths"]) == ("Suicide", 2)
    text = opencluster("show", error.letter).stdout
    for said in ("Suicide-1", "SIGKILL", "the disk is on fire", "Manager"):
        assert said in text
    letter = json.loads(opencluster("show", error.letter, "--json").stdout)
    assert [death["signal"] for death in letter["deaths"]] == ["SIGKILL", "SIGKILL"]
    assert letter["nbytes"] > ARRAY.nbytes


def test_another_computer_reads_the_same_by_asking_the_workshop(
    error: PoisonPiece, elsewhere: Letters, cluster: LocalCluster
) -> None:
    here = Letters(load(), cluster.place, None)
    found = elsewhere.find()
    assert error.letter in [row["id"] for row in found.letters]
    assert found.silent == []
    assert elsewhere.show(error.letter) == here.show(error.letter)
    # in several parts
    elsewhere._part_bytes = 100_000
    assert elsewhere.work(error.letter) == here.work(error.letter)


def test_put_back_too_early_gives_a_new_letter_with_new_evidence(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    letters = Letters(load(), cluster.place, None)
    first = met(tmp_path / "never").letter
    with pytest.raises(LetterError, match=f"in the place of {first}") as caught:
        put_back(letters, first, load())
    assert isinstance(caught.value.__cause__, PoisonPiece)
    new = caught.value.__cause__.letter
    ids = {row["id"] for row in letters.find().letters}
    assert (first in ids, new in ids) == (False, True)
    result = opencluster("delete", new)
    assert (result.exit_code, result.stderr) == (0, f"letter {new} is deleted\n")


def test_a_letter_with_references_to_lost_values_is_not_put_back(
    cluster: LocalCluster, tmp_path: Path
) -> None:
    manager = Manager()
    ref = manager.scatter(ARRAY, to="Slow")
    work = WorkPiece(array=ref, mended=str(tmp_path / "never"))
    with pytest.raises(PoisonPiece) as caught:
        manager.submit("Suicide", work).result(60.0)
    letters = Letters(load(), cluster.place, None)
    with pytest.raises(LetterError, match="refers to values that ended"):
        put_back(letters, caught.value.letter, load())
    letters.delete(caught.value.letter)


def test_a_disk_that_takes_no_letter_does_not_hide_the_error(
    error: PoisonPiece, cluster: LocalCluster, tmp_path: Path
) -> None:
    folder = cluster.place.letters
    aside = folder.rename(folder.with_name("aside"))
    folder.write_text("in the way")
    try:
        with pytest.raises(
            PoisonPiece, match="is not kept as a dead letter: "
        ) as caught:
            Manager().submit("Suicide", deadly(tmp_path / "never")).result(60.0)
    finally:
        folder.unlink()
        aside.rename(folder)
    assert caught.value.letter == ""
    assert "SIGKILL" in str(caught.value)


def test_a_mended_piece_is_done_and_its_letter_removed(
    elsewhere: Letters, tmp_path: Path
) -> None:
    mended = tmp_path / "mended"
    id = met(mended).letter
    mended.touch()
    # from another computer, as its work can be read there
    result = put_back(elsewhere, id, load())
    assert result["total"] == ARRAY.sum()
    assert id not in [row["id"] for row in elsewhere.find().letters]


def test_a_letter_that_is_not_there_is_said_to_be_none(cluster: LocalCluster) -> None:
    result = CliRunner().invoke(main, ["letters", "show", "0123456789ab"])
    assert result.exit_code == 1
    assert "there is no dead letter 0123456789ab" in result.stderr
