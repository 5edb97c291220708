"""Every handler under a short rain of wrong messages; `make fuzz` goes on longer."""

from __future__ import annotations

import re
from typing import Any

import fuzz
import pytest
from fuzz import Finding, Tally, main, play
from fuzz_episode import Episode
from fuzz_targets import TARGETS
from fuzz_wire import FramesEpisode

from opencluster import factory, workshop
from opencluster.core.chunks import Incoming
from opencluster.core.inbox import Inbox
from opencluster.core.registry import Registry
from opencluster.core.replica import Replica
from opencluster.core.roll import Roll
from opencluster.engines import desk
from opencluster.net import requests, transfers
from opencluster.serving import station
from opencluster.wire import codec, frames

EPISODES = 8
"""Of each target; those of a seed are always the same."""
FEW = 40
"""Episodes after which a fault that was put in must have been found."""


@pytest.mark.parametrize("seed", range(1, EPISODES + 1))
@pytest.mark.parametrize("kind", TARGETS, ids=lambda kind: kind.name)
def test_no_message_breaks_a_handler(kind: type[Episode], seed: int) -> None:
    assert play(kind, seed) > 100


# --- the fuzzer itself ------------------------------------------------------------


def of(name: str) -> type[Episode]:
    return next(kind for kind in TARGETS if kind.name == name)


def finding_in(name: str) -> Finding:
    """Return the first finding in a target."""
    for seed in range(1, FEW + 1):
        try:
            play(of(name), seed)
        except Finding as finding:
            return finding
    raise AssertionError(f"nothing was found in {FEW} episodes")


def allow_all(*anything: Any) -> bool:
    return True


FAULTS: list[tuple[str, Any, str, Any]] = [
    ("frames", frames, "check", lambda body, limit: None),
    ("codec", codec, "reason", lambda *anything: "no" * 1000),
    ("transfers", transfers, "RemoteProtocolError", KeyError),
    ("transfers", Incoming, "drop", lambda self, peer, number: False),
    ("factory", factory, "MALFORMED", (ValueError,)),
    ("factory", factory, "check", allow_all),
    ("factory", requests, "permits", allow_all),
    ("factory", Registry, "_take_client", lambda self, client: None),
    ("factory", Roll, "from_fields", classmethod(lambda cls, fields: cls(**fields))),
    ("link", Replica, "load", lambda self, epoch, snapshot: []),
    ("worker", station, "check", allow_all),
    ("worker", Inbox, "_is_full", lambda self, piece: False),
    ("workshop", workshop, "MALFORMED", (ValueError,)),
    ("manager", desk, "MALFORMED", (ValueError,)),
    ("manager", desk, "check", allow_all),
]
"""Where, and what is put in place of what is right there."""


@pytest.mark.parametrize(
    ("name", "owner", "attribute", "wrong"),
    FAULTS,
    ids=lambda value: getattr(value, "__name__", str(value))[:30],
)
def test_faults_are_found(
    monkeypatch: pytest.MonkeyPatch, name: str, owner: Any, attribute: str, wrong: Any
) -> None:
    monkeypatch.setattr(owner, attribute, wrong)
    assert finding_in(name).target == name


def test_finding_is_the_same_each_time_it_is_replayed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(factory, "MALFORMED", (ValueError,))
    found = finding_in("factory")
    command = re.search(r"fuzz\.py (--target factory --seed \d+)$", str(found))
    assert command is not None
    assert main(command[1].split()) == 1
    printed = capsys.readouterr().out
    assert found.report.splitlines()[-1] in printed
    assert "1 findings" in printed


def test_run_tells_the_executions_of_each_target(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--target", "frames", "--target", "rows", "--seconds", "0"]) == 0
    printed = capsys.readouterr().out
    for name in ("frames", "rows"):
        assert re.search(rf"^{name} +[\d,]+ executions", printed, re.MULTILINE)
    assert re.search(r"^all .* 0 findings", printed, re.MULTILINE)


def test_interrupt_ends_a_run_with_what_was_done_so_far(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(kind: type[Episode], seed: int) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(fuzz, "play", interrupted)
    assert main(["--target", "frames"]) == 130
    assert "interrupted" in capsys.readouterr().out


def test_fresh_runs_begin_with_other_seeds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(fuzz, "play", lambda kind, seed: seeds.append(seed) or 1)
    for _ in range(2):
        main(["--target", "frames", "--seconds", "0"])
    assert len(set(seeds)) == 2
    Tally(FramesEpisode, 5).go_on(0.0, 1)
    assert seeds[-1] == 5
