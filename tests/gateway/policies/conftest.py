"""What the policies' tests share: requests without a network, and a clock that is a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gateway.exchange import Exchange
from tests.clock import Clock
from tests.gateway import exchanges


async def _nothing() -> dict[str, Any]:
    return {"type": "http.disconnect"}


@pytest.fixture
def clock() -> Clock:
    """A clock at 1000 s."""
    return Clock()


@pytest.fixture
def exchange() -> Callable[..., Exchange]:
    """`exchange(method="GET")`: a request for /x from one client."""

    def make(method: str = "GET") -> Exchange:
        return exchanges.plain(method=method, receive=_nothing)

    return make
