"""One gateway for a module of tests, before an upstream that counts and parses strictly."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import psutil
import pytest
import pytest_asyncio
import yaml

from tests.gateway.conformance.wire import Client, Upstream
from tests.gateway.process import GatewayProcess


@dataclass
class Stand:
    """A gateway between its two ends."""

    gateway: GatewayProcess
    upstream: Upstream

    async def client(self, *, receive_buffer: int = 0) -> Client:
        return await Client.to(self.gateway.port, receive_buffer=receive_buffer)

    async def in_flight(self) -> float:
        return await self.gateway.metric("tidegate_in_flight")

    def connections(self) -> int:
        """Client connections that the gateway's workers hold."""
        return sum(
            connection.laddr.port == self.gateway.port and connection.status != psutil.CONN_LISTEN
            for worker in self.gateway.workers()
            for connection in worker.net_connections(kind="tcp")
        )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stand(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    """The gateway runs as one worker, of little patience with clients; machines stand still for less."""
    upstream = Upstream()
    await upstream.start()
    file = tmp_path_factory.mktemp("conformance") / "gateway.yaml"
    config = {
        "listen": {
            "port": 0,
            "workers": 1,
            "max_body": "1MiB",
            "drain": "5s",
            "idle_timeout": "4s",
            "header_timeout": "3s",
            "body_timeout": "3s",
            "write_timeout": "3s",
        },
        "admin": {"port": 0},
        "upstreams": {
            "shop": {
                "servers": [f"http://127.0.0.1:{upstream.port}"],
                "concurrency": {"max": 400},
                "timeout": {"total": "60s"},  # what a client leaves behind must not end by this clock
            }
        },
        "limits": {"none": {"rate": "1/day", "per": "global"}},
        "routes": [
            {"match": "/limited", "upstream": "shop", "limits": ["none"]},
            {"match": "/**", "upstream": "shop"},
        ],
    }
    file.write_text(yaml.safe_dump(config))
    gateway = GatewayProcess(file)
    await gateway.start()
    yield Stand(gateway, upstream)
    assert upstream.violations == []
    assert await gateway.stop() == 0
    assert "Traceback" not in gateway.log()
    assert "graceful shutdown exceeded" not in gateway.log()  # uvicorn's words for a task left over
    await upstream.stop()
