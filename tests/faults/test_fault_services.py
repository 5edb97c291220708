"""Services: called by several at once, with the errors and types of pieces."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fault_tools import (
    DEADLINE_S,
    cluster,
    counts,
    entries,
    fault,
    figures,
    is_running,
    perform,
    pids,
    wait_until,
)

from opencluster import Manager
from opencluster.errors import (
    LocalProtocolError,
    NoSuitableWorker,
    PieceFailed,
    WorkerDied,
)
from opencluster.proxy import ServiceProxy
from opencluster.testing import LocalCluster

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("here")]


@pytest.fixture(scope="module")
def here() -> Iterator[LocalCluster]:
    with cluster({"manager.worker_wait_s": 2}, FaultWorker=1, FaultService=1) as here:
        yield here


@pytest.fixture
def service(here: LocalCluster) -> ServiceProxy:
    wait_until(lambda: len(pids(here, "fault")) == 1)
    return Manager("cluster").service("fault")


@pytest.fixture
def living(here: LocalCluster, service: ServiceProxy) -> Iterator[int]:
    """The service's process, which must be the same one after the test."""
    before = service.pid()
    yield before
    assert service.pid() == before and is_running(before)


def test_calls_run_at_the_same_time(
    service: ServiceProxy, living: int, tmp_path: Path
) -> None:
    # each waits until all of them have come
    with ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(service.meet, str(tmp_path), n, 4) for n in range(4)]
        assert [call.result(DEADLINE_S) for call in calls] == [4] * 4


def test_no_more_calls_run_at_a_time_than_the_service_wants(
    service: ServiceProxy, living: int, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(8) as threads:
        calls = [threads.submit(service.overlap, str(tmp_path)) for _ in range(12)]
        most = max(call.result(DEADLINE_S) for call in calls)
    assert 1 < most <= 4


def test_what_a_method_raises_arrives_with_its_own_lines(
    service: ServiceProxy, living: int
) -> None:
    with pytest.raises(PieceFailed) as caught:
        service.divide(1.0, 0.0)
    assert caught.value.exception_type == "ZeroDivisionError"
    assert caught.value.message == "float division by zero"
    assert "return a / b" in caught.value.remote_traceback
    assert "fault_workers.py" in caught.value.remote_traceback
    assert caught.value.worker == "fault-1"


@pytest.mark.parametrize("name", ["hidden", "no_such", "startup", "ready"])
def test_what_is_not_marked_cannot_be_called(
    service: ServiceProxy, living: int, name: str
) -> None:
    with pytest.raises(PieceFailed, match=f"no remote method '{name}'") as caught:
        getattr(service, name)()
    assert caught.value.exception_type == "AttributeError"
    assert "echo" in caught.value.message and "divide" in caught.value.message


def test_wrong_arguments_are_the_callers_fault(
    service: ServiceProxy, living: int
) -> None:
    with pytest.raises(PieceFailed, match="TypeError.*argument"):
        service.divide(1.0, 2.0, 3.0)
    with pytest.raises(PieceFailed, match="TypeError.*argument"):
        service.divide(1.0, c=2.0)


@pytest.mark.parametrize(
    "value",
    [
        None,
        2**100,
        float("inf"),
        1 + 2j,
        "Köln",
        b"\0\xff",
        (1, "two", (3,)),
        {1, 2},
        {"a": [1, {2: (3, 4)}]},
        Path("/data/a.fits"),
        datetime(2026, 11, 25, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=8))),
        datetime(2026, 1, 1, tzinfo=UTC),
        timedelta(days=1, microseconds=1),
        np.float32(1.5),
        np.datetime64("2026-11-25T01:02:03"),
    ],
    ids=repr,
)
def test_values_keep_their_types(service: ServiceProxy, value: Any) -> None:
    came = service.echo(value)
    assert came == value and type(came) is type(value)
    pair = service.echo(value, twice=True)
    assert pair == [value, value]
    assert getattr(came, "tzinfo", None) == getattr(value, "tzinfo", None)


