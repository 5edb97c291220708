"""Who gets what from a factory with keys: real second clients over real sockets."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from security_site import KeyedManager
from security_tools import (
    REFUSED_S,
    Client,
    RunningFactory,
    WireTap,
    keys_named,
    loaded,
    secrets_of,
    self_made,
    settings,
    wait_until,
)

from opencluster import WorkPiece
from opencluster.cli import main
from opencluster.core.entries import Entry
from opencluster.core.epochs import NO_EPOCH, Epoch
from opencluster.core.factory_messages import Resign, to_fields
from opencluster.core.roll import Roll
from opencluster.engines.cluster import ClusterEngine
from opencluster.errors import FactoryUnreachable, NoSuitableWorker, RequestRefused
from opencluster.net import keyfiles
from opencluster.net.heart import HEART_PREFIX, Heart
from opencluster.net.keyfiles import (
    add_certificate,
    make_certificate,
    read_roll,
    revoke_certificate,
)
from opencluster.net.keys import Keyring
from opencluster.place import Place
from opencluster.wire import frames, kinds

Clients = Callable[..., Client]


# --- who gets in ---------------------------------------------------------------


def test_everyone_with_a_certificate_may_look(clients: Clients) -> None:
    for role in ("factory", "workshop", "worker", "manager", "observer"):
        assert clients(role).ask("find") == []
        assert clients(role).ask("status")["factories"][0]["role"] == "leader"


def test_one_without_a_key_gets_nowhere(
    factory: RunningFactory, clients: Clients, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = clients(None)
    with pytest.raises(FactoryUnreachable, match=r"wants keys.*\[cluster\] keys"):
        stranger.ask("find", REFUSED_S)
    wait_until(lambda: factory.counts.rejected_handshakes)
    assert "wants keys" in caplog.text


def test_a_manager_without_keys_learns_why_there_are_no_workers(
    factory: RunningFactory, tmp_path: Path
) -> None:
    config = settings(
        cluster__factories=factory.endpoint, manager__worker_wait_s=str(REFUSED_S)
    )
    manager = KeyedManager(ClusterEngine(config, Place(tmp_path / "bare")))
    try:
        with pytest.raises(NoSuitableWorker, match="wants keys"):
            manager.submit("Square", WorkPiece()).result()
        with pytest.raises(NoSuitableWorker, match="wants keys"):
            manager.get_available_workers("Square")
    finally:
        manager.engine.close()


def test_one_with_a_revoked_key_gets_nowhere(
    factory: RunningFactory,
    clients: Clients,
    directory: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = loaded(directory, "manager")
    revoke_certificate(directory, "manager")
    revoked = clients(Keyring(before.own, before.roll))
    wait_until(lambda: factory.counts.rejected_credentials)
    with pytest.raises(FactoryUnreachable, match="does not admit .* it is revoked"):
        revoked.ask("find", REFUSED_S)
    assert "certificate 'manager', revoked" in caplog.text
    assert "does not admit the certificate" in caplog.text


@pytest.mark.parametrize("role", ["factory", "manager", "observer"])
def test_one_who_made_a_key_for_himself_gets_nowhere(
    factory: RunningFactory, clients: Clients, directory: Path, role: str
) -> None:
    known = loaded(directory, "observer")
    mallory = clients(self_made(role, known.roll, known.factory_key))
    wait_until(lambda: factory.counts.rejected_credentials)
    with pytest.raises(FactoryUnreachable, match="not on the roll there"):
        mallory.ask("find", REFUSED_S)


def test_the_name_of_another_on_ones_own_key_helps_nobody(
    factory: RunningFactory, clients: Clients, directory: Path
) -> None:
    known = loaded(directory, "manager")
    own = make_certificate("factory", "factory", known.factory_key)
    mallory = clients(Keyring(own, Roll(99, known.roll.holders)))
    wait_until(lambda: factory.counts.rejected_credentials)
    with pytest.raises(FactoryUnreachable):
        mallory.ask("enroll", REFUSED_S, roll=Roll(99).to_fields())


# --- what a role allows ----------------------------------------------------------


@pytest.mark.parametrize("role", ["observer", "manager"])
@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        ("register", {"entries": [Entry("x", "worker").to_fields()]}),
        ("renew", {"ids": ["x"]}),
        ("deregister", {"id": "x"}),
        ("enroll", {"roll": Roll(99).to_fields()}),
    ],
)
def test_who_only_looks_or_commands_changes_nothing(
    clients: Clients, role: str, operation: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(RequestRefused, match=f"{role} may not .*needs"):
        clients(role).ask(operation, **arguments)
    assert clients("observer").ask("find") == []


@pytest.mark.parametrize("role", ["worker", "workshop", "manager", "observer"])
def test_nobody_but_a_factory_says_who_is_admitted(
    clients: Clients, factory: RunningFactory, role: str
) -> None:
    version = factory.keys.version
    with pytest.raises(RequestRefused, match="needs a factory's key"):
        clients(role).ask("enroll", roll=Roll(version + 1).to_fields())
    assert factory.keys.version == version


def test_an_observer_reports_no_job(clients: Clients) -> None:
    with pytest.raises(RequestRefused, match="an observer may not report a job"):
        clients("observer").ask("job", job={"id": "j"})
    clients("manager").ask("job", job={"id": "j", "state": "running"})
    assert [job["id"] for job in clients("observer").ask("status")["jobs"]] == ["j"]


@pytest.mark.parametrize("role", ["observer", "worker", "workshop"])
def test_only_a_managers_key_orders_something_for_a_job(
    clients: Clients, role: str
) -> None:
    clients("manager").ask("job", job={"id": "j", "state": "running"})
    with pytest.raises(RequestRefused, match="needs a manager's key"):
        clients(role).ask("order_job", id="j", order="cancel")
    order = {"id": "j", "order": "cancel", "by": "ann"}
    answer = clients("manager").ask("order_job", **order)
    assert answer["orders"]["cancel"]["by"] == "ann (with the key manager)"


def test_a_manager_cannot_change_what_another_reports_of_its_job(
    directory: Path, clients: Clients
) -> None:
    add_certificate(directory, "eve", "manager")
    eve = clients(keys_named(directory, "eve", "manager"))
    clients("manager").ask("job", job={"id": "j", "state": "running"})
    with pytest.raises(RequestRefused, match="job j is another's"):
        eve.ask("job", job={"id": "j", "state": "done", "owner": "manager"})
    clients("manager").ask("job", job={"id": "j", "state": "failed"})
    (job,) = eve.ask("status")["jobs"]
    assert (job["state"], job["owner"]) == ("failed", "manager")


def test_an_observer_ends_no_leadership_by_what_it_says_of_another(
    factory: RunningFactory, clients: Clients
) -> None:
    observer = clients("observer")
    observer.ask("find")
    before = factory.factory.epoch
    newer = Epoch(before.number + 1, 5, 7)
    answer = observer.ask("hello", epoch=newer)
    assert (answer["role"], Epoch.from_fields(answer["epoch"])) == ("leader", before)
    # as those who register may: they alone remember what all factories have lost
    clients("worker").ask("hello", epoch=newer)
    wait_until(lambda: factory.factory.epoch.number > newer.number)


def test_an_operation_that_does_not_exist_is_refused_to_everyone(
    clients: Clients,
) -> None:
    for role in ("factory", "manager", "observer"):
        with pytest.raises(RequestRefused, match="no such request"):
            clients(role).ask("explode")


# --- whose an entry is -------------------------------------------------------------


@pytest.fixture
def two_workers(directory: Path, clients: Clients) -> tuple[Client, Client]:
    """Return two workers with a certificate each."""
    for name in ("ann", "bob"):
        add_certificate(directory, name, "worker")
    ann, bob = (clients(keys_named(directory, n, "worker")) for n in ("ann", "bob"))
    ann.register("ann-1", name="Word-1", type="Word")
    return ann, bob


def test_a_worker_cannot_take_anothers_name(
    two_workers: tuple[Client, Client],
) -> None:
    ann, bob = two_workers
    with pytest.raises(RequestRefused, match="the name Word-1 belongs to"):
        bob.register("bob-1", name="Word-1", type="Word")
    bob.register("bob-1", name="Word-2", type="Word")
    assert {e["id"] for e in ann.ask("find")} == {"ann-1", "bob-1"}


def test_a_worker_cannot_change_or_take_out_anothers_entry(
    two_workers: tuple[Client, Client],
) -> None:
    ann, bob = two_workers
    before = ann.ask("find")
    with pytest.raises(RequestRefused, match="no other may change"):
        bob.register("ann-1", name="Word-1", type="Word")
    with pytest.raises(RequestRefused, match="no other may change"):
        bob.ask("deregister", id="ann-1")
    assert bob.ask("renew", ids=["ann-1"])["unknown"] == ["ann-1"]
    assert ann.ask("find") == before
    assert before[0]["owner"] == "ann"
    assert ann.ask("renew", ids=["ann-1"])["unknown"] == []
    ann.ask("deregister", id="ann-1")
    assert ann.ask("find") == []


def test_a_worker_cannot_pretend_to_own_what_it_registers_for_another(
    two_workers: tuple[Client, Client],
) -> None:
    _, bob = two_workers
    bob.register("bob-1", owner="ann")
    (entry,) = (e for e in bob.ask("find") if e["id"] == "bob-1")
    assert entry["owner"] == "bob"


def test_a_worker_cannot_register_the_key_of_another(
    two_workers: tuple[Client, Client],
) -> None:
    ann, bob = two_workers
    with pytest.raises(RequestRefused, match="public key of its own"):
        bob.register("bob-1", public_key=ann.public_key)


def test_a_worker_cannot_speak_for_a_computer(
    two_workers: tuple[Client, Client],
) -> None:
    _, bob = two_workers
    for fields in (
        {"kind": "workshop"},
        {"kind": "failure"},
        {"workshop": "the workshop of node7"},
    ):
        with pytest.raises(RequestRefused, match="needs a workshop's key"):
            bob.register("bob-1", **fields)


def test_the_heart_of_a_worker_keeps_nobody_elses_lease(
    directory: Path, tmp_path: Path
) -> None:
    add_certificate(directory, "ann", "worker")
    running = RunningFactory(
        directory, tmp_path / "quick", cluster__lease_s="1", factory__max_entries="9"
    )
    ann = Client(running.endpoint, keys_named(directory, "ann", "worker"))
    worker = Client(running.endpoint, loaded(directory, "worker"))
    hearts = [
        Heart(HEART_PREFIX + b"ann-1", keys_named(directory, "ann", "worker")),
        Heart(HEART_PREFIX + b"ann-2", loaded(directory, "worker")),
    ]
    try:
        attributes = {"has_heart": True}
        ann.register("ann-1", attributes=attributes)
        ann.register("ann-2", attributes=attributes)
        for heart in hearts:
            heart.beat_for(running.endpoint)
            heart.start()
        # of both only the first is kept alive: the second beats with another's key
        wait_until(lambda: {e["id"] for e in worker.ask("find")} == {"ann-1"})
        assert worker.ask("find") != []
    finally:
        for heart in hearts:
            heart.stop()
        ann.close()
        worker.close()
        running.stop()


# --- who speaks as a factory ---------------------------------------------------------


@pytest.mark.parametrize("role", ["manager", "worker", "workshop", "observer"])
def test_nobody_else_speaks_as_a_factory(
    clients: Clients, factory: RunningFactory, role: str
) -> None:
    impostor = clients(role)
    message = to_fields(Resign(9, NO_EPOCH))
    for header in (
        frames.pack(kinds.FACTORY, "tcp://10.0.0.1:9100", message, 99),
        frames.pack(kinds.REPLY, 1, True, Roll(99).to_fields()),
    ):
        impostor.send(factory.endpoint, header, factory.keys.own.public_key)
    wait_until(lambda: factory.counts.rejected_credentials == 2)
    assert factory.factory._fellows._heard == {}


@pytest.mark.parametrize("role", ["manager", "observer", "factory"])
def test_a_pulse_from_who_has_no_heart_is_refused(
    clients: Clients, factory: RunningFactory, role: str
) -> None:
    clients(role).send(
        factory.endpoint, frames.pack(kinds.PULSE), factory.keys.own.public_key
    )
    wait_until(lambda: factory.counts.rejected_credentials == 1)


@pytest.mark.parametrize("role", ["manager", "observer", "factory"])
def test_a_heartbeat_from_who_registers_nothing_is_refused(
    clients: Clients, factory: RunningFactory, role: str
) -> None:
    clients("worker").register("w1")
    header = frames.pack(kinds.RENEW, ["w1"], b"")
    clients(role).send(factory.endpoint, header, factory.keys.own.public_key)
    wait_until(lambda: factory.counts.rejected_credentials == 1)


def test_a_heartbeat_renews_nothing_of_another(
    two_workers: tuple[Client, Client], factory: RunningFactory
) -> None:
    ann, bob = two_workers
    told: list[Any] = []
    bob.link._on_forgotten = told.append
    record = factory.factory.registry._records["ann-1"]
    before = record.expires_at
    bob.ask("find")
    bob.link.tell(frames.pack(kinds.RENEW, ["ann-1"], b""))
    # as if it were not there
    wait_until(lambda: told == [["ann-1"]])
    assert record.expires_at == before
    ann.link.tell(frames.pack(kinds.RENEW, ["ann-1"], b""))
    wait_until(lambda: record.expires_at > before)


def test_one_who_listens_where_a_factory_should_be_is_not_believed(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # a member of the cluster, and yet no factory
    fake = Client("", loaded(directory, "manager"), listen="tcp://127.0.0.1:0")
    asker = Client(fake.endpoint, loaded(directory, "worker"))
    try:
        with pytest.raises(FactoryUnreachable, match="another key than was expected"):
            asker.ask("find", REFUSED_S)
        assert "another key than was expected" in caplog.text
    finally:
        asker.close()
        fake.close()


def test_a_factory_without_keys_is_not_believed_by_who_has_some(
    directory: Path, tmp_path: Path
) -> None:
    running = RunningFactory(None, tmp_path / "bare")
    worker = Client(running.endpoint, loaded(directory, "worker"))
    try:
        with pytest.raises(FactoryUnreachable, match="has no keys"):
            worker.ask("find", REFUSED_S)
        assert worker.transport.counts.rejected_handshakes
    finally:
        worker.close()
        running.stop()


# --- revoking -----------------------------------------------------------------------


def test_revoking_cuts_off_who_follows_the_registry_already(
    factory: RunningFactory, clients: Clients, directory: Path
) -> None:
    watcher, other, worker = clients("observer"), clients("manager"), clients("worker")
    for one in (watcher, other):
        one.link.subscribe(one.deltas.append)
    worker.register("early")
    wait_until(lambda: watcher.here() == other.here() == {"early"})
    revoke_certificate(directory, "observer")
    wait_until(lambda: factory.keys.roll.holder("observer").is_revoked)
    worker.register("late")
    wait_until(lambda: other.here() == {"early", "late"})
    assert watcher.here() == {"early"}
    with pytest.raises(FactoryUnreachable):
        # its connection stands, and nothing that it says is heard
        watcher.ask("status", REFUSED_S)
    wait_until(lambda: factory.counts.rejected_credentials)
    # who is not meant goes on, over the connection that stood
    assert other.ask("find") != []


def test_what_a_revoked_worker_has_registered_leaves_when_its_lease_ends(
    directory: Path, tmp_path: Path
) -> None:
    add_certificate(directory, "ann", "worker")
    running = RunningFactory(directory, tmp_path / "quick", cluster__lease_s="1")
    ann = Client(running.endpoint, keys_named(directory, "ann", "worker"))
    watcher = Client(running.endpoint, loaded(directory, "observer"))
    try:
        ann.register("ann-1")
        revoke_certificate(directory, "ann")

        def is_gone() -> bool:
            ann.link.tell(frames.pack(kinds.RENEW, ["ann-1"], b""))
            return watcher.ask("find") == []

        wait_until(is_gone)
    finally:
        ann.close()
        watcher.close()
        running.stop()


def test_a_factory_gives_a_new_roll_and_takes_no_older_one(
    factory: RunningFactory, clients: Clients, directory: Path
) -> None:
    chief = clients("factory")
    old = factory.keys.roll
    new = old.without("observer")
    assert chief.ask("enroll", roll=new.to_fields()) == new.version
    assert chief.ask("enroll", roll=old.to_fields()) == new.version
    assert Roll.from_fields(clients("manager").ask("roll")) == new
    assert read_roll(directory) == new
    with pytest.raises(RequestRefused, match="roll"):
        chief.ask("enroll", roll={"version": "new"})


def test_who_has_an_older_roll_gets_the_newer_one_and_keeps_it(
    factory: RunningFactory, directory: Path, tmp_path: Path
) -> None:
    far = tmp_path / "far"
    far.mkdir(mode=0o700)
    (far / "manager.key").write_bytes((directory / "manager.key").read_bytes())
    (far / "manager.key").chmod(0o600)
    keys = loaded(far, "manager")
    assert keys.version == 0
    manager = Client(factory.endpoint, keys)
    try:
        wait_until(lambda: keys.roll == factory.keys.roll)
        wait_until(lambda: (far / "roll").exists() and read_roll(far) == keys.roll)
        manager.link.subscribe(manager.deltas.append)
        # once it stands, the beats tell it of the next one
        revoke_certificate(directory, "observer")
        wait_until(lambda: keys.roll.holder("observer").is_revoked)
    finally:
        manager.close()


@pytest.fixture
def three(directory: Path, tmp_path: Path) -> Iterator[list[RunningFactory]]:
    """Yield three factories, each with a directory of keys of its own."""
    names = tuple(f"ipc://{tmp_path}/f{number}" for number in range(3))
    running = []
    for number, name in enumerate(names):
        own = tmp_path / f"keys-{number}"
        own.mkdir(mode=0o700)
        for path in (directory / "factory.key", directory / "roll"):
            (own / path.name).write_bytes(path.read_bytes())
            (own / path.name).chmod(0o600)
        running.append(RunningFactory(own, tmp_path / f"s{number}", name, names))
    yield running
    for one in running:
        one.stop()


def test_a_new_roll_goes_from_factory_to_factory(
    three: list[RunningFactory], directory: Path, tmp_path: Path
) -> None:
    chief = Client(three[0].endpoint, loaded(directory, "factory"))
    try:
        new = three[0].keys.roll.without("observer")
        chief.ask("enroll", roll=new.to_fields())
        wait_until(lambda: all(running.keys.roll == new for running in three))
        # a roll holds before it is on disk
        files = [tmp_path / f"keys-{n}" for n in range(3)]
        wait_until(lambda: all(read_roll(f).version == new.version for f in files))
    finally:
        chief.close()


def test_changes_that_two_operators_make_apart_all_hold(
    directory: Path, factory: RunningFactory, tmp_path: Path, clients: Clients
) -> None:
    second = tmp_path / "second"
    shutil.copytree(directory, second)
    # one while nobody could be told, and one that the factory heard of
    revoke_certificate(second, "observer")
    clients("factory").ask(
        "enroll", roll=factory.keys.roll.without("manager").to_fields()
    )
    arguments = ["keys", "revoke", "worker", "--keys", str(second)]
    environment = {"OPENCLUSTER_CLUSTER_FACTORIES": factory.endpoint}
    done = CliRunner().invoke(main, arguments, env=environment)
    assert done.exit_code == 0, done.output
    roll = factory.keys.roll
    revoked = {holder.name for holder in roll.holders if holder.is_revoked}
    assert revoked == {"observer", "manager", "worker"}
    assert read_roll(second) == roll


def test_changes_that_two_operators_make_at_once_all_hold(
    directory: Path,
    factory: RunningFactory,
    tmp_path: Path,
    clients: Clients,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    second = tmp_path / "second"
    shutil.copytree(directory, second)
    chief = clients("factory")
    revoke = keyfiles.revoke_certificate

    def revoke_while_another_does(where: Path, name: str) -> Roll:
        others = factory.keys.roll.without("manager")
        chief.ask("enroll", roll=others.to_fields())
        return revoke(where, name)

    monkeypatch.setattr(keyfiles, "revoke_certificate", revoke_while_another_does)
    arguments = ["keys", "revoke", "worker", "--keys", str(second)]
    environment = {"OPENCLUSTER_CLUSTER_FACTORIES": factory.endpoint}
    done = CliRunner().invoke(main, arguments, env=environment)
    assert done.exit_code == 0, done.output
    roll = factory.keys.roll
    revoked = {holder.name for holder in roll.holders if holder.is_revoked}
    assert revoked == {"manager", "worker"}
    assert read_roll(second) == roll


# --- what is captured ------------------------------------------------------


@pytest.fixture
def tap(factory: RunningFactory) -> Iterator[WireTap]:
    made = WireTap(factory.endpoint)
    yield made
    made.close()


def test_what_was_captured_says_nothing_and_does_nothing_on_a_new_connection(
    factory: RunningFactory, clients: Clients, tap: WireTap
) -> None:
    worker = clients("worker", tap.endpoint)
    worker.register("w1", name="a-telling-name")
    worker.ask("deregister", id="w1")
    assert not any(b"telling" in chunk for chunk in tap.said)
    before = factory.factory.registry.revision
    rejected = factory.counts.rejected_handshakes
    tap.say_again_on_a_new_connection()
    wait_until(lambda: factory.counts.rejected_handshakes > rejected)
    assert clients("observer").ask("find") == []
    assert factory.factory.registry.revision == before


def test_what_was_captured_does_nothing_on_the_connection_it_came_by(
    factory: RunningFactory, clients: Clients, tap: WireTap
) -> None:
    worker = clients("worker", tap.endpoint)
    worker.ask("find")
    quiet = len(tap.said)
    worker.register("w1")
    register = b"".join(tap.said[quiet:])
    worker.ask("deregister", id="w1")
    before = factory.factory.registry.revision
    rejected = factory.counts.rejected_handshakes
    tap.say_again_at_once(register)
    # libzmq sees the old nonce, hears no more on this connection, and ends it
    wait_until(lambda: factory.counts.rejected_handshakes > rejected)
    assert clients("observer").ask("find") == []
    assert factory.factory.registry.revision == before


# --- what is never told ---------------------------------------------------


def test_no_secret_is_logged_or_told(
    factory: RunningFactory,
    clients: Clients,
    directory: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    worker = clients("worker")
    worker.register("w1")
    with pytest.raises(RequestRefused):
        clients("observer").ask("deregister", id="w1")
    stranger = clients(None)
    with pytest.raises(FactoryUnreachable):
        stranger.ask("find", REFUSED_S)
    revoke_certificate(directory, "observer")
    told = [clients("manager").ask(what) for what in ("status", "find", "roll")]
    shown = f"{caplog.text} {told} {factory.keys!r} {vars(factory.factory)}"
    assert not any(secret in shown for secret in secrets_of(directory))


def test_a_setting_names_the_keys_and_holds_none(directory: Path) -> None:
    config = settings(cluster__keys=str(directory))
    texts = [row.text for row in config.rows()]
    assert str(directory) in texts
    assert not any(secret in text for secret in secrets_of(directory) for text in texts)
