"""A shop that hangs is given up quickly, and taken back when it answers again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import httpx

from tests.waiting import PATIENCE

OPEN = "urn:tidegate:upstream-unavailable"
UNCACHED = "/api/cart"  # a stranger's, empty; nobody keeps it, and each who asks is answered on its own


async def test_a_hung_shop_opens_the_breaker_which_closes_by_itself(
    stack: Any, http_client: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    """Clients get 503 problem+json at once while it hangs, and the shop again afterwards."""
    clients = [http_client(stack.url) for _ in range(120)]  # enough for every worker's window
    for client in clients:  # one by one: all at once may be more than a busy machine's shop can take
        assert (await client.call("POST", "/api/session", {})).status == 201

    shop = stack.service_pid("shop")
    os.kill(shop, signal.SIGSTOP)
    try:
        answers = await asyncio.gather(*(client.call("GET", UNCACHED) for client in clients))
        assert {answer.status for answer in answers} <= {502, 503, 504}
        refusal = await _refused_at_once(stack.url, http_client)
    finally:
        os.kill(shop, signal.SIGCONT)
        for client in clients:
            client.close()

    assert refusal.headers["content-type"] == "application/problem+json"
    assert int(refusal.headers["retry-after"]) >= 1
    wait_until(lambda: _all_well(stack.url), what="the breaker of every worker closed")


async def _refused_at_once(url: str, http_client: Callable[..., Any]) -> Any:
    async with asyncio.timeout(PATIENCE):
        while True:
            client = http_client(url)
            answer = await client.call("GET", UNCACHED)
            client.close()
            if answer.status == 503 and answer.json()["type"] == OPEN:
                return answer
            await asyncio.sleep(0.1)


def _all_well(url: str) -> bool:
    answers = [httpx.get(url + UNCACHED) for _ in range(12)]  # a connection each: every worker
    return all(answer.status_code == 200 for answer in answers)


async def test_kept_pages_are_there_whatever_is_off(stack: Any, http_client: Callable[..., Any]) -> None:
    """With the shop shut off, a page that shoppers have just seen stays while the ladder climbs."""
    shoppers = [http_client(stack.url) for _ in range(8)]  # each stays with the worker that has kept it

    async def pages() -> set[int]:
        return {(await shopper.call("GET", "/p/steam-50")).status for shopper in shoppers}

    def told(*words: str) -> None:
        done = stack.tidegate(*words)
        assert done.returncode == 0, done.stderr

    try:
        told("step", "0")
        assert await pages() == {200}
        told("breaker", "shop", "open", "--for", "1m")
        assert await pages() == {200}
        told("switch", "recommendations", "off", "--for", "1m")
        assert await pages() == {200}
        for step in ("elevated", "emergency"):
            told("step", step, "--for", "1m")
            assert await pages() == {200}
    finally:
        for words in (("step", "auto"), ("switch", "recommendations", "auto"), ("breaker", "shop", "auto")):
            told(*words)
        for shopper in shoppers:
            shopper.close()


async def test_a_forced_breaker_refuses_and_lets_go(stack: Any, wait_until: Callable[..., Any]) -> None:
    """`tidegate breaker shop open` refuses in every worker; `auto` ends it."""

    def types() -> set[Any]:
        answers = [httpx.get(stack.url + UNCACHED) for _ in range(12)]
        return {
            answer.json()["type"] if answer.status_code == 503 else answer.status_code for answer in answers
        }

    forced = stack.tidegate("breaker", "shop", "open", "--for", "1m", "--reason", "rehearsal")
    try:
        assert forced.returncode == 0, forced.stderr
        wait_until(lambda: types() == {OPEN}, what="refused by every worker")
    finally:
        released = stack.tidegate("breaker", "shop", "auto")
    assert released.returncode == 0, released.stderr
    wait_until(lambda: types() == {200}, what="served by every worker")
