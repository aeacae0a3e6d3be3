"""A request that came whole, and its answer: without a task while only an upstream is awaited."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Protocol

from gateway.answer import Answer, Wire, framed
from gateway.exchange import Exchange, Header, Reply
from gateway.field import Block
from gateway.head import WholeRequest
from gateway.walk import Walk

CLOSED: Final = 499  # nginx's code for a client that left; for metrics and log only
_log = logging.getLogger("gateway")
Send = Callable[[dict[str, Any]], Awaitable[None]]  # an ASGI send channel


class App(Protocol):
    """What answers requests."""

    __slots__ = ()

    def receive(self, request: WholeRequest, address: str) -> Exchange:
        """The exchange of a request that came whole."""
        ...

    def begin(self, exchange: Exchange) -> Reply | Awaitable[Reply]:
        """Go as far as nothing is waited for: to a refusal, or to what is to be awaited by `finish`."""
        ...

    def finish(self, answering: Awaitable[Reply], exchange: Exchange) -> Coroutine[Any, Any, Reply | None]:
        """The reply that `begin` has under way; None when the client left."""
        ...

    def added(self, exchange: Exchange) -> Header:
        """The fields of the answer that are not the reply's own."""
        ...

    def send(
        self, reply: Reply, exchange: Exchange, send: Send, abort: Callable[[], None]
    ) -> Coroutine[Any, Any, int]:
        """Send a reply as its pieces come; returns the bytes of its body that went out."""
        ...

    def account(self, exchange: Exchange, status: int, sent: int) -> None:
        """End an exchange: let go what it holds, count it, log it."""
        ...


class WholeTurn(Answer):
    """One such request on a client's connection."""

    __slots__ = ("_app", "_exchange", "_status", "_walk")

    def __init__(self, wire: Wire, app: App, request: WholeRequest, address: str) -> None:
        super().__init__(wire, request.method, old=False, keep_alive=request.keep_alive)
        self._app = app
        self._exchange = app.receive(request, address)
        self._status = CLOSED
        self._walk: Walk[Any] | None = None

    def go(self) -> None:
        """Begin; it may be over when this returns."""
        app, exchange = self._app, self._exchange
        begun = app.begin(exchange)
        if type(begun) is Reply:
            self._replied(begun, None)
        else:
            self._walk = Walk(app.finish(begun, exchange), self._wire.loop, self._replied)
            self._walk.resume()

    def leave(self) -> None:
        """The client is gone: what is done for it stops."""
        self.gone = True
        if self._walk is not None:
            self._walk.cancel()

    def _replied(self, reply: Reply | None, error: BaseException | None) -> None:
        self._walk = None
        if reply is None:
            self._end(0, error)
        elif reply.stream is not None or self._wire.blocked or self.gone:
            self._status = reply.status
            sending = self._app.send(reply, self._exchange, self.send, self._wire.abort)
            self._walk = Walk(sending, self._wire.loop, self._end)
            self._walk.resume()
            if self.gone:  # it left when the walk before was at its end
                self.leave()
        else:
            self._status = reply.status
            headers, body = reply.headers, reply.body
            if type(headers) is not Block:
                headers = framed(reply.status, headers, body, self.method)
            try:
                self.give(reply.status, headers, self._app.added(self._exchange), body)
            except RuntimeError as broken:
                self._end(0, broken)
            else:
                self._end(len(body), None)

    def _end(self, sent: int | None, error: BaseException | None) -> None:
        self._walk = None
        if isinstance(error, asyncio.CancelledError):
            self._status = CLOSED
        elif error is not None:
            _log.error("the answer to a request broke off", exc_info=error)
        self._app.account(self._exchange, self._status, sent or 0)
        self._wire.over(self)
        if error is not None and not isinstance(error, Exception | asyncio.CancelledError):
            raise error  # SystemExit and the like
