"""What the cache's tests share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.exchange import Exchange
from tests.gateway.cache.bench import Bench, request


@pytest.fixture
def bench() -> Callable[..., Bench]:
    """`bench(ttl=…)`: a cache with these settings."""
    return Bench


@pytest.fixture
def request_for() -> Callable[..., Exchange]:
    """`request_for("POST", target="/x", cookie="a=b")`: a request without a network."""
    return request
