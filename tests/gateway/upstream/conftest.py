"""A bench for every test: scripted upstreams and clients of them, ended with the test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.gateway.upstream.scripted import Bench


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.aclose()
