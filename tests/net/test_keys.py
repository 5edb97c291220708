"""Certificates and rolls on disk: closed to others, whole or refused, never shown."""

from __future__ import annotations

import json
import logging
import os
import stat
from pathlib import Path

import pytest

from opencluster.core.roles import ROLES, Credential
from opencluster.core.roll import Roll
from opencluster.errors import SecurityError
from opencluster.net import keyfiles, keys
from opencluster.net.keyfiles import (
    add_certificate,
    certificates,
    make_keys,
    read_roll,
    revoke_certificate,
    save_roll,
)
from opencluster.net.keys import Keyring


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "keys"
    make_keys(made)
    return made


def loaded(directory: Path, *roles: str) -> Keyring:
    keyring = Keyring.load(directory, *roles)
    assert keyring is not None
    return keyring


def look_now(keyring: Keyring, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the keyring look at the roll's file, though it has just done so."""
    monkeypatch.setattr(keys, "LOOK_INTERVAL_S", 0.0)
    keyring._look_at = 0.0
    keyring.refresh()


def test_new_keys_are_one_for_each_role_and_closed_to_others(directory: Path) -> None:
    assert {c.role for c in certificates(directory)} == set(ROLES)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in directory.iterdir()}
    assert modes == {**{f"{role}.key": 0o600 for role in ROLES}, "roll": 0o600}


def test_no_directory_means_no_keys() -> None:
    assert Keyring.load(None, "worker") is None


def test_a_process_picks_the_certificate_of_its_role(directory: Path) -> None:
    assert loaded(directory, "worker").own.name == "worker"
    (directory / "manager.key").unlink()
    assert loaded(directory, "manager", "observer").own.name == "observer"
    with pytest.raises(SecurityError, match="--role manager"):
        Keyring.load(directory, "manager")


def test_a_revoked_certificate_is_not_picked(directory: Path) -> None:
    add_certificate(directory, "alice", "manager")
    assert loaded(directory, "manager").own.name == "manager"
    revoke_certificate(directory, "manager")
    assert loaded(directory, "manager").own.name == "alice"


def test_one_file_alone_is_enough_to_know_the_factories(
    directory: Path, tmp_path: Path
) -> None:
    path, _ = add_certificate(directory, "node7", "worker")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    path.rename(elsewhere / path.name)
    keyring = loaded(elsewhere, "worker")
    factory = loaded(directory, "factory")
    assert keyring.version == 0
    assert keyring.credential(factory.own.public_key) == Credential(
        "factory", "factory"
    )
    manager = loaded(directory, "manager").own.public_key
    assert keyring.credential(manager) is None
    assert keyring.accept(factory.roll.to_fields())
    assert keyring.credential(manager) == Credential("manager", "manager")
    # and the next process of this computer knows at once
    assert loaded(elsewhere, "worker").version == factory.version


def test_the_highest_version_wins(directory: Path) -> None:
    keyring = loaded(directory, "worker")
    old = keyring.roll
    new = revoke_certificate(directory, "observer")
    assert keyring.accept(new.to_fields())
    assert not keyring.accept(old.to_fields())
    assert keyring.roll == new
    save_roll(directory, old)
    assert read_roll(directory) == new


