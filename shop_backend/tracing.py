"""W3C Trace Context through the shop: from a request into stream entries, and on to who works them off.

The traceparent travels always, and its id stands in log lines. Spans are recorded only when
OTEL_EXPORTER_OTLP_ENDPOINT is set, and only for traces that the gateway has chosen to record.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shop_backend.errors import SetupError

if TYPE_CHECKING:
    from opentelemetry.trace import Span, SpanKind

FIELD = "trace"  # of a stream entry
_PATTERN = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_PATIENCE = 2.0  # seconds for the collector to take a batch, also at the end
_ERROR = 500  # statuses from here on are the server's fault

_current: ContextVar[str] = ContextVar("traceparent", default="")


def current() -> str:
    """The traceparent to hand on, "" when there is none."""
    return _current.get()


def trace_id() -> str:
    """The id of the trace that this code runs in, "" when there is none."""
    return _current.get()[3:35]


class Recorder:
    """Makes spans and sends them away, in a thread of its own.

    Args:
        endpoint: the collector's base URL, OTLP over HTTP.
        service: the name under which the spans are found.

    Raises:
        SetupError: OpenTelemetry is not installed.
    """

    def __init__(self, endpoint: str, service: str) -> None:
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise SetupError(
                f"tracing needs OpenTelemetry ({error}): pip install 'tidegate[otel]', or unset"
                " OTEL_EXPORTER_OTLP_ENDPOINT"
            ) from error
        self._api = trace
        resource = Resource.create({"service.name": service})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=_PATIENCE)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("tidegate.shop")

    def begin(self, name: str, kind: SpanKind, parent: str) -> Span | None:
        """A child of a traceparent; None when its trace is not recorded."""
        match = _PATTERN.fullmatch(parent)
        if match is None or not int(match[3], 16) & self._api.TraceFlags.SAMPLED:
            return None
        flags = self._api.TraceFlags(self._api.TraceFlags.SAMPLED)
        remote = self._api.SpanContext(
            int(match[1], 16), int(match[2], 16), is_remote=True, trace_flags=flags
        )
        context = self._api.set_span_in_context(self._api.NonRecordingSpan(remote))
        return self._tracer.start_span(name, context, kind)

    def close(self) -> None:
        """Send what is held; blocks for some seconds at most."""
        self._provider.shutdown()


_recorder: Recorder | None = None


@contextlib.contextmanager
def recording(endpoint: str | None, service: str) -> Iterator[None]:
    """Record spans meanwhile, when there is somewhere to send them; send what is held at the end.

    Raises:
        SetupError: OpenTelemetry is not installed.
    """
    global _recorder
    if not endpoint:
        yield
        return
    _recorder = recorder = Recorder(endpoint, service)
    try:
        yield
    finally:
        _recorder = None
        recorder.close()


def _traceparent(span: Span) -> str:
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


class Traced:
    """ASGI middleware: the request runs in the trace that its traceparent names."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, recorded or not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = [value for name, value in scope["headers"] if name == b"traceparent"]
        parent = given[0].decode("latin-1") if len(given) == 1 else ""
        if not _PATTERN.fullmatch(parent):
            parent = ""
        token = _current.set(parent)
        try:
            if _recorder is None or not parent:
                await self._app(scope, receive, send)
            else:
                await self._recorded(_recorder, parent, scope, receive, send)
        finally:
            _current.reset(token)

    async def _recorded(
        self, recorder: Recorder, parent: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        from opentelemetry.trace import SpanKind, StatusCode

        span = recorder.begin(scope["method"], SpanKind.SERVER, parent)
        if span is None:
            await self._app(scope, receive, send)
            return
        _current.set(_traceparent(span))
        span.set_attribute("http.request.method", scope["method"])

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                span.set_attribute("http.response.status_code", message["status"])
                if message["status"] >= _ERROR:
                    span.set_status(StatusCode.ERROR)
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            # The endpoint's name, never the path: that holds order ids and their tokens.
            endpoint = getattr(scope.get("endpoint"), "__qualname__", "")
            if endpoint:
                span.update_name(f"{scope['method']} {endpoint.replace('.<locals>', '')}")
            span.end()


@contextlib.contextmanager
def handling(stream: str, parents: Iterable[str]) -> Iterator[None]:
    """While a batch of a stream's entries is worked on: a span for each that is recorded."""
    if _recorder is None:
        yield
        return
    from opentelemetry.trace import SpanKind

    begun = (_recorder.begin(f"process {stream}", SpanKind.CONSUMER, parent) for parent in parents if parent)
    spans = [span for span in begun if span is not None]
    for span in spans:
        span.set_attribute("messaging.destination.name", stream)
    try:
        yield
    finally:
        for span in spans:
            span.end()
