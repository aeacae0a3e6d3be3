"""A bench for every test: scripted upstreams and clients of them, ended with the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from tests.gateway.upstream.scripted import Bench


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.aclose()


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Production runs on uvloop; the standard loop is stricter. Both must do."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
