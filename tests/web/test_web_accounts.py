"""Accounts: who is let in, what each role may do, and what is written down of it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from click.testing import CliRunner
from flask import Flask
from flask.testing import FlaskClient
from flask.views import MethodView
from sign_in import signed_in, token_of
from werkzeug.routing import AnyConverter

from opencluster.cli import main
from opencluster.errors import AccountError
from opencluster_web.accounts.account import Account
from opencluster_web.accounts.guard import needs, role_of
from opencluster_web.accounts.roles import Role
from opencluster_web.accounts.store import AccountStore

PASSWORD = "nine antennas"
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AccountStore]:
    accounts = AccountStore(tmp_path / "web.db", CHEAP)
    yield accounts
    accounts.close()


@pytest.fixture
def anna(application: Flask) -> Account:
    """An operator with a password."""
    accounts: AccountStore = application.extensions["opencluster_accounts"]
    return accounts.people.add("anna", Role.OPERATOR, PASSWORD)


def log_in(client: FlaskClient, name: str, password: str, wanted: str = "") -> Any:
    page = client.get("/login").text
    found = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert found is not None
    form = {"name": name, "password": password, "next": wanted, "csrf_token": found[1]}
    return client.post("/login", data=form)


def audit_of(app: Flask) -> list[tuple[str, str, str, str]]:
    accounts: AccountStore = app.extensions["opencluster_accounts"]
    rows = accounts.audit.rows()
    return [(r["who"], r["action"], r["subject"], r["outcome"]) for r in rows]


# --- the store ---------------------------------------------------------------


def test_nothing_that_opens_a_door_is_kept_as_it_is(store: AccountStore) -> None:
    store.people.add("anna", Role.ADMINISTRATOR, PASSWORD)
    secrets = [PASSWORD, store.links.make("anna"), store.links.make()]
    secrets.append(store.tokens.make("anna", "a script", Role.OPERATOR)[1])
    store.close()
    kept = b"".join(p.read_bytes() for p in store.path.parent.iterdir())
    assert b"anna" in kept and b"$argon2id$" in kept
    assert not [secret for secret in secrets if secret.encode() in kept]
    assert store.path.stat().st_mode & 0o077 == 0


def test_the_right_password_of_an_open_account(store: AccountStore) -> None:
    store.people.add("anna", Role.OBSERVER, PASSWORD)
    store.people.add("bert", Role.OBSERVER)
    assert store.people.log_in("anna", PASSWORD) == store.people.find("anna")
    assert store.people.log_in("anna", PASSWORD + " ") is None
    assert store.people.log_in("bert", "") is None
    assert store.people.log_in("nobody", PASSWORD) is None
    store.people.set_open("anna", False)
    assert store.people.log_in("anna", PASSWORD) is None


@pytest.mark.parametrize("name", ["", "Anna", "anna b", "-a", "a" * 33, "a:b", "ä"])
def test_names_are_plain(store: AccountStore, name: str) -> None:
    with pytest.raises(AccountError, match="will not do as a name"):
        store.people.add(name, Role.OBSERVER)


def test_passwords_are_long_and_names_are_taken_once(store: AccountStore) -> None:
    with pytest.raises(AccountError, match="at least 10 characters"):
        store.people.add("anna", Role.OBSERVER, "short")
    with pytest.raises(AccountError, match="at most 1000 characters"):
        store.people.add("anna", Role.OBSERVER, "long" * 1000)
    store.people.add("anna", Role.OBSERVER)
    with pytest.raises(AccountError, match="already"):
        store.people.add("anna", Role.OBSERVER)
    with pytest.raises(AccountError, match="'king' is no role; there are observer"):
        Role.of("king")


@pytest.mark.parametrize(
    "change",
    [
        lambda store: store.people.remove("anna"),
        lambda store: store.people.set_open("anna", False),
        lambda store: store.people.set_role("anna", Role.OPERATOR),
    ],
)
def test_the_last_administrator_stays(
    store: AccountStore, change: Callable[[AccountStore], None]
) -> None:
    before = store.people.add("anna", Role.ADMINISTRATOR, PASSWORD)
    with pytest.raises(AccountError, match="last administrator"):
        change(store)
    assert store.people.find("anna") == before
    store.people.add("bert", Role.ADMINISTRATOR, PASSWORD)
    change(store)
    assert store.people.has_administrator


def test_a_link_opens_once_and_not_for_ever(
    store: AccountStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = store.links.make()
    assert store.links.name(secret) == "" and store.links.name(secret + "x") is None
    with pytest.raises(AccountError, match="at least 10"):
        store.links.use(secret, "anna", "short")
    with pytest.raises(AccountError, match="will not do"):
        store.links.use(secret, "Anna!", PASSWORD)
    account = store.links.use(secret, "anna", PASSWORD)
    assert account.role == Role.ADMINISTRATOR
    with pytest.raises(AccountError, match="used or is too old"):
        store.links.use(secret, "bert", PASSWORD)
    # a new one takes the place of the one before
    old, new = store.links.make("anna"), store.links.make("anna")
    assert store.links.name(old) is None and store.links.name(new) == "anna"
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 90_000)
    assert store.links.name(new) is None


def test_a_token_is_worth_no_more_than_its_owner(store: AccountStore) -> None:
    store.people.add("anna", Role.OPERATOR)
    with pytest.raises(AccountError, match="anna is operator, so no token is more"):
        store.tokens.make("anna", "a script", Role.ADMINISTRATOR)
    token, secret = store.tokens.make("anna", " a script ", Role.OPERATOR)
    assert token.note == "a script"
    found = store.tokens.bearer(secret)
    assert found is not None and found[0].name == "anna"
    assert store.tokens.bearer(secret[:-1]) is None
    with pytest.raises(AccountError, match="no token"):
        store.tokens.remove(token.id, "bert")
    store.people.set_open("anna", False)
    assert store.tokens.bearer(secret) is None
    store.people.set_open("anna", True)
    store.tokens.remove(token.id, "anna")
    assert store.tokens.bearer(secret) is None
    _, short = store.tokens.make("anna", "a test", Role.OBSERVER, valid_s=1e-9)
    assert store.tokens.bearer(short) is None


def test_the_first_link_opens_nothing_once_there_is_an_administrator(
    store: AccountStore,
) -> None:
    secret = store.links.make()
    store.people.add("anna", Role.ADMINISTRATOR)
    assert store.links.name(secret) == ""
    store.people.set_password("anna", PASSWORD)
    assert store.links.name(secret) is None
    with pytest.raises(AccountError, match="used or is too old"):
        store.links.use(secret, "bert", PASSWORD)


def test_a_closed_account_has_no_links(store: AccountStore) -> None:
    store.people.add("anna", Role.OBSERVER)
    secret = store.links.make("anna")
    store.people.set_open("anna", False)
    assert store.links.name(secret) is None
    with pytest.raises(AccountError, match="anna is closed: open it first"):
        store.links.make("anna")


def test_an_observer_can_be_removed_while_there_is_no_administrator(
    store: AccountStore,
) -> None:
    store.people.add("anna", Role.OBSERVER, PASSWORD)
    store.people.add("bert", Role.ADMINISTRATOR)
    store.people.remove("anna")
    # who has not chosen a password yet cannot see to accounts
    store.people.add("carl", Role.ADMINISTRATOR, PASSWORD)
    with pytest.raises(AccountError, match="last administrator"):
        store.people.remove("carl")
    store.people.remove("bert")


def test_a_password_is_the_same_from_every_keyboard(store: AccountStore) -> None:
    store.people.add("anna", Role.OBSERVER, "caf\u00e9 antennas")
    assert store.people.log_in("anna", "cafe\u0301 antennas") is not None


def test_a_file_that_others_may_read_is_shut(tmp_path: Path) -> None:
    path = tmp_path / "web.db"
    path.touch(mode=0o644)
    path.chmod(0o644)
    AccountStore(path, CHEAP).close()
    assert path.stat().st_mode & 0o077 == 0


def test_accounts_that_cannot_be_kept_are_named(tmp_path: Path) -> None:
    (tmp_path / "web.db").mkdir()
    with pytest.raises(AccountError, match=r"web\.db"):
        AccountStore(tmp_path / "web.db", CHEAP)
    (tmp_path / "other.db").write_bytes(b"this is no database, " * 100)
    with pytest.raises(AccountError, match=r"other\.db"):
        AccountStore(tmp_path / "other.db", CHEAP)


# --- doors -------------------------------------------------------------------


def test_who_is_not_known_sees_the_door_alone(anonymous: FlaskClient) -> None:
    app = anonymous.application
    open_to_all = {"accounts.log_in", "accounts.log_out", "accounts.welcome"}
    open_to_all |= {"assets.bokeh_file", "static", "bootstrap.static"}
    open_to_all |= {"probes.healthz", "probes.metrics"}
    adapter = app.url_map.bind("localhost")
    for rule in app.url_map.iter_rules():
        if rule.endpoint in open_to_all:
            continue
        values = dict.fromkeys(rule.arguments, "1") | dict(rule.defaults or {})
        for name, converter in rule._converters.items():
            if isinstance(converter, AnyConverter):
                values[name] = sorted(converter.items)[0]
        address = adapter.build(rule.endpoint, values)
        if "GET" in (rule.methods or ()):
            answer = anonymous.get(address)
            if address.startswith("/api/"):
                assert answer.status_code == 401, address
            else:
                assert answer.status_code == 302, address
                assert answer.location.startswith("/login?next="), address
        for method in {"POST", "PUT", "PATCH", "DELETE"} & set(rule.methods or ()):
            answer = anonymous.open(address, method=method)
            assert answer.status_code in (401, 400), (method, address)


def test_logging_in_leads_where_somebody_wanted_to(
    anonymous: FlaskClient, anna: Account
) -> None:
    assert anonymous.get("/workers?type=A").location == "/login?next=/workers?type%3DA"
    answer = log_in(anonymous, "Anna ", PASSWORD, "/workers?type=A")
    assert answer.status_code == 302 and answer.location == "/workers?type=A"
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie
    assert anonymous.get("/workers").status_code == 200
    assert anonymous.get("/users").status_code == 403
    done = audit_of(anonymous.application)
    assert done[0] == ("anna", "log in", "anna", "done")


@pytest.mark.parametrize(
    "wanted",
    [
        "https://evil.example/",
        "//evil.example",
        "//[",
        "/\\evil.example",
        "/\t/evil.example",
        "\\\\evil",
        "evil",
    ],
)
def test_logging_in_leads_nowhere_else(
    anonymous: FlaskClient, anna: Account, wanted: str
) -> None:
    assert log_in(anonymous, "anna", PASSWORD, wanted).location == "/"


def test_a_wrong_password_says_nothing_of_names(
    anonymous: FlaskClient, anna: Account
) -> None:
    wrong = log_in(anonymous, "anna", "wrong password")
    unknown = log_in(anonymous, "my own password", "wrong password")
    assert wrong.status_code == unknown.status_code == 401
    said = "This name and password do not belong together."
    assert said in wrong.text and said in unknown.text
    assert [row[2:] for row in audit_of(anonymous.application)] == [
        ("a name that is not known", "refused: wrong name or password"),
        ("anna", "refused: wrong name or password"),
    ]


def test_passwords_cannot_be_tried_without_end(
    anonymous: FlaskClient, anna: Account
) -> None:
    codes = [log_in(anonymous, "anna", "x").status_code for _ in range(11)]
    assert codes == [401] * 10 + [429]
    # and the right one is not found meanwhile, however the name is written
    refused = log_in(anonymous, " ANNA", PASSWORD)
    assert refused.status_code == 429
    assert "wait five minutes" in refused.text
    assert log_in(anonymous, "anna", PASSWORD).status_code == 429


def test_a_log_in_begins_a_session_of_its_own(
    anonymous: FlaskClient, anna: Account
) -> None:
    with anonymous.session_transaction() as before:
        before["left by somebody"] = "else"
    log_in(anonymous, "anna", PASSWORD)
    with anonymous.session_transaction() as session:
        assert "left by somebody" not in session


def test_a_session_that_was_left_opens_nothing(
    anonymous: FlaskClient, anna: Account
) -> None:
    log_in(anonymous, "anna", PASSWORD)
    with anonymous.session_transaction() as session:
        copy = dict(session)
    elsewhere = signed_in(anonymous.application, Role.OPERATOR, "anna")
    anonymous.post("/logout", data={"csrf_token": token_of(anonymous)})
    with anonymous.session_transaction() as session:
        session.update(copy)
    assert anonymous.get("/account").status_code == 302
    assert elsewhere.get("/account").status_code == 200


def test_a_session_is_over_after_its_hours(
    application: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = signed_in(application, Role.OBSERVER)
    now = time.time()
    lasts_s = application.permanent_session_lifetime.total_seconds()
    monkeypatch.setattr(time, "time", lambda: now + lasts_s - 60)
    assert client.get("/account").status_code == 200
    # a page that is open all the time does not make it longer
    monkeypatch.setattr(time, "time", lambda: now + lasts_s + 60)
    assert client.get("/account").status_code == 302


def test_what_a_page_asks_for_by_itself_is_refused(anonymous: FlaskClient) -> None:
    for mode, code in (("navigate", 302), ("cors", 401), ("no-cors", 401)):
        answer = anonymous.get("/", headers={"Sec-Fetch-Mode": mode})
        assert answer.status_code == code


def test_what_changes_something_is_marked(application: Flask) -> None:
    for rule in application.url_map.iter_rules():
        view = application.view_functions[rule.endpoint]
        for method in {"POST", "PUT", "PATCH", "DELETE"} & set(rule.methods or ()):
            handler = getattr(getattr(view, "view_class", None), method.lower(), None)
            marks = (getattr(each, "opencluster_role", 0) for each in (handler, view))
            assert any(mark != 0 for mark in marks), (method, rule.rule)


def test_what_is_forgotten_is_shut(application: Flask) -> None:
    class Both(MethodView):
        @needs(Role.ADMINISTRATOR)
        def get(self) -> str:
            return "secret"

        def post(self) -> str:
            return "done"

    application.add_url_rule("/both", view_func=Both.as_view("both"))
    application.add_url_rule("/ecstatic", "ecstatic", lambda: "seen")
    with application.app_context():
        assert role_of("both", "GET") == Role.ADMINISTRATOR
        assert role_of("both", "HEAD") == Role.ADMINISTRATOR
        assert role_of("both", "POST") == Role.OPERATOR
        assert role_of("ecstatic", "GET") == Role.OBSERVER
        assert role_of("static", "GET") is None


def test_a_form_from_elsewhere_does_nothing(
    as_administrator: FlaskClient, anna: Account
) -> None:
    for address in ("/users", "/users/anna/remove", "/logout", "/account/password"):
        assert as_administrator.post(address).status_code == 400
        forged = as_administrator.post(address, data={"csrf_token": "x"})
        assert forged.status_code == 400
    assert as_administrator.get("/account").status_code == 200
    accounts: AccountStore = as_administrator.application.extensions[
        "opencluster_accounts"
    ]
    assert accounts.people.find("anna") is not None


@pytest.mark.parametrize("change", ["close", "out", "role", "remove"])
def test_sessions_end_when_an_account_changes(
    application: Flask, as_administrator: FlaskClient, change: str
) -> None:
    other = signed_in(application, Role.OPERATOR, "bert")
    assert other.get("/account").status_code == 200
    form = {"csrf_token": token_of(as_administrator), "role": "observer"}
    assert as_administrator.post(f"/users/bert/{change}", data=form).status_code == 302
    assert other.get("/account").status_code == 302
    assert as_administrator.get("/account").status_code == 200


def test_another_password_ends_all_other_sessions(
    application: Flask, anna: Account
) -> None:
    here, there = application.test_client(), application.test_client()
    for client in (here, there):
        log_in(client, "anna", PASSWORD)
    form = {"csrf_token": token_of(here), "password": "x" * 12, "again": "x" * 12}
    here.post("/account/password", data=form | {"old": "wrong"})
    assert there.get("/account").status_code == 200
    here.post("/account/password", data=form | {"old": PASSWORD, "again": "y"})
    assert there.get("/account").status_code == 200
    here.post("/account/password", data=form | {"old": PASSWORD})
    assert here.get("/account").status_code == 200
    assert there.get("/account").status_code == 302
    outcomes = [row[3] for row in audit_of(application) if row[1] == "change password"]
    assert outcomes == [
        "done",
        "failed: the two passwords differ",
        "failed: the old password is another one",
    ]


def test_a_link_makes_the_first_administrator(anonymous: FlaskClient) -> None:
    accounts: AccountStore = anonymous.application.extensions["opencluster_accounts"]
    address = f"/welcome/{accounts.links.make()}"
    assert anonymous.get("/welcome/nothing").status_code == 410
    page = anonymous.get(address).text
    found = re.search(r'name="csrf_token" value="([^"]+)"', page)
    assert found is not None
    form = {"csrf_token": found[1], "name": "root", "password": PASSWORD}
    assert anonymous.post(address, data=form | {"again": "x"}).status_code == 400
    answer = anonymous.post(address, data=form | {"again": PASSWORD})
    assert answer.status_code == 302 and answer.location == "/"
    assert anonymous.get("/users").status_code == 200
    assert anonymous.get(address).status_code == 410


def test_an_administrator_makes_accounts_with_links(
    as_administrator: FlaskClient,
) -> None:
    form = {"csrf_token": token_of(as_administrator), "name": "carl"}
    page = as_administrator.post("/users", data=form | {"role": "operator"}).text
    link = re.search(r"http://localhost(/welcome/[\w-]+)", page)
    assert link is not None
    newcomer = as_administrator.application.test_client()
    assert "Choose a password for <strong>carl</strong>" in newcomer.get(link[1]).text
    bad = as_administrator.post(
        "/users", data=form | {"role": "king"}, follow_redirects=True
    )
    assert "&#39;king&#39; is no role" in bad.text


# --- roles and programs ------------------------------------------------------


def test_each_role_may_what_it_may(
    as_observer: FlaskClient, as_operator: FlaskClient, as_administrator: FlaskClient
) -> None:
    clients = (as_observer, as_operator, as_administrator)
    for address, codes in {
        "/": (200, 200, 200),
        "/audit": (403, 200, 200),
        "/users": (403, 403, 200),
    }.items():
        assert tuple(c.get(address).status_code for c in clients) == codes
    refused = as_observer.get("/users")
    assert "This needs the role administrator; you are observer." in refused.text


def test_a_program_shows_a_token(application: Flask, anna: Account) -> None:
    accounts: AccountStore = application.extensions["opencluster_accounts"]
    _, secret = accounts.tokens.make("anna", "a script", Role.OBSERVER)
    client = application.test_client()
    headers = {"Authorization": f"Bearer {secret}"}
    # no cluster is there: that is told to those who may know
    assert client.get("/api/v1/status", headers=headers).status_code == 503
    assert client.get("/api/v1/status").status_code == 401
    wrong = client.get("/api/v1/status", headers={"Authorization": "Bearer oc_x"})
    assert wrong.status_code == 401
    assert wrong.headers["WWW-Authenticate"] == 'Bearer realm="opencluster"'
    assert "Authorization: Bearer" in wrong.get_json()["error"]["message"]
    # pages are for people
    assert client.get("/workers", headers=headers).status_code == 302


def test_a_token_is_shown_once(application: Flask, anna: Account) -> None:
    client = signed_in(application, Role.OPERATOR, "anna")
    form = {"csrf_token": token_of(client), "note": "a script", "days": "90"}
    page = client.post("/account/tokens", data=form | {"role": "operator"}).text
    secret = re.search(r"oc_[\w-]{40,}", page)
    assert secret is not None
    accounts: AccountStore = application.extensions["opencluster_accounts"]
    assert accounts.tokens.bearer(secret[0]) is not None
    later = client.get("/account").text
    assert "a script" in later and secret[0] not in later
    more = client.post(
        "/account/tokens", data=form | {"role": "administrator"}, follow_redirects=True
    )
    assert "no token is more" in more.text
    token = accounts.tokens.of("anna")[0]
    client.post(f"/account/tokens/{token.id}/remove", data=form)
    assert accounts.tokens.bearer(secret[0]) is None


# --- on the command line -----------------------------------------------------


def test_accounts_are_made_on_the_command_line(tmp_path: Path) -> None:
    def run(*arguments: str, said: str = "") -> str:
        argv = ["web", "--dir", str(tmp_path / "cluster"), *arguments]
        done = CliRunner().invoke(main, argv, input=said, standalone_mode=False)
        assert done.exception is None, done.output
        return done.output

    twice = f"{PASSWORD}\n{PASSWORD}\n"
    assert "may log in as administrator" in run(
        "adduser", "anna", "--role", "administrator", said=twice
    )
    assert "/welcome/" in run("adduser", "bert", "--link")
    listed = run("users").splitlines()
    assert [line.split() for line in listed] == [
        ["anna", "administrator", "open"],
        ["bert", "observer", "waits", "for", "a", "password"],
    ]
    secret = run("token", "anna", "--for", "a script", "--role", "operator").strip()
    run("passwd", "anna", said=twice)
    run("deluser", "bert")
    store = AccountStore(tmp_path / "cluster" / "web.db")
    found = store.tokens.bearer(secret)
    assert found is not None and found[1].role == Role.OPERATOR
    assert [each.name for each in store.people.all()] == ["anna"]
    noted = [(row["via"], row["action"], row["subject"]) for row in store.audit.rows()]
    assert noted == [
        ("command", "remove account", "bert"),
        ("command", "change password", "anna"),
        ("command", "make token", "a script"),
        ("command", "make one-time link", "bert"),
        ("command", "add account", "bert"),
        ("command", "add account", "anna"),
    ]
    store.close()
