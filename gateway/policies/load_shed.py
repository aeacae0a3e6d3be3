"""Refuse early what cannot be served in time, the least important first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

from gateway.config import Priority
from gateway.errors import Overloaded, UpstreamError
from gateway.exchange import Exchange, Handler, Receive, Reply
from gateway.request_body import AHEAD, read_ahead

DROPS: Final = frozenset({500, 502, 503, 504})  # statuses by which an upstream says that it can't


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

    def try_upload(self) -> bool:
        """Let one send its body while it holds a slot; False when too many do."""
        ...

    def uploaded(self) -> None:
        """One has sent its body, or is gone; exactly once for each one let in."""
        ...


class _Upload:
    """The rest of a body, which its client sends at its own speed; counted until its end."""

    __slots__ = ("_gate", "_receive")

    def __init__(self, gate: Gate, receive: Receive) -> None:
        self._gate: Gate | None = gate
        self._receive = receive

    async def __call__(self) -> dict[str, Any]:
        """ASGI's receive."""
        message = await self._receive()
        if not message.get("more_body", False):
            self.end()
        return message

    def end(self) -> None:
        """It has come, or nobody waits for it. Safe to call again."""
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.uploaded()


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
            Overloaded: no slot is free, or too many are held by those that send large bodies.
            BadRequest, ClientGone, PayloadTooLarge, RequestTimeout: the body was not to be had.
        """
        lane, limiter = self._lane, self._limiter
        if exchange.has_body and exchange.receive is not None:
            await self._receive(exchange)
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

    async def _receive(self, exchange: Exchange) -> None:
        """Read a body, as far as one may be held; what comes later comes while the request holds a slot.

        A few slow senders would hold every slot else.
        """
        await read_ahead(exchange)
        receive = exchange.receive
        if receive is not None:
            if not self._gate.try_upload():
                raise Overloaded("too many large bodies are being sent; try again shortly", retry_after=1.0)
            upload = _Upload(self._gate, receive)
            exchange.defer(upload.end)
            exchange.receive = upload


def _short(length: int | None) -> bool:
    # A longer body goes at the client's speed, and tells nothing.
    return length is not None and length <= AHEAD
