"""A gateway before an upstream that the test scripts, and a Redis of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from tests.gateway.fake_shop import FakeShop
from tests.gateway.own_redis import OwnRedis
from tests.gateway.process import GatewayProcess
from tests.waiting import until


@pytest.fixture(name="until", scope="session")
def until_fixture() -> Any:
    return until


@pytest.fixture
async def shop() -> AsyncIterator[FakeShop]:
    """An upstream to script."""
    fake = FakeShop()
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def start_gateway(tmp_path: Path, shop: FakeShop) -> AsyncIterator[Any]:
    """Starts a gateway before the fake shop; keys given replace those of its configuration."""
    running: list[GatewayProcess] = []

    async def start(*words: str, env: dict[str, str] | None = None, **keys: Any) -> GatewayProcess:
        config = {
            "listen": {"port": 0, "workers": 2, "drain": "30s"},
            "admin": {"port": 0},
            "upstreams": {
                "shop": {"servers": [f"http://127.0.0.1:{shop.port}"], "timeout": {"total": "60s"}}
            },
            "features": {"recommendations": {"fallback": {"json": {"items": []}}}},
            "routes": [
                {"match": "/recommendations", "upstream": "shop", "feature": "recommendations"},
                {"match": "/**", "upstream": "shop"},
            ],
        } | keys
        file = tmp_path / f"gateway-{len(running)}.yaml"
        file.write_text(yaml.safe_dump(config))
        gateway = GatewayProcess(file)
        running.append(gateway)
        await gateway.start(*words, env=env)
        return gateway

    yield start
    for gateway in running:
        if gateway.process is not None and gateway.process.returncode is None:
            gateway.process.kill()
        await gateway.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one_gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayProcess]:
    """A gateway for tests that leave it as they found it; nothing stands behind it."""
    file = tmp_path_factory.mktemp("gateway") / "gateway.yaml"
    config = {
        "listen": {"port": 0, "workers": 1},
        "admin": {"port": 0},
        "upstreams": {"shop": {"servers": ["http://127.0.0.1:9"]}},
        "features": {"recommendations": {"fallback": {"json": {"items": []}}}},
        "limits": {"all": {"rate": "100/second", "per": "global"}},
        "routes": [{"match": "/**", "upstream": "shop", "feature": "recommendations", "limits": ["all"]}],
    }
    file.write_text(yaml.safe_dump(config))
    gateway = GatewayProcess(file)
    await gateway.start()
    yield gateway
    await gateway.stop()


@pytest.fixture
def own_redis(tmp_path_factory: pytest.TempPathFactory, short_tmp: Path) -> Iterator[OwnRedis]:
    """A Redis of this test's own."""
    folder = short_tmp / tmp_path_factory.mktemp("own").name
    folder.mkdir()
    server = OwnRedis(folder)
    yield server
    server.stop()
