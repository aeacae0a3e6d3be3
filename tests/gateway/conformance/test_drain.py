"""SIGTERM, reloads and dying upstream connections under a keep-alive load: no request is lost."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import yaml

from tests.gateway.conformance.wire import Client, Upstream, Violation
from tests.gateway.process import GatewayProcess

REQUESTS = (
    b"GET /a HTTP/1.1\r\nHost: shop.example\r\n\r\n",
    b"POST /b HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5\r\n\r\nhello",
)


@dataclass
class Load:
    """Clients that ask again and again over connections they keep.

    Attributes:
        answered: answers with status 200.
        retried: requests whose reused connection was closed before a byte of an answer (RFC 9112, 9.3.1).
        failures: everything else.
        refused: clients that found the door closed, and left.
    """

    port: int
    answered: int = 0
    retried: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list)
    stopping: bool = False
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self, clients: int, *, per_connection: int = 1_000_000) -> None:
        for number in range(clients):
            request = REQUESTS[number % len(REQUESTS)]
            self._tasks.append(asyncio.create_task(self._client(request, per_connection)))

    async def stop(self) -> None:
        self.stopping = True
        await asyncio.gather(*self._tasks)

    async def _client(self, request: bytes, per_connection: int) -> None:
        client: Client | None = None
        used = 0
        try:
            while not self.stopping:
                if client is None:
                    try:
                        client, used = await Client.to(self.port), 0
                    except ConnectionRefusedError:
                        self.refused += 1
                        return
                if await self._one(client, request, reused=used > 0):
                    used += 1
                if client.writer.is_closing() or used >= per_connection:
                    client.writer.close()
                    client = None
        finally:
            if client is not None:
                client.writer.close()

    async def _one(self, client: Client, request: bytes, *, reused: bool) -> bool:
        what = "closed"
        try:
            client.send(request)
            answer = await client.answer()
        except (ConnectionError, asyncio.IncompleteReadError, Violation) as error:
            answer, what = None, repr(error)
            if not isinstance(error, ConnectionError):
                reused = False  # some bytes of an answer had come
        if answer is None:
            client.writer.close()
            if reused:
                self.retried += 1
            else:
                self.failures.append(what)
            return False
        if answer.status == 200:
            self.answered += 1
        else:
            self.failures.append(answer.first.decode())
        if answer.closes:
            client.writer.close()
        return True


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    await upstream.start()
    yield upstream
    await upstream.stop()
    assert upstream.violations == []


@pytest.fixture
async def gateway(start_gateway: Callable[..., Any], upstream: Upstream) -> GatewayProcess:
    """Two workers before the strict upstream."""
    started: GatewayProcess = await start_gateway(
        upstreams={"shop": {"servers": [f"http://127.0.0.1:{upstream.port}"]}}
    )
    return started


async def test_sigterm_under_load_loses_nothing(
    gateway: GatewayProcess, upstream: Upstream, until: Any
) -> None:
    """What was sent on an open connection is answered; then the door is closed, and all is given back."""
    steady, hasty = Load(gateway.port), Load(gateway.port)
    steady.start(24)
    hasty.start(8, per_connection=1)  # a new connection for each request, as the door closes
    await until(lambda: steady.answered > 300 and hasty.answered > 50)

    assert gateway.process is not None
    gateway.process.send_signal(signal.SIGTERM)

    assert await gateway.stop() == 0
    await asyncio.gather(steady.stop(), hasty.stop())
    assert (steady.failures, hasty.failures) == ([], [])
    assert hasty.retried == 0  # only a reused connection may be closed under a request
    assert steady.refused + hasty.refused == 32
    assert len(upstream.seen) == steady.answered + hasty.answered


async def test_reloads_under_load_lose_nothing(
    gateway: GatewayProcess, upstream: Upstream, until: Any
) -> None:
    """Edits that swap the upstream's pool, its limits and the routes, one broken one among them."""
    load = Load(gateway.port)
    load.start(24)
    servers = [f"http://127.0.0.1:{upstream.port}"]
    for edit in range(6):
        before = load.answered
        gateway.edit(
            upstreams={
                "shop": {"servers": servers, "max_connections": 64 + edit, "breaker": {"probes": 1 + edit}}
            },
            limits={"all": {"rate": f"{100_000 + edit}/second", "per": "global"}},
            routes=[{"match": "/**", "upstream": "shop", "limits": ["all"]}] if edit != 3 else "broken",
        )

        async def taken(wanted: int = edit + 1) -> bool:
            return await gateway.metric("tidegate_config_reloads_total") == wanted

        await until(taken)
        await until(lambda before=before: load.answered > before + 100)
    await load.stop()

    assert load.failures == []
    assert load.retried == 0
    assert load.answered == len(upstream.seen)
    assert await gateway.metric("tidegate_config_reloads_total", result="failure") == 1
    assert yaml.safe_load(gateway.config.read_text())["routes"] != "broken"


async def test_an_upstream_that_closes_between_requests(
    start_gateway: Callable[..., Any], upstream: Upstream, until: Any
) -> None:
    """Kept connections that the upstream drops at random cost no GET, and no POST runs twice."""
    gateway = await start_gateway(upstreams={"shop": {"servers": [f"http://127.0.0.1:{upstream.port}"]}})
    load = Load(gateway.port)
    load.start(24)
    for _ in range(20):
        before = load.answered
        for writer in list(upstream.connections)[::2]:
            writer.close()
        await until(lambda before=before: load.answered > before + 50)
    await load.stop()

    # A POST on a connection that was closed under it can't be sent again, nor can it be told whether it
    # was seen: 502. Nothing else may fail, and no request may be seen more often than it was sent.
    assert set(load.failures) <= {"HTTP/1.1 502 Bad Gateway"}
    posts = sum(message.method == b"POST" for message in upstream.seen)
    assert posts <= load.answered + len(load.failures)
