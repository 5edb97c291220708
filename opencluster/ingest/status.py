"""What an ingest server has done, in numbers."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opencluster.core.metrics import Metric, Named, each


@dataclass(eq=False)
class IngestStatus:
    """Counts since a server began, and what there is now.

    Attributes
    ----------
    connections, connections_taken, connections_refused : int
        Now, and since the beginning.
    received_bytes : int
        All that came.
    received : int
        Items that began.
    accepted, accepted_bytes : int
        Items that are on disk and were answered for, and their bytes.
    known : int
        Items that were accepted before.
    spooled, spooled_bytes : int
        Items that wait or are processed now, and all that the spool has room taken for.
    running : int
        Items that are processed now.
    processed : int
        Items that a manager was done with.
    failed : int
        Items that were given up.
    retried : int
        Runs of a manager that failed and were tried again.
    dropped : int
        Items that the policy let go of.
    rejected : Counter
        What was left out, by reason.
    left : int
        Items found in the spool at the beginning.
    """

    connections: int = 0
    connections_taken: int = 0
    connections_refused: int = 0
    received_bytes: int = 0
    received: int = 0
    accepted: int = 0
    accepted_bytes: int = 0
    known: int = 0
    spooled: int = 0
    spooled_bytes: int = 0
    running: int = 0
    processed: int = 0
    failed: int = 0
    retried: int = 0
    dropped: int = 0
    left: int = 0
    rejected: Counter[str] = field(default_factory=Counter)

    def to_fields(self) -> dict[str, Any]:
        """Return the counts as plain types."""
        return {**vars(self), "rejected": dict(self.rejected)}

    def write(self, path: Path) -> None:
        """Replace a file by the counts, as JSON."""
        draft = path.with_name(f".{path.name}.part")
        draft.write_text(json.dumps(self.to_fields(), indent=2) + "\n")
        draft.replace(path)

    def metrics(self) -> list[Metric]:
        """Return numbers by which a server is watched."""
        counts: list[Named] = [
            ("ingest_connections", "connections", 1, "Senders."),
            ("ingest_received_bytes_total", "received_bytes", 1, "All that came."),
            ("ingest_items_received_total", "received", 1, "Items that began."),
            ("ingest_items_accepted_total", "accepted", 1, "Items answered for."),
            ("ingest_spooled_items", "spooled", 1, "Items that wait or are processed."),
            ("ingest_spooled_bytes", "spooled_bytes", 1, "Room taken in the spool."),
            ("ingest_items_running", "running", 1, "Items that are processed now."),
            ("ingest_items_processed_total", "processed", 1, "Items that are done."),
            ("ingest_items_failed_total", "failed", 1, "Items that were given up."),
            ("ingest_items_dropped_total", "dropped", 1, "Let go of by the policy."),
            ("ingest_connections_refused_total", "connections_refused", 1, "Refused."),
        ]
        rejected = [((("reason", why),), float(n)) for why, n in self.rejected.items()]
        return [
            *each(counts, {(): vars(self)}),
            Metric("ingest_rejected_total", "What was left out.", rejected),
        ]

    def __str__(self) -> str:
        told = [
            f"{self.received:,} items and {self.received_bytes / 1e6:,.1f} MB received",
            f"{self.accepted:,} accepted",
            f"{self.spooled:,} in the spool ({self.spooled_bytes / 1e6:,.1f} MB)",
            f"{self.processed:,} processed",
        ]
        for count, what in (
            (self.known, "known already"),
            (self.failed, "failed"),
            (self.dropped, "dropped by policy"),
            (self.connections_refused, "connections refused"),
        ):
            if count:
                told.append(f"{count:,} {what}")
        if self.rejected:
            reasons = self.rejected.most_common()
            texts = ", ".join(f"{reason} {count:,}" for reason, count in reasons)
            told.append(f"rejected: {texts}")
        return "; ".join(told)
