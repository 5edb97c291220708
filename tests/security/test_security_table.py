"""The table of rules covers everything that daemons and programs take, and no more."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from security_tools import Client

from opencluster.core.roles import ASKER, FACTORY, ROLES, RULES, WORKSHOP
from opencluster.errors import RequestRefused
from opencluster.testing import LocalCluster
from opencluster.wire import kinds

KINDS = {value for name, value in vars(kinds).items() if name.isupper()}
"""Every kind of message."""


def rows_of(receiver: str) -> set[str]:
    return {what for (whom, what) in RULES if whom == receiver}


def operations_named_in(error: RequestRefused) -> set[str]:
    """Return what a daemon says that it can be asked."""
    return set(str(error).partition("known: ")[2].split(", "))


def test_every_operation_of_a_factory_has_a_rule_and_no_other(
    clients: Callable[[str], Client],
) -> None:
    with pytest.raises(RequestRefused) as caught:
        clients("factory").ask("explode")
    messages = {kinds.FACTORY, kinds.PULSE, kinds.RENEW}
    rows = rows_of(FACTORY) - messages - {"epoch"} | {"renew"}
    assert operations_named_in(caught.value) == rows


@pytest.mark.processes
def test_every_operation_of_a_workshop_has_a_rule_and_no_other() -> None:
    with LocalCluster() as here, pytest.raises(RequestRefused) as caught:
        here.ask_workshop("explode", {})
    assert operations_named_in(caught.value) == rows_of(WORKSHOP)


def test_every_kind_of_message_has_a_rule() -> None:
    # a request is judged by its operation
    assert KINDS - {kinds.REQUEST} <= {what for _, what in RULES}


def test_every_receiver_and_role_of_the_table_is_one_that_exists() -> None:
    assert {receiver for receiver, _ in RULES} <= {*ROLES, "service", ASKER}
    assert all(rule.roles <= set(ROLES) and rule.deed for rule in RULES.values())
