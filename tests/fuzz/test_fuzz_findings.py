"""What fuzzing has found, each as the message that did it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest
from fuzz_doors import GateEpisode
from fuzz_manager import WORKERS, ManagerEpisode
from fuzz_mutation import pack
from fuzz_net import in_memory, received
from zmq.utils import z85

from opencluster.core.registry import Registry
from opencluster.engines.base import Options
from opencluster.net.link import _hello_from
from opencluster.net.rejections import MAX_REASON, Rejections
from opencluster.net.transport import TransportCounts
from opencluster.wire import kinds
from opencluster.workpiece import WorkPiece

# --- the gate: an error there would have ended the thread of all sockets -------------


@pytest.fixture
def gate() -> Iterator[GateEpisode]:
    episode = GateEpisode(Random(1))
    yield episode
    episode.close()


@pytest.mark.parametrize(
    "proof", [[], [b""], [b"short"], [bytes(33)], [bytes(32), b"more"]], ids=repr
)
def test_question_with_another_proof_than_a_key_is_answered_with_no(
    gate: GateEpisode, proof: list[bytes]
) -> None:
    question = gate.question(b"")[:-1] + proof
    gate.check(question, is_good=True)
    assert gate.counts.rejected_credentials == 1
    gate.check(gate.question(z85.decode(gate.keys.own.public_key)), is_good=True)
    assert gate.counts.rejected_credentials == 1


@pytest.mark.parametrize("frames", range(1, 7))
def test_question_that_is_cut_off_is_not_answered(
    gate: GateEpisode, frames: int
) -> None:
    gate.asker.send_multipart(gate.question(b"")[:frames])
    assert gate.gate.attend() == []
    assert gate.asker.poll(0) == 0
    gate.check(gate.question(z85.decode(gate.keys.own.public_key)), is_good=True)


# --- a manager: the callback of a user got whatever a worker sent ---------------------


@pytest.mark.parametrize(
    "said", [(None, 1.0), (1.0, "2"), (1, 2), (True, 1.0), ([1.0], {}), (1.0,), ()]
)
def test_progress_that_is_no_number_does_not_reach_the_user(said: Any) -> None:
    told: list[tuple[Any, ...]] = []
    with in_memory(ManagerEpisode.modules):
        episode = ManagerEpisode(Random(1))
        try:
            engine = episode.engine
            options = Options(
                on_progress=lambda done, total: told.append((done, total))
            )
            piece = (WorkPiece(n=1), options)
            (number,) = engine.submit("T", [piece], lambda n, outcome: None)
            episode.reactor.turn()
            peer = next(iter(engine._desk.roster.directory.by_peer))
            assert peer in WORKERS
            for fields in (said, (1.0, 2.0)):
                header = pack([kinds.PROGRESS, number, *fields])
                episode.reactor.receive(received(peer, header))
            assert episode.transport.counts.rejected_messages == 1
        finally:
            episode.close()
    assert told == [(1.0, 2.0)]


# --- a log: its lines were as long as whoever sent the message liked ------------------


def test_what_was_wrong_is_told_in_a_line_of_bounded_length(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rejections = Rejections(TransportCounts(), logging.getLogger("test.findings"))
    rejections.note(ValueError("x" * 1_000_000))
    (line,) = caplog.messages
    assert line == "rejected a message: " + "x" * MAX_REASON


# --- a follower: it kept every job that a snapshot brought ----------------------------


def test_copy_keeps_the_newest_jobs_alone() -> None:
    leader, follower = Registry(jobs_kept=9), Registry(jobs_kept=2)
    for number in range(5):
        leader.report_job(1.0, {"id": f"j{number}", "state": "done"})
    follower.restore(2.0, leader.snapshot())
    assert [job["id"] for job in follower.snapshot()["jobs"]] == ["j3", "j4"]
    follower.check_invariants()


def test_greeting_of_a_factory_is_quoted_in_a_line_of_bounded_length(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert _hello_from({"heartbeat_interval_s": "x" * 1_000_000}) is None
    (line,) = caplog.messages
    assert "makes no sense" in line and len(line) < 2 * MAX_REASON
