"""Refuse early what cannot be served in time, the least important first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from gateway.config import Priority
from gateway.errors import UpstreamError
from gateway.exchange import Exchange, Handler, Reply
from gateway.request_body import AHEAD, read_ahead

DROPS = frozenset({500, 502, 503, 504})  # statuses by which an upstream says that it can't


class Lane(Protocol):
    """One priority's way to an upstream's slots."""

    def try_enter(self) -> bool:
        """Take a slot; False when none is free for this priority."""
        ...

    async def wait(self, user: str) -> None:
        """Take a slot once one is free for this user; raises Overloaded when that takes too long."""
        ...

    def leave(self) -> None:
        """Give back a slot; exactly once for each one taken."""
        ...


class Limiter(Protocol):
    """Who learns from answers how much an upstream can take."""

    generation: int

    def answered(self, generation: int, route: str, seconds: float, in_flight: int) -> None:
        """The upstream answered a request that was admitted under this generation of the limit."""
        ...

    def failed(self, generation: int, in_flight: int) -> None:
        """It did not, or said that it can't."""
        ...


class Gate(Protocol):
    """Who decides how many requests an upstream holds at once."""

    @property
    def in_flight(self) -> int:
        """Requests that it holds."""
        ...

    @property
    def lanes(self) -> Mapping[Priority, Lane]:
        """The way in for each priority."""
        ...

    @property
    def limiter(self) -> Limiter | None:
        """Who learns from the answers; None where the limit is fixed."""
        ...


class LoadShed:
    """Admit a request as soon as there is a slot for its priority, or refuse it; learn from the answer.

    Args:
        gate: the upstream's, shared by all its routes in this worker.
        priority: the route's.
    """

    __slots__ = ("_gate", "_lane", "_limiter")

    def __init__(self, gate: Gate, priority: Priority) -> None:
        self._gate = gate
        self._lane = gate.lanes[priority]
        self._limiter = gate.limiter

    async def __call__(self, exchange: Exchange, proceed: Handler) -> Reply:
        """Handle one exchange.

        Raises:
            Overloaded: no slot is free.
            BadRequest, ClientGone, PayloadTooLarge, RequestTimeout: the body was not to be had.
        """
        lane, limiter = self._lane, self._limiter
        if exchange.has_body and exchange.receive is not None:
            await read_ahead(exchange)  # or a few slow senders would hold every slot
        if not lane.try_enter():
            await lane.wait(exchange.user or exchange.address)
        exchange.defer(lane.leave)  # after the last body byte or a disconnect
        if limiter is None:
            return await proceed(exchange)
        generation = limiter.generation
        try:
            reply = await proceed(exchange)
        except UpstreamError:
            limiter.failed(generation, self._gate.in_flight)
            raise
        seconds = exchange.upstream_seconds  # None unless the upstream itself was asked
        if seconds is not None:
            if reply.status in DROPS:
                limiter.failed(generation, self._gate.in_flight)
            elif not exchange.has_body or _short(exchange.content_length):
                limiter.answered(generation, exchange.route, seconds, self._gate.in_flight)
        return reply


def _short(length: int | None) -> bool:
    # A longer body goes at the client's speed, and tells nothing.
    return length is not None and length <= AHEAD
