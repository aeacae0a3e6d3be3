"""A span for some requests, when tracing is configured; otherwise this stands in no chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gateway.errors import GatewayError
from gateway.exchange import Exchange, Handler, Reply


class Span(Protocol):
    """One request, as it is being traced."""

    def end(self, status: int) -> None:
        """The last byte is out, or the client left; 0 when nothing was answered."""
        ...


class Tracer(Protocol):
    """Who decides what is traced and keeps the spans."""

    def begin(self, exchange: Exchange) -> Span | None:
        """Put the request into a trace, for the upstream too; None when it is not recorded."""
        ...


@dataclass(frozen=True, slots=True)
class Trace:
    """Record the walk of a request from here to its last byte."""

    tracer: Tracer

    async def __call__(self, exchange: Exchange, proceed: Handler) -> Reply:
        """Handle one exchange."""
        span = self.tracer.begin(exchange)
        if span is None:
            return await proceed(exchange)
        status = 0
        exchange.defer(lambda: span.end(status))  # first in, so last out: the outcome is known then
        try:
            reply = await proceed(exchange)
        except GatewayError as error:
            status = error.status
            raise
        status = reply.status
        return reply
