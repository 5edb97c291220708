"""What operators do on the pages to a real cluster, and what others are refused."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sign_in import signed_in, token_of

from opencluster.config import load
from opencluster.testing import LocalCluster
from opencluster_web.accounts.guard import Role
from opencluster_web.accounts.store import AccountStore
from opencluster_web.application import WebSettings, close_app, create_app

pytestmark = pytest.mark.processes

PROGRAM = f"{Path(__file__).with_name('cluster_workers.py')}:PatientWorker"
DEADLINE_S = 60.0
DEEDS = ("restart", "stop", "kill", "interrupt", "drain", "undrain", "scale", "start")


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster({PROGRAM: 1}) as here:
        yield here


@pytest.fixture(scope="module")
def app(
    cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Flask]:
    accounts = tmp_path_factory.mktemp("accounts") / "web.db"
    app = create_app(
        WebSettings(None, config=load(), place=cluster.place, accounts=accounts)
    )
    yield app
    close_app(app)


@pytest.fixture
def operator(app: Flask) -> FlaskClient:
    return signed_in(app, Role.OPERATOR)


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def workers(cluster: LocalCluster) -> dict[str, int]:
    found = cluster.ask_factory("find", {"kind": "worker"})
    return {entry["name"]: entry["pid"] for entry in found}


def do(client: FlaskClient, name: str, **form: Any) -> str:
    """Fill in a form, and return the page on which one ends up."""
    sent = {"csrf_token": token_of(client), "next": "/workers"} | form
    answer = client.post(f"/actions/{name}", data=sent, follow_redirects=True)
    assert answer.status_code == 200
    assert answer.request.path == "/workers"
    return answer.text


def test_more_run_and_fewer_again(cluster: LocalCluster, operator: FlaskClient) -> None:
    assert "Patient: 3 on" in do(operator, "scale", subject="Patient", count="3")
    assert len(workers(cluster)) == 3
    assert "Patient: 1 on" in do(operator, "scale", subject="Patient", count="1")
    wait_until(lambda: len(workers(cluster)) == 1)


def test_a_worker_is_killed_and_replaced(
    cluster: LocalCluster, operator: FlaskClient
) -> None:
    (name, pid), *_ = workers(cluster).items()
    asked = operator.get(
        f"/actions/kill?subject={name}", headers={"Referer": "http://localhost/workers"}
    )
    assert "It ends at once." in asked.text
    assert 'name="next" value="/workers"' in asked.text
    assert f"Killed {name};" in do(operator, "kill", subject=name)
    wait_until(lambda: workers(cluster).get(name, pid) != pid)


def test_a_computer_is_drained_and_works_again(
    cluster: LocalCluster, operator: FlaskClient
) -> None:
    (shop,) = cluster.ask_factory("find", {"kind": "workshop"})
    do(operator, "drain", subject=shop["id"])
    wait_until(lambda: workers(cluster) == {})
    refused = do(operator, "scale", subject="Patient", count="2")
    assert "is drained: see" in refused
    assert f"{shop['name']} works again" in do(operator, "undrain", subject=shop["id"])
    wait_until(lambda: len(workers(cluster)) == 1)


def test_what_cannot_be_done_is_told(operator: FlaskClient) -> None:
    said = do(operator, "scale", subject="Patient", count="-1")
    assert "expected a whole number" in said
    assert "nothing named" in do(operator, "restart", subject="Loom-1").lower()
    assert operator.get("/actions/dance").status_code == 404


def test_what_was_done_is_written_down(app: Flask, operator: FlaskClient) -> None:
    do(operator, "restart", subject="Loom-1")
    store: AccountStore = app.extensions["opencluster_accounts"]
    row = store.audit.rows(limit=1)[0]
    done = (row["who"], row["action"], row["subject"])
    assert done == ("operator", "restart process", "Loom-1")
    assert row["outcome"].startswith("failed: nothing named")


@pytest.mark.parametrize("name", DEEDS)
def test_who_may_not_is_refused(
    app: Flask, cluster: LocalCluster, operator: FlaskClient, name: str
) -> None:
    before = workers(cluster)
    forged = operator.post(f"/actions/{name}", data={"subject": "Patient"})
    assert forged.status_code == 400
    observer = signed_in(app, Role.OBSERVER)
    sent = {"csrf_token": token_of(observer), "subject": next(iter(before))}
    assert observer.post(f"/actions/{name}", data=sent).status_code == 403
    assert observer.get(f"/actions/{name}").status_code == 403
    assert app.test_client().post(f"/actions/{name}", data=sent).status_code == 401
    assert workers(cluster) == before


def test_programs_are_started_by_administrators(
    app: Flask, cluster: LocalCluster, operator: FlaskClient
) -> None:
    (shop,) = cluster.ask_factory("find", {"kind": "workshop"})
    form = {"subject": shop["id"], "target": PROGRAM, "type": "Other", "count": "1"}
    sent = form | {"csrf_token": token_of(operator)}
    assert operator.post("/actions/start", data=sent).status_code == 403
    administrator = signed_in(app, Role.ADMINISTRATOR)
    assert "Started Other-1 on" in do(administrator, "start", **form)
    assert "Other-1" in workers(cluster)
    do(administrator, "stop", subject="Other-1")
    wait_until(lambda: "Other-1" not in workers(cluster))


def test_buttons_are_for_those_who_may(app: Flask, operator: FlaskClient) -> None:
    assert "/actions/kill?" in operator.get("/workers").text
    assert "/actions/" not in signed_in(app, Role.OBSERVER).get("/workers").text


@pytest.mark.parametrize(
    "elsewhere",
    [
        "//evil.example",
        "https://evil.example/",
        "/\\evil",
        "javascript:x",
        "/actions/kill",
    ],
)
def test_one_comes_back_to_our_own_pages(operator: FlaskClient, elsewhere: str) -> None:
    sent = {"csrf_token": token_of(operator), "subject": "x", "next": elsewhere}
    answer = operator.post("/actions/restart", data=sent)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")