def test_arrays_keep_their_types(service: ServiceProxy) -> None:
    rows = np.array([(1, 2.5)], dtype=[("n", ">i4"), ("flux", "f8")])
    masked = np.ma.masked_array([1, 2, 3], mask=[False, True, False])
    image = np.arange(1_000_000, dtype=">u2").reshape(1000, 1000)[::2, ::-3]
    for array in (rows, masked, image, np.zeros((0, 3)), np.array(7)):
        came = service.echo(array)
        assert came.dtype == array.dtype and came.shape == array.shape
        assert type(came) is type(array)
        assert (np.ma.getmaskarray(came) == np.ma.getmaskarray(array)).all()
        assert (came == array).all()


def test_arguments_that_cannot_be_sent(service: ServiceProxy, living: int) -> None:
    with pytest.raises(LocalProtocolError, match="object"):
        service.echo(object())


def test_a_result_that_cannot_be_sent(service: ServiceProxy, living: int) -> None:
    with pytest.raises(PieceFailed) as caught:
        service.unsendable()
    assert caught.value.exception_type == "LocalProtocolError"


def test_a_method_that_calls_exit_does_not_end_the_service(
    service: ServiceProxy, living: int
) -> None:
    with pytest.raises(PieceFailed, match="not a good idea") as caught:
        service.leave()
    assert caught.value.exception_type == "SystemExit"


def test_a_worker_may_call_a_service(here: LocalCluster, service: ServiceProxy) -> None:
    result = perform(fault("call_service", value=[1, 2]))
    assert result["value"] == [1, 2]
    assert result["service"] == service.pid() != result["pid"]
    with pytest.raises(PieceFailed, match="ZeroDivisionError"):
        perform(fault("call_service", value=None))


def test_a_service_that_is_not_there() -> None:
    with pytest.raises(NoSuitableWorker, match="no service 'ephemeris'") as caught:
        Manager("cluster").service("ephemeris").sun_position(0.0)
    assert "there are: fault (1)." in str(caught.value)
    assert "opencluster service MODULE:CLASS --name ephemeris" in str(caught.value)


def test_a_service_that_dies_fails_the_call_and_is_replaced(
    here: LocalCluster, service: ServiceProxy, tmp_path: Path
) -> None:
    before = service.pid()
    with pytest.raises(WorkerDied) as caught:
        service.die(str(tmp_path / "runs"))
    assert caught.value.evidence.exit_code == 5
    # a call may have had effects, so it is not repeated
    assert counts(tmp_path / "runs") == {"0": 1}
    wait_until(lambda: pids(here, "fault") - {before})
    assert service.pid() != before


def test_a_service_that_is_killed_fails_all_calls_that_ran(
    here: LocalCluster, service: ServiceProxy, tmp_path: Path
) -> None:
    victim = service.pid()
    with ThreadPoolExecutor(3) as threads:
        # they wait for a fourth one, which never comes
        calls = [threads.submit(service.meet, str(tmp_path), n, 4) for n in range(3)]
        wait_until(lambda: len(list(tmp_path.iterdir())) == 3)
        os.kill(victim, signal.SIGKILL)
        errors = [call.exception(DEADLINE_S) for call in calls]
    for error in errors:
        assert isinstance(error, WorkerDied)
        assert error.evidence.signal == "SIGKILL"
    wait_until(lambda: pids(here, "fault") - {victim}, "another service")
    assert service.pid() != victim


def test_a_service_asked_to_end_finishes_its_calls(
    here: LocalCluster, service: ServiceProxy, tmp_path: Path
) -> None:
    victim = service.pid()
    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(service.meet, str(tmp_path), n, 3) for n in range(2)]
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
        os.kill(victim, signal.SIGTERM)
        wait_until(lambda: figures(here, victim).get("state") == "draining")
        (tmp_path / "2").touch()
        assert [call.result(DEADLINE_S) for call in calls] == [3, 3]
    wait_until(lambda: pids(here, "fault") - {victim}, "another service")
    assert service.pid() != victim
    wait_until(lambda: not is_running(victim))
    assert len(entries(here, "service")) == 1
