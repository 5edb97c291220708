"""Traces of pieces through manager, wire and worker, by OpenTelemetry.

A piece is one span in the manager, from its submission to its outcome. What its worker
sees of it are spans below that one: its way over the wire, its wait in the worker's
inbox, and its ``perform()``, in which spans of the user's own may stand. All are below
the span of the job, and that is below whatever span the script is in.

Without ``[tracing] endpoint`` nothing of this is imported.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from opencluster.errors import ConfigError, RemoteProtocolError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span

    from opencluster.config import TracingSettings
    from opencluster.engines.base import Done, Job, Outcome

FILE_PREFIX = "file:"
MAX_PARENT = 128
"""Characters of a trace's identity; W3C Trace Context has 55."""
NAME_VARIABLE = "OTEL_SERVICE_NAME"
"""By it a site may name its processes as it likes."""
FLUSH_MS = 5000
"""Longest wait at the end of a process for its spans to leave."""


class Trace(NamedTuple):
    """What a piece brings along to its worker.

    Attributes
    ----------
    parent : str
        The manager's span, as ``traceparent`` of W3C Trace Context.
    sent_ns, received_ns : int
        When it was sent and when it came, nanoseconds since 1970, each by the clock of
        its computer.
    """

    parent: str
    sent_ns: int
    received_ns: int


class Tracing:
    """Makes the spans of one process, and sends them where they are collected.

    Parameters
    ----------
    exporter : SpanExporter
        The way there.
    sample_ratio : float
        The part of all traces that is kept, unless the script has decided for its own.
    service : str
        The name under which the process is shown.
    """

    def __init__(
        self, exporter: SpanExporter, sample_ratio: float, service: str
    ) -> None:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
        from opentelemetry.trace.propagation.tracecontext import (
            TraceContextTextMapPropagator,
        )

        self._trace = trace
        named = {} if NAME_VARIABLE in os.environ else {"service.name": service}
        self._propagator = TraceContextTextMapPropagator()
        self._provider = TracerProvider(
            sampler=ParentBasedTraceIdRatio(sample_ratio),
            resource=Resource.create(named),
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("opencluster")
        is_unset = isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
        if is_unset:
            # so that spans of the user's own inside perform() go the same way
            trace.set_tracer_provider(self._provider)

    # --- in the manager ------------------------------------------------------

    @contextlib.contextmanager
    def job(self, job: Job) -> Iterator[None]:
        """Trace a job; what is submitted inside stands below it."""
        attributes = {"opencluster.job.id": job.id}
        with self._tracer.start_as_current_span(
            f"job {job.name}", attributes=attributes
        ):
            yield

    def begin(self, type: str, number: int, nbytes: int, job: Job | None) -> Span:
        """Begin the span of a piece that was submitted in this thread."""
        attributes: dict[str, str | int] = {
            "opencluster.piece": number,
            "opencluster.type": type,
            "opencluster.bytes": nbytes,
        }
        if job is not None:
            attributes["opencluster.job.id"] = job.id
        kind = self._trace.SpanKind.PRODUCER
        return self._tracer.start_span(
            f"piece {type}", kind=kind, attributes=attributes
        )

    def ending(self, span: Span, done: Done) -> Done:
        """Return what ends a span with the piece's outcome, and then does the rest."""

        def ended(number: int, outcome: Outcome) -> None:
            if outcome.worker:
                span.set_attribute("opencluster.worker", outcome.worker)
            if outcome.error is not None:
                span.record_exception(outcome.error)
                self._fail(span, str(outcome.error))
            span.end()
            done(number, outcome)

        return ended

    def sent(self, span: Span, worker: str) -> list[Any] | None:
        """Note that a piece leaves; return what its worker must know of its trace."""
        if not span.is_recording():
            return None
        span.add_event("sent", {"opencluster.worker.id": worker})
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, self._trace.set_span_in_context(span))
        return [carrier["traceparent"], time.time_ns()]

    # --- in the worker -------------------------------------------------------

    def performed(
        self, trace: Trace, type: str, number: int, perform: Callable[[], Any]
    ) -> tuple[str, Any]:
        """Trace a piece that is performed, and how it came here.

        Parameters
        ----------
        trace : Trace
            What it brought along.
        type : str
            The worker's type.
        number : int
            The piece's number.
        perform : callable
            Performs it; returns how it ended (``done``, ``failed``, ...) and what with.
        """
        above = self._propagator.extract({"traceparent": trace.parent})
        begun_ns = time.time_ns()
        stretches = (
            ("wire", trace.sent_ns, trace.received_ns),
            ("inbox", trace.received_ns, begun_ns),
        )
        for name, start_ns, end_ns in stretches:
            span = self._tracer.start_span(name, above, start_time=start_ns)
            span.end(max(start_ns, end_ns))
        kind = self._trace.SpanKind.CONSUMER
        attributes: Mapping[str, str | int]
        attributes = {"opencluster.piece": number, "opencluster.type": type}
        with self._tracer.start_as_current_span(
            f"perform {type}", above, kind=kind, attributes=attributes
        ) as span:
            status, value = perform()
            span.set_attribute("opencluster.status", status)
            if status != "done":
                said = value.get("message", "") if isinstance(value, dict) else ""
                self._fail(span, f"{status}: {said}".rstrip(": "))
        return status, value

    # --- both ----------------------------------------------------------------

    def close(self) -> None:
        """Send what is left, for some seconds at most."""
        self._provider.force_flush(FLUSH_MS)

    def _fail(self, span: Span, why: str) -> None:
        span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, why))


