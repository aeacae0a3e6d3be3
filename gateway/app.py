"""The gateway as an ASGI app: guard, match, identify, walk the pipeline, send, account."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from gateway import error_page, guard, pipeline
from gateway.answer import framed
from gateway.config import Config, Listen
from gateway.errors import GatewayError, Internal
from gateway.exchange import ClientGone, Exchange, Handler, Header, Reply
from gateway.head import WholeRequest
from gateway.identity import Identity
from gateway.intake import ABORT
from gateway.parts import Parts
from gateway.routes import RouteTable
from gateway.state.switches import Switches
from gateway.whole import CLOSED, App, Send

_log = logging.getLogger("gateway")
_REQUEST_ID: Final = b"x-request-id"
_CLOSE = (b"connection", b"close")
_BYTES: Final = [b"%02x" % number for number in range(256)]


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """All that a configuration decides about a request; swapped whole."""

    listen: Listen
    table: RouteTable
    labels: list[tuple[str, str]]  # of each route: its pattern and its upstream
    chains: list[Handler]
    identity: Identity


class Gateway(App):
    """The app. `adopt` gives it a configuration, now and at each reload."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._snapshot: _Snapshot | None = None
        # With a counter behind: unique, and cheaper than randomness each time.
        self._ids = secrets.token_hex(10).encode()
        self._count = secrets.randbits(30) << 8
        self._ids_now = b""  # with all of the counter but its last byte

    async def adopt(self, config: Config) -> None:
        """Serve by this configuration from the next request on; those in flight end as they began.

        Raises:
            OSError, ValueError: as `Parts.adopt`.
        """
        await self._parts.adopt(config)
        self._rebuild(config)

    def apply(self, switches: Switches) -> None:
        """Let switches hold from the next request on."""
        if self._parts.apply(switches) and self._parts.config is not None:
            self._rebuild(self._parts.config)

    def _rebuild(self, config: Config) -> None:
        self._snapshot = _Snapshot(
            listen=config.listen,
            table=RouteTable(config.routes),
            labels=[(route.match, route.upstream) for route in config.routes],
            chains=[pipeline.build(route, self._parts) for route in config.routes],
            identity=self._parts.identity,
        )

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI's own
        """Answer one request that comes piece by piece."""
        if scope["type"] != "http" or self._snapshot is None:
            return
        exchange = Exchange.begin(scope, receive, self._next_id())
        status = CLOSED
        sent = 0
        try:
            begun = self.begin(exchange, scope)
            reply = begun if isinstance(begun, Reply) else await self.finish(begun, exchange)
            if reply is not None:
                status = reply.status
                sent = await self.send(reply, exchange, send, scope[ABORT])
        except asyncio.CancelledError:
            status = CLOSED  # the client left; what was begun for it ends here
        finally:
            self.account(exchange, status, sent)

    def receive(self, request: WholeRequest, address: str) -> Exchange:
        """The exchange of a request that came whole."""
        method, target, path = request.method, request.target, request.path
        host, body = request.host, request.body
        now, name = time.perf_counter(), self._next_id()
        # By position: keywords would cost a class half of all the rest.
        exchange = Exchange(method, target, path, request.headers, host, address, None, now, name, body)
        if body:
            exchange.content_length = len(body)
            exchange.has_body = True
        return exchange

    def _next_id(self) -> bytes:
        last = self._count & 0xFF
        if not last:
            self._ids_now = b"%b%010x" % (self._ids, self._count >> 8 & 0xFFFFFFFFFF)
        self._count += 1
        return self._ids_now + _BYTES[last]

    def begin(self, exchange: Exchange, scope: dict[str, Any] | None = None) -> Reply | Awaitable[Reply]:
        """Go as far as nothing is waited for: to a refusal, or to what is to be awaited by `finish`.

        Args:
            exchange: the request.
            scope: as ASGI has it, when the request is not vetted yet.
        """
        snapshot = self._snapshot
        assert snapshot is not None  # noqa: S101 - workers serve once they have a configuration
        try:
            if scope is not None:
                guard.inspect(scope, snapshot.listen, exchange)
            index, exchange.params = snapshot.table.match(
                exchange.host.decode(), exchange.method, exchange.path
            )
            exchange.route, exchange.upstream = snapshot.labels[index]
            snapshot.identity.identify(exchange)
            exchange.degraded = self._parts.switches.degraded
            return snapshot.chains[index](exchange)
        except Exception as error:  # noqa: BLE001 - a defect of ours must still be an answer
            return _failure(error, exchange)

    async def finish(self, answering: Awaitable[Reply], exchange: Exchange) -> Reply | None:
        """The reply that `begin` has under way, perhaps a refusal; None when the client left."""
        try:
            return await answering
        except ClientGone:
            return None
        except Exception as error:  # noqa: BLE001 - as in `begin`
            return _failure(error, exchange)

    def account(self, exchange: Exchange, status: int, sent: int) -> None:
        """End an exchange: let go what it holds; it will be counted and logged.

        Args:
            exchange: the request.
            status: as answered.
            sent: bytes of the body that went out.
        """
        exchange.finish()
        self._parts.accounts.add(exchange, status, sent)

    def added(self, exchange: Exchange) -> Header:
        """The fields of the answer that are not the reply's own."""
        return [*exchange.reply_headers, (_REQUEST_ID, exchange.request_id)]

    async def send(self, reply: Reply, exchange: Exchange, send: Send, abort: Callable[[], None]) -> int:
        """Send a reply as its pieces come; returns the bytes of its body that went out.

        Args:
            reply: closed when this returns.
            exchange: the request.
            send: an ASGI send channel.
            abort: cuts the connection off, so that a body that broke off does not look whole.
        """
        headers = [*reply.headers, *self.added(exchange)]
        if reply.stream is None:
            headers = [*framed(reply.status, headers, reply.body, exchange.method)]
            await send({"type": "http.response.start", "status": reply.status, "headers": headers})
            await send({"type": "http.response.body", "body": reply.body})
            return len(reply.body)
        sent = 0
        broken: Exception | None = None
        try:
            await send({"type": "http.response.start", "status": reply.status, "headers": headers})
            await send({"type": "http.response.body", "body": b"", "more_body": True})  # the header goes now
            async for chunk in reply.stream:
                sent += len(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        except Exception as error:  # noqa: BLE001 - whatever broke the body, it must not look whole
            broken = error
        except BaseException:  # the client left
            await reply.aclose()
            raise
        # Not in a `finally`: one that awaits, compiled, raises whatever its caller happens to be handling.
        await reply.aclose()
        if broken is not None:
            exchange.outcome = "failed"
            abort()
            said = exchange.request_id.decode()
            _log.info("request %s: the body broke off after %d bytes: %s", said, sent, broken)
        return sent


def _failure(error: Exception, exchange: Exchange) -> Reply:
    """The one place where an error becomes an answer; a browser's is a page.

    One refusal is made elsewhere, ready since nothing is cheaper: `rate_limit`'s over a limit.
    """
    if not isinstance(error, GatewayError):
        said = exchange.request_id.decode()
        _log.error("request %s to %s failed inside the gateway", said, exchange.route, exc_info=error)
        error = Internal("the gateway failed; the operators' log has the reason")
    exchange.outcome = error.outcome
    wait = error.wait
    page = error_page.page(exchange, type(error), wait, spread=max(2, wait // 2) if wait is not None else 0)
    headers, body = error.problem() if page is None else ([*page.fields, *error.fields], page.body)
    if not exchange.path or error.status in {408, 413}:  # what follows can't be taken for the next request
        headers = [*headers, _CLOSE]
    return Reply(error.status, headers, body)
