"""The pages of dead letters: what they show, to whom, and what operators do there."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sign_in import token_of

from opencluster.store.dead_letters import DeadLetters, new_id
from opencluster.wire import codec

DEATH = {
    "reason": "killed by signal SIGSEGV",
    "signal": "SIGSEGV",
    "worker": "Fit-1",
    "host": "node1",
    "output": "line <1>\nthe matrix is singular",
}
HEAD: dict[str, Any] = {
    "at": 1.8e9,
    "type": "Fit",
    "number": 3,
    "job": {"id": "j1f", "name": "FitManager"},
    "host": "node1",
    "user": "ann",
    "options": {},
    "deaths": [DEATH, DEATH | {"worker": "Fit-2"}],
    "refs": [],
}


@pytest.fixture
def write(application: Flask, tmp_path: Path) -> Callable[..., str]:
    """Return what keeps a letter where the pages look for it."""
    kept = DeadLetters(tmp_path / "cluster" / "dead-letters")

    def written(**head: Any) -> str:
        id = new_id()
        data, buffers = codec.encode({"a": 1})
        kept.write(id, HEAD | head, data, buffers)
        return id

    return written


def text_of(client: FlaskClient, address: str) -> str:
    answer = client.get(address)
    assert answer.status_code == 200
    return answer.get_data(as_text=True)


def test_an_empty_list_says_what_it_would_hold(as_observer: FlaskClient) -> None:
    text = text_of(as_observer, "/letters/")
    assert "No dead letters" in text and "opencluster letters list" in text
    assert "no cluster is running" in text


def test_letters_are_listed_and_shown_with_their_evidence(
    as_observer: FlaskClient, write: Callable[..., str]
) -> None:
    id = write()
    assert f'href="/letters/{id}"' in text_of(as_observer, "/letters/")
    text = text_of(as_observer, f"/letters/{id}")
    for said in ("FitManager j1f", "Fit-2", "SIGSEGV", "line &lt;1&gt;", "of ann"):
        assert said in text


def test_who_only_looks_finds_no_buttons_and_may_press_none(
    as_observer: FlaskClient, write: Callable[..., str]
) -> None:
    id = write()
    assert "<form" not in text_of(as_observer, f"/letters/{id}").partition("<main")[2]
    token = {"csrf_token": token_of(as_observer)}
    for deed in ("delete", "put-back"):
        assert as_observer.post(f"/letters/{id}/{deed}", data=token).status_code == 403
    assert id in text_of(as_observer, "/letters/")


def test_an_operator_deletes_a_letter_and_that_is_written_down(
    as_operator: FlaskClient, write: Callable[..., str]
) -> None:
    id = write()
    assert as_operator.post(f"/letters/{id}/delete").status_code == 400
    token = {"csrf_token": token_of(as_operator)}
    answer = as_operator.post(
        f"/letters/{id}/delete", data=token, follow_redirects=True
    )
    assert f"Letter {id} is deleted." in answer.get_data(as_text=True)
    assert as_operator.get(f"/letters/{id}").status_code == 404
    again = as_operator.post(f"/letters/{id}/delete", data=token, follow_redirects=True)
    assert "was not deleted" in again.get_data(as_text=True)
    audit = text_of(as_operator, "/audit")
    assert audit.count("delete letter") == 2 and id in audit


def test_a_letter_that_refers_to_lost_values_offers_no_second_run(
    as_operator: FlaskClient, write: Callable[..., str]
) -> None:
    text = text_of(as_operator, f"/letters/{write(refs=['DataRef(4 MB)'])}")
    assert "DataRef(4 MB)" in text and "put-back" not in text


def test_putting_back_goes_on_in_a_program_of_its_own(
    as_operator: FlaskClient, write: Callable[..., str], tmp_path: Path
) -> None:
    id = write()
    token = {"csrf_token": token_of(as_operator)}
    answer = as_operator.post(
        f"/letters/{id}/put-back", data=token, follow_redirects=True
    )
    assert f"The piece of letter {id} runs again" in answer.get_data(as_text=True)
    log = tmp_path / "cluster" / "logs" / f"letter-{id}.log"
    deadline = time.monotonic() + 30
    # as no cluster is there, it says so and the letter stays
    while "no cluster is running" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert id in text_of(as_operator, "/letters/")


@pytest.mark.parametrize("id", ["nonsense", "0123456789ab"])
def test_a_letter_that_is_not_there_is_said_to_be_none(
    as_observer: FlaskClient, id: str
) -> None:
    answer = as_observer.get(f"/letters/{id}")
    assert answer.status_code == 404
    assert "dead letter" in answer.get_data(as_text=True)
