"""The interface for programs, against a real cluster: what its document promises."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from sign_in import signed_in

from opencluster.config import load
from opencluster.store.job_records import RecordWriter
from opencluster.testing import LocalCluster
from opencluster_web.accounts.guard import Role
from opencluster_web.accounts.store import AccountStore
from opencluster_web.application import WebSettings, close_app, create_app
from opencluster_web.command import web_command

if TYPE_CHECKING:
    import schemathesis

pytestmark = pytest.mark.processes

PROGRAM = f"{Path(__file__).with_name('cluster_workers.py')}:PatientWorker"
EXAMPLES = 2
"""For each operation: enough to meet each of its answers, and a few seconds in all."""
OWNER = "programmer"


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
    app.extensions["opencluster_cluster"].start()
    yield app
    close_app(app)


@pytest.fixture(scope="module")
def token_for(app: Flask) -> Callable[[Role], str]:
    """Return what makes tokens for a role."""
    store: AccountStore = app.extensions["opencluster_accounts"]
    store.people.add(OWNER, Role.ADMINISTRATOR)

    def made(role: Role) -> str:
        return store.tokens.make(OWNER, "tests", role, 3600.0)[1]

    return made


@pytest.fixture(scope="module")
def call(app: Flask, token_for: Callable[[Role], str]) -> Callable[..., Any]:
    """Return what asks in the name of a role, and gives the answer."""
    client = app.test_client()
    tokens = {role: token_for(role) for role in Role}

    def asked(
        method: str, path: str, role: Role = Role.OPERATOR, **options: Any
    ) -> Any:
        headers = {"Authorization": f"Bearer {tokens[role]}"}
        address = f"/api/v1/{path}"
        return client.open(address, method=method, headers=headers, **options)

    return asked


def test_answers_are_as_the_document_says(
    app: Flask, token_for: Callable[[Role], str]
) -> None:
    import schemathesis

    token = {"Authorization": f"Bearer {token_for(Role.ADMINISTRATOR)}"}
    found = schemathesis.openapi.from_wsgi(
        "/api/v1/openapi.json", app, headers=token
    ).get_all_operations()
    operations = [operation.ok() for operation in found]
    assert len(operations) > 25
    for operation in operations:

        @given(case=operation.as_strategy())
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        def check(case: schemathesis.Case) -> None:
            # names that are made up belong to nobody, so nothing is done to anybody
            case.call_and_validate(headers=token)

        check()


def test_a_program_does_what_people_do(
    call: Callable[..., Any], cluster: LocalCluster
) -> None:
    (shop,) = cluster.ask_factory("find", {"kind": "workshop"})
    assert call("GET", "me").json["role"] == "operator"
    said = call("PUT", "types/Patient", json={"count": 2}).json["message"]
    assert said == f"Patient: 2 on {shop['name']}"
    names = [row["name"] for row in call("GET", "workers").json["processes"]]
    assert "Patient-1" in names
    assert call("POST", "processes/Patient-1/restart").status_code == 200
    assert call("POST", f"computers/{shop['name']}/drain").status_code == 200
    refused = call("PUT", "types/Patient", json={"count": 3})
    assert (refused.status_code, refused.json["error"]["status"]) == (409, 409)
    assert "drained" in refused.json["error"]["message"]
    assert call("POST", f"computers/{shop['name']}/undrain").status_code == 200


def test_a_program_sees_what_became_of_the_pieces_of_a_job(
    call: Callable[..., Any], cluster: LocalCluster
) -> None:
    id = "0123456789ab"
    record = RecordWriter(cluster.place.jobs, id, 10)
    record.append({"job": {"id": id, "name": "Night", "started_at": 1.0}})
    span = [0.5, 2.0, 0, 0, 3, 0, 7]
    record.append({"lanes": [["A-1", "h1"]], "types": ["A"], "spans": [span]})
    told = call("GET", f"jobs/{id}/timeline", Role.OBSERVER).json
    assert told["job"]["name"] == "Night" and told["summary"]["pieces"] == 3
    (run,) = told["spans"]
    assert (run["worker"], run["piece"], run["duration_s"]) == ("A-1", 7, 2.0)
    missing = call("GET", "jobs/ba9876543210/timeline")
    assert missing.status_code == 404
    assert "No record of a job" in missing.json["error"]["message"]


def test_programs_have_roles_too(call: Callable[..., Any]) -> None:
    refused = call("PUT", "types/Patient", Role.OBSERVER, json={"count": 1})
    assert refused.status_code == 403
    assert "needs the role operator" in refused.json["error"]["message"]
    start = {"target": PROGRAM}
    assert call("POST", "computers/x/start", json=start).status_code == 403
    missing = call("POST", "computers/x/start", Role.ADMINISTRATOR, json=start)
    assert "no computer 'x'" in missing.json["error"]["message"]


def test_who_has_no_token_is_told_how_to_get_one(app: Flask) -> None:
    answer = app.test_client().get("/api/v1/status")
    assert answer.status_code == 401
    assert "send a token" in answer.json["error"]["message"]


def test_a_session_is_protected_against_forgery_here_too(app: Flask) -> None:
    client: FlaskClient = signed_in(app, Role.OPERATOR)
    assert client.get("/api/v1/me").json["via"] == "session"
    assert client.post("/api/v1/processes/Patient-1/kill").status_code == 400


def test_what_is_wrong_with_a_request_is_told_by_field(
    call: Callable[..., Any],
) -> None:
    wrong = call("PUT", "types/Patient", json={"count": "many", "colour": 1})
    assert wrong.status_code == 422
    said = wrong.json["error"]["message"]
    assert "count: Not a valid integer." in said
    assert "colour: Unknown field." in said


def test_what_programs_do_is_written_down(app: Flask, call: Callable[..., Any]) -> None:
    call("POST", "processes/Loom-1/kill")
    store: AccountStore = app.extensions["opencluster_accounts"]
    row = store.audit.rows(limit=1)[0]
    assert (row["who"], row["via"], row["subject"]) == (OWNER, "token", "Loom-1")


def test_everything_that_pages_do_is_in_the_document() -> None:
    printed = CliRunner().invoke(web_command, ["openapi"])
    document = json.loads(printed.output)
    assert document["openapi"].startswith("3.")
    paths = document["paths"]
    deeds = [
        f"{method} {path.removeprefix('/api/v1')}"
        for path, operations in paths.items()
        for method in operations
        if method in ("post", "put", "delete")
    ]
    assert set(deeds) == {
        *("post /processes/{name}/" + deed for deed in PROCESS_DEEDS),
        *("post /computers/{name}/" + deed for deed in ("drain", "undrain", "start")),
        *("put /types/{type}", "post /jobs/{id}/cancel", "put /jobs/{id}/priority"),
        *("post /tasks/{number}/cancel", "post /tasks/{number}/retry"),
        *("put /tasks/{number}/priority", "post /letters/{id}/put-back"),
        "delete /letters/{id}",
    }
    assert "/api/v1/status" in paths


PROCESS_DEEDS = ("restart", "stop", "kill", "interrupt")
