"""The gateway as an ASGI app: guard, match, identify, walk the pipeline, send, account."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from dataclasses import dataclass
from typing import Any

from gateway import access_log, guard, pipeline
from gateway.client import ABORT
from gateway.config import Config, Listen
from gateway.errors import GatewayError, Internal
from gateway.exchange import ClientGone, Exchange, Handler, Headers, Reply
from gateway.identity import Identity
from gateway.parts import Parts
from gateway.routes import RouteTable
from gateway.state.switches import Switches

_log = logging.getLogger("gateway")
_CLOSED = 499  # nginx's code for a client that left; for metrics and log only
_REQUEST_ID = b"x-request-id"
_CLOSE = (b"connection", b"close")
_UNROUTED = "(none)"  # the label of requests that no route took


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """All that a configuration decides about a request; swapped whole."""

    listen: Listen
    table: RouteTable
    labels: list[tuple[str, str]]  # of each route: its pattern and its upstream
    chains: list[Handler]
    identity: Identity


class Gateway:
    """The app. `adopt` gives it a configuration, now and at each reload."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._metrics = parts.metrics
        self._snapshot: _Snapshot | None = None
        self._ids = secrets.token_hex(
            10
        )  # with a counter behind: unique, and cheaper than randomness each time
        self._count = secrets.randbits(30)

    async def adopt(self, config: Config) -> None:
        """Serve by this configuration from the next request on; those in flight end as they began.

        Raises:
            OSError: a file it names can't be opened; nothing has changed then.
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
        """Answer one request."""
        started = time.perf_counter()
        snapshot = self._snapshot
        if scope["type"] != "http" or snapshot is None:
            return
        self._count += 1
        client = scope["client"]
        exchange = Exchange(
            method=scope["method"],
            target=b"",
            path="",
            headers=scope["headers"],
            host=b"",
            address=client[0] if client else "",
            receive=receive,
            started=started,
            scheme=scope["scheme"],
            request_id=f"{self._ids}{self._count & 0xFFFFFFFFFFFF:012x}",
        )
        status = _CLOSED
        sent = 0
        try:
            reply = await self._answer(scope, exchange, snapshot)
            if reply is not None:
                status = reply.status
                sent = await _send(reply, exchange, scope, send)
        except asyncio.CancelledError:
            status = _CLOSED  # the client left; what was begun for it ends here
        finally:
            exchange.finish()
            self._account(exchange, status, sent, time.perf_counter() - started)

    async def _answer(self, scope: dict[str, Any], exchange: Exchange, snapshot: _Snapshot) -> Reply | None:
        """The reply, be it the upstream's or a refusal; None when the client left."""
        try:
            guard.inspect(scope, snapshot.listen, exchange)
            index, exchange.params = snapshot.table.match(
                exchange.host.decode(), exchange.method, exchange.path
            )
            exchange.route, exchange.upstream = snapshot.labels[index]
            snapshot.identity.identify(exchange)
            exchange.degraded = self._parts.switches.degraded
            return await snapshot.chains[index](exchange)
        except GatewayError as error:
            exchange.outcome = error.outcome
            return _refusal(error, exchange)
        except ClientGone:
            return None
        except Exception:  # noqa: BLE001 - a defect of ours must still be an answer
            _log.exception("request %s to %s failed inside the gateway", exchange.request_id, exchange.route)
            exchange.outcome = Internal.outcome
            return _refusal(Internal("the gateway failed; the operators' log has the reason"), exchange)

    def _account(self, exchange: Exchange, status: int, sent: int, seconds: float) -> None:
        metrics = self._metrics
        metrics.request(exchange.route or _UNROUTED, exchange.method, status, exchange.outcome, seconds)
        if exchange.upstream_seconds is not None:
            metrics.upstream(exchange.upstream, exchange.upstream_seconds)
        log = self._parts.access_log
        if log is not None:
            log.write(access_log.record(exchange, status, sent, seconds))


def _refusal(error: GatewayError, exchange: Exchange) -> Reply:
    """The one place where an error becomes an answer."""
    headers, body = error.problem()
    if not exchange.path or error.status in {408, 413}:  # what follows can't be taken for the next request
        headers.append(_CLOSE)
    return Reply(error.status, headers, body)


def _frame(status: int, headers: Headers, length: int) -> None:
    """Say how long a whole body is, where one may be and nobody has said it."""
    if status not in {204, 304} and not any(name == b"content-length" for name, _ in headers):
        headers.append((b"content-length", b"%d" % length))


async def _send(reply: Reply, exchange: Exchange, scope: dict[str, Any], send: Any) -> int:  # noqa: ANN401 - ASGI's own
    """Send a reply; returns the bytes of its body that went out."""
    # The id is the gateway's, as told to the upstream; an upstream that echoes it says nothing new.
    headers = [field for field in reply.headers if field[0] != _REQUEST_ID] + exchange.reply_headers
    headers.append((_REQUEST_ID, exchange.request_id.encode()))
    if reply.stream is None:
        body = reply.body
        if body or exchange.method != "HEAD":  # a HEAD's length is the upstream's to tell
            _frame(reply.status, headers, len(body))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        return len(body)
    sent = 0
    try:
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"", "more_body": True})  # the header goes now
        async for chunk in reply.stream:
            sent += len(chunk)
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    except asyncio.CancelledError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever broke the body, it must not look whole
        exchange.outcome = "failed"
        scope[ABORT]()
        _log.info("request %s: the body broke off after %d bytes: %s", exchange.request_id, sent, error)
    finally:
        await reply.aclose()
    return sent
