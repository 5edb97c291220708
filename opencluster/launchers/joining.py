"""Have a workshop that runs take over what is new in its catalogue.

Owns how it is told. What is new, and that its files lie there, others have seen to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from opencluster.core.roles import WORKSHOP
from opencluster.errors import FactoryUnreachable, LaunchFailed, OpenClusterError
from opencluster.launchers.order import Answer
from opencluster.net.control import Control

Shop = Mapping[str, Any]
"""What a workshop registered."""
READY_WAIT_S = 0.5
"""How long a workshop may take to say that new processes are ready; they start anyway,
and are waited for with all others."""


def join_in(control: Control, answers: Mapping[str, Answer]) -> dict[str, str]:
    """Tell workshops of types that they do not know yet, and of other numbers.

    Parameters
    ----------
    control : Control
        The way to the cluster.
    answers : mapping of str to Answer
        By the workshop's name, what its host has answered.

    Returns
    -------
    dict of str to str
        Why a workshop does not take over what is new, by its name.

    Raises
    ------
    FactoryUnreachable
        When the cluster does not answer.
    """
    failed = {}
    shops = list(control.factory("find", {"kind": WORKSHOP}))
    for name, answer in answers.items():
        try:
            _tell(control, _shop_of(name, answer, shops), answer)
        except OpenClusterError as error:
            # what is not new was told before, as far as anybody knows
            if answer.is_changed:
                failed[name] = str(error)
    return failed


def _shop_of(name: str, answer: Answer, shops: Sequence[Shop]) -> Shop:
    found = [shop for shop in shops if shop["name"] == name]
    # that of this computer may have a name of its own
    found = found or [shop for shop in shops if shop["host_id"] == answer.computer]
    if not found:
        raise LaunchFailed("its workshop is not registered; run the command again")
    # one that was killed is known for a while, and came before
    return found[-1]


def _tell(control: Control, shop: Shop, answer: Answer) -> None:
    status = control.workshop(shop, "status", {})
    known = {entry["name"] for entry in status["catalogue"]}
    wanted = dict(answer.counts)
    for entry in answer.catalogue:
        if entry["name"] not in known:
            control.workshop(shop, "start", {"entry": entry, "count": 0})
            wanted[entry["name"]] = entry["count"]
    for type, count in wanted.items():
        with suppress(FactoryUnreachable):
            order = {"type": type, "count": count}
            control.workshop(shop, "scale", order, READY_WAIT_S)
