"""``opencluster keys``: made, shown, added and revoked by hand."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from cli_tools import Cli


def keys_of(cli: Cli) -> Path:
    return cli.place.path / "keys"


def secrets_in(directory: Path) -> list[str]:
    return [json.loads(p.read_text())["secret"] for p in directory.glob("*.key")]


def rows(text: str) -> dict[str, list[str]]:
    """Return the cells of what `keys show` prints, by name."""
    return {line.split()[0]: line.split()[1:] for line in text.splitlines()[1:]}


def test_new_keys_lie_in_the_clusters_directory_closed_to_others(cli: Cli) -> None:
    done = cli("keys", "new")
    assert (done.returncode, done.stdout) == (0, "")
    assert "factory.key" in done.stderr
    assert stat.S_IMODE(cli.place.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(keys_of(cli).stat().st_mode) == 0o700
    assert not any(secret in done.stderr for secret in secrets_in(keys_of(cli)))
    again = cli.here("keys", "new")
    assert again.returncode == 1
    assert "already" in again.stderr


def test_keys_elsewhere_are_used_when_the_settings_name_them(cli: Cli) -> None:
    elsewhere = cli.directory / "elsewhere"
    done = cli.here("keys", "new", "--keys", str(elsewhere))
    assert f"keys = {elsewhere}" in done.stderr
    named = {"OPENCLUSTER_CLUSTER_KEYS": str(elsewhere)}
    assert "observer" in cli.here("keys", "show", environment=named).stdout


def test_show_tells_who_is_admitted_and_no_secret(cli: Cli) -> None:
    cli.ok_here("keys", "new")
    cli.ok_here("keys", "add", "alice", "--role", "manager")
    (keys_of(cli) / "observer.key").unlink()
    cli.ok_here("keys", "revoke", "observer")
    text = cli.ok_here("keys", "show")
    found = rows(text)
    assert list(found) == [
        *("factory", "workshop", "worker", "manager", "observer", "alice"),
    ]
    assert [found["alice"][0], *found["alice"][2:]] == [
        *("manager", "admitted", "alice.key"),
    ]
    assert found["observer"][2:] == ["revoked", "-"]
    assert len({cells[1] for cells in found.values()}) == 6
    assert not any(secret in text for secret in secrets_in(keys_of(cli)))


def test_a_certificate_of_another_cluster_is_shown_as_unknown(cli: Cli) -> None:
    cli.ok_here("keys", "new")
    other = cli.directory / "other"
    cli.ok_here("keys", "new", "--keys", str(other))
    cli.ok_here("keys", "add", "eve", "--role", "manager", "--keys", str(other))
    (other / "eve.key").rename(keys_of(cli) / "eve.key")
    assert rows(cli.ok_here("keys", "show"))["eve"][2:] == ["unknown", "eve.key"]


def test_add_names_the_one_file_to_hand_over(cli: Cli) -> None:
    cli.ok_here("keys", "new")
    done = cli.here("keys", "add", "node7", "--role", "worker")
    path = keys_of(cli) / "node7.key"
    assert str(path) in done.stderr
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    taken = cli.here("keys", "add", "node7", "--role", "manager")
    assert taken.returncode == 1
    assert "another name" in taken.stderr


def test_a_revoked_name_is_never_given_again(cli: Cli) -> None:
    cli.ok_here("keys", "new")
    cli.ok_here("keys", "revoke", "manager")
    assert "already" in cli.here("keys", "revoke", "manager").stderr
    (keys_of(cli) / "manager.key").unlink()
    done = cli.here("keys", "add", "manager", "--role", "manager")
    assert done.returncode == 1
    assert rows(cli.ok_here("keys", "show"))["manager"][2] == "revoked"


@pytest.mark.parametrize(
    ("arguments", "cure"),
    [
        (["show"], "opencluster keys new"),
        (["revoke", "alice"], "opencluster keys new"),
        (["add", "alice", "--role", "manager"], "opencluster keys new"),
    ],
)
def test_without_keys_it_says_how_to_make_them(
    cli: Cli, arguments: list[str], cure: str
) -> None:
    done = cli.here("keys", *arguments)
    assert done.returncode == 1
    assert cure in done.stderr


def test_who_is_admitted_is_changed_where_the_keys_were_made(cli: Cli) -> None:
    cli.ok_here("keys", "new")
    (keys_of(cli) / "factory.key").unlink()
    done = cli.here("keys", "revoke", "observer")
    assert done.returncode == 1
    assert "where the keys were made" in done.stderr


def test_revoking_somebody_unknown_names_those_who_are_known(cli: Cli) -> None:
    cli.ok_here("keys", "new")
    done = cli.here("keys", "revoke", "eve")
    assert done.returncode == 1
    assert "factory, workshop, worker, manager, observer" in done.stderr


def test_a_secret_that_others_can_read_is_not_used(cli: Cli) -> None:
    cli.ok_here("keys", "new")
    path = keys_of(cli) / "worker.key"
    path.chmod(0o644)
    done = cli.here("keys", "show")
    assert done.returncode == 1
    assert f"chmod 600 {path}" in done.stderr