def test_a_change_of_the_file_is_seen(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring = loaded(directory, "worker")
    observer = loaded(directory, "observer").own.public_key
    look_now(keyring, monkeypatch)
    assert keyring.credential(observer) is not None
    revoke_certificate(directory, "observer")
    look_now(keyring, monkeypatch)
    assert keyring.credential(observer) is None


def test_the_file_is_looked_at_once_a_second_at_most(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring = loaded(directory, "worker")
    keyring.refresh()
    looks: list[int] = []
    monkeypatch.setattr(keyring, "_stamp", lambda: looks.append(1))
    for _ in range(1000):
        keyring.refresh()
    assert len(looks) <= 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 9}', "\0" * 100])
def test_a_torn_roll_changes_nothing_and_is_told(
    directory: Path,
    content: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    keyring = loaded(directory, "worker")
    good = keyring.roll
    look_now(keyring, monkeypatch)
    (directory / "roll").write_text(content)
    look_now(keyring, monkeypatch)
    assert keyring.roll is good
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert "still holds" in record.getMessage()
    # one that starts now admits the factories alone, until they tell who else is
    fresh = loaded(directory, "worker")
    assert fresh.version == 0
    assert fresh.credential(fresh.factory_key) is not None
    assert fresh.accept(good.to_fields())
    assert read_roll(directory) == good


def test_a_roll_that_cannot_be_kept_holds_all_the_same(
    directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keyring = loaded(directory, "worker")
    new = keyring.roll.without("observer")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keys, "save_roll", full)
    assert keyring.accept(new.to_fields())
    assert keyring.roll == new
    assert "No space left" in caplog.text


def test_the_end_of_ones_own_certificate_is_told(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keyring = loaded(directory, "worker")
    keyring.accept(keyring.roll.without("worker").to_fields())
    assert "admitted no more" in caplog.text


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_secret_that_others_can_read_is_refused(directory: Path, mode: int) -> None:
    path = directory / "worker.key"
    path.chmod(mode)
    with pytest.raises(SecurityError, match=f"chmod 600 {path}"):
        Keyring.load(directory, "worker")


def test_a_directory_that_others_can_enter_is_refused(directory: Path) -> None:
    directory.chmod(0o750)
    with pytest.raises(SecurityError, match=f"chmod 700 {directory}"):
        Keyring.load(directory, "worker")


def test_a_directory_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SecurityError, match="opencluster keys new"):
        Keyring.load(tmp_path / "nothing", "worker")


@pytest.mark.parametrize("how", ["cut", "renamed", "no secret", "a directory"])
def test_a_certificate_that_makes_no_sense_is_refused_and_not_quoted(
    directory: Path, how: str
) -> None:
    path = directory / "worker.key"
    content = path.read_text()
    secret = json.loads(content)["secret"]
    if how == "cut":
        path.write_text(content[: content.index(secret) + len(secret)])
    elif how == "renamed":
        path.rename(directory / "other.key")
    elif how == "no secret":
        path.write_text(content.replace(secret, secret[:-1]))
    else:
        path.unlink()
        path.mkdir(mode=0o700)
    with pytest.raises(SecurityError) as caught:
        Keyring.load(directory, "worker")
    assert secret[:-1] not in str(caught.value)
    assert caught.value.__cause__ is None


def test_secrets_are_not_shown(directory: Path) -> None:
    keyring = loaded(directory, "worker")
    shown = (
        f"{keyring!r} {keyring.own!r} {keyring.own} {keyring.roll!r} {vars(keyring)}"
    )
    assert keyring.own.secret_key not in shown


def test_keys_are_not_made_twice(directory: Path) -> None:
    before = {p.name: p.read_bytes() for p in directory.iterdir()}
    with pytest.raises(SecurityError, match="already"):
        make_keys(directory)
    assert {p.name: p.read_bytes() for p in directory.iterdir()} == before


def test_a_further_certificate_is_on_the_roll(directory: Path) -> None:
    path, roll = add_certificate(directory, "node7", "worker")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    mine = keyfiles.read_certificate(path)
    assert roll.credential(mine.public_key) == Credential("node7", "worker")
    assert read_roll(directory) == roll
    with pytest.raises(SecurityError, match="another name"):
        add_certificate(directory, "node7", "manager")


@pytest.mark.parametrize("name", ["", ".", "../x", "a/b", "-x", "a b", "\N{SNOWMAN}"])
def test_a_name_that_is_no_file_name_is_refused(directory: Path, name: str) -> None:
    with pytest.raises(SecurityError, match="cannot name a certificate"):
        add_certificate(directory, name, "worker")


def test_the_factories_share_one_certificate_that_cannot_be_revoked(
    directory: Path,
) -> None:
    with pytest.raises(SecurityError, match="share one"):
        add_certificate(directory, "second", "factory")
    with pytest.raises(SecurityError, match="cannot be revoked"):
        revoke_certificate(directory, "factory")


def test_the_roll_is_changed_only_where_the_keys_were_made(directory: Path) -> None:
    (directory / "factory.key").unlink()
    with pytest.raises(SecurityError, match="where the keys were made"):
        add_certificate(directory, "node7", "worker")
    with pytest.raises(SecurityError, match="where the keys were made"):
        revoke_certificate(directory, "observer")


def test_a_draft_that_was_left_behind_is_in_nobodys_way(directory: Path) -> None:
    (directory / "roll.new").write_text("half a ro")
    assert revoke_certificate(directory, "observer") == read_roll(directory)


def test_an_empty_roll_is_version_zero() -> None:
    assert Roll().version == 0


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("name", ["worker.key", "."])
def test_what_belongs_to_another_user_is_refused(directory: Path, name: str) -> None:
    os.chown(directory / name, 65534, -1)
    with pytest.raises(SecurityError, match="belongs to another user"):
        Keyring.load(directory, "worker")