def tracing_of(settings: TracingSettings, service: str) -> Tracing | None:
    """Return what traces in this process, or ``None`` where tracing is off.

    Parameters
    ----------
    settings : TracingSettings
        Where spans go, and how many.
    service : str
        The name under which the process is shown, unless it traces already.

    Raises
    ------
    ConfigError
        When they cannot go there.
    """
    if not settings.endpoint:
        return None
    return _tracing(settings.endpoint, settings.sample_ratio, service)


def trace_in(fields: Any, received_ns: int) -> Trace:
    """Return the trace that came with a piece.

    Raises
    ------
    RemoteProtocolError
        When it is malformed.
    """
    match fields:
        case [str(parent), int(sent_ns)] if len(parent) <= MAX_PARENT and sent_ns >= 0:
            return Trace(parent, sent_ns, received_ns)
    raise RemoteProtocolError("a piece with a malformed trace")


@functools.cache
def _tracing(endpoint: str, sample_ratio: float, service: str) -> Tracing:
    try:
        return Tracing(_exporter(endpoint), sample_ratio, service)
    except ModuleNotFoundError as missing:
        raise ConfigError(
            f"[tracing] endpoint needs the Python package {missing.name}: install it "
            "with pip install 'opencluster[tracing]', or leave the setting empty"
        ) from missing


def _exporter(endpoint: str) -> SpanExporter:
    if endpoint.startswith(FILE_PREFIX):
        return _file_exporter(Path(endpoint.removeprefix(FILE_PREFIX)))
    if not endpoint.startswith(("http://", "https://")):
        raise ConfigError(
            f"[tracing] endpoint is {endpoint!r}: write the address of a collector, "
            "such as http://collector:4318/v1/traces, or file:/path/of/traces.jsonl"
        )
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint)


def _file_exporter(path: Path) -> SpanExporter:
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter

    try:
        # a line is one write, so that several processes may append to one file
        file = path.open("a", buffering=1, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"[tracing] endpoint: no traces in {path}: {error.strerror}"
        ) from None

    class FileSpanExporter(ConsoleSpanExporter):
        def shutdown(self) -> None:
            file.close()

    return FileSpanExporter(
        out=file, formatter=lambda span: span.to_json(indent=None) + "\n"
    )
