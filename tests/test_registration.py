"""What a process makes of the answer to its renewal."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

import pytest

from opencluster.errors import FactoryUnreachable
from opencluster.registration import unknown_in


def answered(body: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(body)
    return future


def test_the_unknown_have_to_register_again() -> None:
    assert unknown_in(answered({"unknown": ["w1", "w2"]})) == ["w1", "w2"]
    assert unknown_in(answered({"unknown": []})) == []


@pytest.mark.parametrize("body", [None, 7, "unknown", [], {}, {"unknown": "w1"}])
def test_an_answer_that_makes_no_sense_asks_for_nothing(body: Any) -> None:
    assert unknown_in(answered(body)) == []


def test_who_is_no_text_is_nobody() -> None:
    assert unknown_in(answered({"unknown": [7, None, [], "w1"]})) == ["w1"]


def test_no_answer_asks_for_nothing() -> None:
    future: Future[Any] = Future()
    future.set_exception(FactoryUnreachable("nobody there"))
    assert unknown_in(future) == []
