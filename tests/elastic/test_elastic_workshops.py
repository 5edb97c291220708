"""How workshops are asked for workers, with a cluster that the test plays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from typing import Any, cast

from opencluster.config import Config
from opencluster.core.elasticity import Grow, Halt
from opencluster.elastic.means import Workshops
from opencluster.elastic.sight import Sight, sight_of
from opencluster.net.control import Control


class AtOnce(Executor):
    """Does everything when it is asked for."""

    def submit(self, call: Callable[..., Any], /, *given: Any, **named: Any) -> Any:
        future: Future[Any] = Future()
        future.set_result(call(*given, **named))
        return future


class FakeCluster:
    """Two computers, each with a type in its catalogue under two names."""

    def __init__(self) -> None:
        self.failures = 0
        self.wanted = {("a", "T"): 2, ("a", "Slow"): 1, ("b", "T"): 0, ("b", "Slow"): 1}
        self.running = [("a", "T-2"), ("b", "Slow-1")]
        self.scaled: list[tuple[str, str, int]] = []

    def factory(self, operation: str, arguments: Any = None) -> Any:
        if operation == "find":
            return [e for e in self._entries() if e["kind"] == "workshop"]
        assert operation == "status"
        return {"entries": self._entries(), "figures": {}, "jobs": []}

    def workshop(
        self,
        shop: Mapping[str, Any],
        operation: str,
        arguments: Mapping[str, Any],
        timeout_s: float | None = None,
    ) -> Any:
        if operation == "status":
            rows = [
                {"name": name, "type": "T", "kind": "worker", "count": count}
                for (id, name), count in self.wanted.items()
                if id == shop["id"]
            ]
            other = {"name": "U", "type": "U", "kind": "worker", "count": 7}
            return {"catalogue": [*rows, other]}
        assert operation == "scale"
        self.scaled.append((shop["id"], arguments["type"], arguments["count"]))
        return {"names": []}

    def _entries(self) -> list[dict[str, Any]]:
        catalogue = {"catalogue": {"T": "worker", "U": "worker"}}
        entries = [_entry("workshop", shop, shop, **catalogue) for shop in ("a", "b")]
        entries += [_entry("worker", name, shop) for shop, name in self.running]
        if self.failures:
            said = {"failures": self.failures, "message": "T-9 did not start"}
            said["output"] = "Traceback:\n  ...\nOSError: no instrument\n"
            entries.append(_entry("failure", "T-9", "a", **said))
        return entries

    def sight(self) -> Sight:
        return sight_of(self.factory("status"), ["T"], {})


def _entry(kind: str, name: str, shop: str, **attributes: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "type": "" if kind == "workshop" else "T",
        "name": name,
        "id": shop if kind == "workshop" else f"{shop}:{name}",
        "workshop": shop,
        "attributes": attributes,
    }


FAILED = ("T", "T-9 did not start (OSError: no instrument)")


def workshops(cluster: FakeCluster) -> Workshops:
    return Workshops(cast(Control, cluster), Config(), AtOnce())


def test_a_process_that_ends_long_after_its_start_has_failed() -> None:
    cluster = FakeCluster()
    means = workshops(cluster)
    assert means.look(0.0, cluster.sight()).failed == []
    means.carry_out(0.0, Grow("T", 4, "work"), cluster.sight())
    assert means.look(1.0, cluster.sight()).failed == []
    cluster.failures = 1
    assert means.look(2.0, cluster.sight()).failed == [FAILED]
    assert means.look(3.0, cluster.sight()).failed == []


def test_what_failed_before_is_nobodys_launch() -> None:
    cluster = FakeCluster()
    cluster.failures = 2
    means = workshops(cluster)
    assert means.look(0.0, cluster.sight()).failed == []
    cluster.failures = 3
    assert means.look(1.0, cluster.sight()).failed == [FAILED]


def test_workshops_do_not_go_on_trying_what_was_stopped() -> None:
    cluster = FakeCluster()
    halt = Halt("T", "launching failed 3 times in a row")
    workshops(cluster).carry_out(0.0, halt, cluster.sight())
    assert cluster.scaled == [("a", "T", 1), ("a", "Slow", 0)]
