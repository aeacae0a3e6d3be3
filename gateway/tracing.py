"""Spans by OpenTelemetry, for a share of the requests; imported only when tracing is configured.

The gateway begins every trace anew or joins the client's, and decides by itself what is recorded: a client's
wish to be traced would let anybody fill the collector. The upstream gets the decision in its traceparent
(W3C Trace Context), with the gateway's span as its parent.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags

from gateway.exchange import Exchange
from gateway.fields import values
from gateway.settings import Tracing
from gateway.upstream.forward import TRACEPARENT

_PATIENCE = 2.0  # seconds for the collector to take a batch, also at the end
_ERROR = 500  # statuses from here on are the server's fault


class _Ids(RandomIdGenerator):
    """Gives a fresh trace the request's own id, so that the access log leads to it."""

    trace_id = 0

    def generate_trace_id(self) -> int:
        """The id that was set for the span that is being started."""
        return self.trace_id


class RequestSpan:
    """One recorded request."""

    __slots__ = ("_exchange", "_span")

    def __init__(self, exchange: Exchange, span: trace.Span) -> None:
        self._exchange = exchange
        self._span = span

    def end(self, status: int) -> None:
        """Close the span with what became of the request."""
        exchange, span = self._exchange, self._span
        span.set_attribute("tidegate.outcome", exchange.outcome)
        if status:
            span.set_attribute("http.response.status_code", status)
        if exchange.upstream_seconds is not None:
            span.set_attribute("tidegate.upstream_seconds", exchange.upstream_seconds)
        if status >= _ERROR or exchange.broke_off:
            span.set_status(StatusCode.ERROR)
        span.end()


class RequestTracer:
    """Traces requests as a configuration says.

    Args:
        settings: where to, how many, under which name.
        chance: a number from 0 to 1, drawn for each request.
    """

    def __init__(self, settings: Tracing, chance: Callable[[], float] = random.random) -> None:
        self._sample = settings.sample
        self._chance = chance
        self._ids = _Ids()
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,  # what is not to be recorded never gets here
            resource=Resource.create({"service.name": settings.service}),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(f"{settings.endpoint.rstrip('/')}/v1/traces", timeout=_PATIENCE)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("tidegate.gateway")

    def begin(self, exchange: Exchange) -> RequestSpan | None:
        """Join the client's trace or begin one; None when this request is not recorded."""
        given = values(exchange.headers, b"traceparent")
        match = TRACEPARENT.fullmatch(given[0]) if len(given) == 1 else None
        recorded = self._chance() < self._sample
        span = None
        if recorded:
            parent = None
            if match is not None:
                remote = SpanContext(
                    int(match[1], 16), int(match[2], 16), True, TraceFlags(TraceFlags.SAMPLED)
                )
                parent = trace.set_span_in_context(NonRecordingSpan(remote))
            self._ids.trace_id = int(exchange.request_id, 16)
            span = self._tracer.start_span(
                f"{exchange.method} {exchange.route}",
                parent,
                SpanKind.SERVER,
                {
                    "http.request.method": exchange.method,
                    "http.route": exchange.route,
                    "url.scheme": exchange.scheme,
                    "tidegate.upstream": exchange.upstream,
                },
                start_time=time.time_ns() - int((time.perf_counter() - exchange.started) * 1e9),
            )
            exchange.span = span.get_span_context().span_id
        trace_id = int(match[1], 16) if match is not None else int(exchange.request_id, 16)
        ours = b"00-%032x-%016x-%02x" % (trace_id, exchange.span or 1, recorded)
        # A tracestate belongs to the traceparent beside it; without a good one it means nothing.
        dropped = {b"traceparent"} if match is not None else {b"traceparent", b"tracestate"}
        kept = [field for field in exchange.headers if field[0] not in dropped]
        exchange.headers = [*kept, (b"traceparent", ours)]
        return RequestSpan(exchange, span) if span is not None else None

    def close(self) -> None:
        """Send what is held; blocks for some seconds at most, so call it in a thread."""
        self._provider.shutdown()
