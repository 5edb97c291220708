"""Traces: where the spans of a piece stand, where they go, and what is off when off."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)
from tracing_programs import TracedManager

from opencluster import WorkPiece
from opencluster.config import TracingSettings
from opencluster.errors import ConfigError, RemoteProtocolError
from opencluster.testing import LocalCluster
from opencluster.tracing import Trace, trace_in, tracing_of

TARGET = f"{Path(__file__).with_name('tracing_programs.py')}:TracedWorker"


class Collector(ThreadingHTTPServer):
    """Takes in what processes export by OTLP over HTTP."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taking)
        self.spans: dict[bytes, Any] = {}
        self.service_of: dict[bytes, str] = {}

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1/traces"

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans.values() if span.name == name]


class _Taking(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            (service,) = (
                item.value.string_value
                for item in group.resource.attributes
                if item.key == "service.name"
            )
            for scope in group.scope_spans:
                for span in scope.spans:
                    self.server.spans[span.span_id] = span
                    self.server.service_of[span.span_id] = service
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collecting:
        thread = threading.Thread(target=collecting.serve_forever)
        thread.start()
        yield collecting
        collecting.shutdown()
        thread.join()


def traced(endpoint: str, pieces: list[WorkPiece]) -> None:
    """Run a job in a process of its own, on a cluster that ends with it."""
    settings = {"tracing.endpoint": endpoint, "workshop.restart_delay_s": 0.05}
    with LocalCluster({TARGET: 1}, settings):
        manager = TracedManager()
        manager.run(WorkPiece(pieces=pieces))


def attributes(item: Any) -> dict[str, Any]:
    return {a.key: a.value.string_value or a.value.int_value for a in item.attributes}


def test_a_piece_is_followed_from_the_job_to_the_users_own_span(
    collector: Collector, tmp_path: Path
) -> None:
    died = tmp_path / "died"
    pieces = [WorkPiece(do=do, died=died) for do in ("die", "well", "fail")]
    traced(collector.endpoint, pieces)
    (job,) = collector.named("job TracedManager")
    twice, well, failed = sorted(
        collector.named("piece Traced"),
        key=lambda span: attributes(span)["opencluster.piece"],
    )
    for span in (well, failed, twice):
        assert span.parent_span_id == job.span_id
        assert span.trace_id == job.trace_id
        assert attributes(span)["opencluster.type"] == "Traced"
        assert collector.service_of[span.span_id] == "opencluster-manager"
    assert failed.status.code == 2 and "no antennas" in failed.status.message
    assert [event.name for event in twice.events] == ["sent", "sent"]

    performed = collector.named("perform Traced")
    # the process that ended itself took its own span with it
    assert {span.parent_span_id for span in performed} == {
        *(well.span_id, failed.span_id, twice.span_id)
    }
    (bad,) = (span for span in performed if span.parent_span_id == failed.span_id)
    assert bad.status.code == 2 and "no antennas" in bad.status.message
    (good,) = (span for span in performed if span.parent_span_id == well.span_id)
    assert collector.service_of[good.span_id] == "opencluster-Traced"
    assert [
        s.name for s in collector.spans.values() if s.parent_span_id == good.span_id
    ] == ["grid"]
    (wire,) = (s for s in collector.named("wire") if s.parent_span_id == well.span_id)
    (inbox,) = (s for s in collector.named("inbox") if s.parent_span_id == well.span_id)
    times = [well.start_time_unix_nano, wire.start_time_unix_nano]
    times += [wire.end_time_unix_nano, inbox.end_time_unix_nano]
    times += [good.start_time_unix_nano, good.end_time_unix_nano]
    times += [well.end_time_unix_nano]
    assert times == sorted(times)
    assert wire.end_time_unix_nano == inbox.start_time_unix_nano


def test_traces_may_go_into_a_file(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    traced(f"file:{path}", [WorkPiece(do="well") for _ in range(20)])
    names = [json.loads(line)["name"] for line in path.read_text().splitlines()]
    assert names.count("piece Traced") == names.count("perform Traced") == 20
    assert names.count("job TracedManager") == 1


def test_nothing_is_imported_where_tracing_is_off() -> None:
    assert tracing_of(TracingSettings(), "test") is None
    program = "import sys, opencluster.engines.cluster, opencluster.serving.runner"
    program += "; print('opentelemetry' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("collector:4318", "write the address of a collector"),
        ("file:/nowhere/traces.jsonl", "No such file or directory"),
    ],
)
def test_an_endpoint_that_cannot_be_is_named(endpoint: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        tracing_of(TracingSettings(endpoint=endpoint), "test")


@pytest.mark.parametrize(
    "fields", [None, [], ["00-1-2-01"], ["x" * 200, 1], [1, 1], ["a", -1]]
)
def test_a_malformed_trace_is_turned_down(fields: Any) -> None:
    with pytest.raises(RemoteProtocolError):
        trace_in(fields, 5)
    assert trace_in(["00-1-2-01", 3], 5) == Trace("00-1-2-01", 3, 5)
