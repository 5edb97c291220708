"""What is read of the end of a process, whoever tells of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from opencluster.errors import DeathEvidence

EVIDENCE = DeathEvidence(
    "killed by signal SIGKILL (out of memory)",
    exit_code=None,
    signal="SIGKILL",
    out_of_memory=True,
    peak_memory_bytes=5_000_000,
    piece="ab12:7",
    exceeded="memory",
    output="no more\n",
)


def test_evidence_survives_a_message() -> None:
    assert DeathEvidence.from_fields(asdict(EVIDENCE)) == EVIDENCE
    newer = asdict(EVIDENCE) | {"shoe_size": 43}
    assert DeathEvidence.from_fields(newer) == EVIDENCE


@pytest.mark.parametrize("value", [{}, [1], b"x", 1.5, object])
def test_evidence_of_a_wrong_type_is_left_out(value: Any) -> None:
    told = DeathEvidence.from_fields(dict.fromkeys(asdict(EVIDENCE), value))
    assert told == DeathEvidence("for an unknown reason")
    assert told.describe() == "for an unknown reason"
