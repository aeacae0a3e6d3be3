"""What is asked a second time, and what never."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import UpstreamError
from gateway.upstream.retries import FLOOR
from tests.gateway.upstream.scripted import OK, Bench, Peer, always, answers, make_exchange

IDEMPOTENT = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]


class Closing:
    """Answers `good` connections' first requests; hangs up on every other request, and counts them all."""

    def __init__(self, *good: int) -> None:
        self.good = good
        self.requests: list[bytes] = []

    async def __call__(self, peer: Peer) -> None:
        self.requests.append(await peer.request())
        if peer.number in self.good:
            await peer.say(OK)
            self.requests.append(await peer.request())


@pytest.mark.parametrize("method", [*IDEMPOTENT, "POST", "PATCH"])
async def test_the_keep_alive_race(bench: Bench, method: str) -> None:
    """A pooled connection closed as we write: asked again on a fresh one, if the method allows it."""
    script = Closing(0, 1)
    _, url = await bench.server(script)
    upstream = await bench.upstream(url, retries={"budget": 0})  # the race costs no budget
    await upstream(make_exchange())
    assert upstream.servers()[0]["idle"] == 1
    if method in IDEMPOTENT:
        assert (await upstream(make_exchange(method))).status == 200
        assert len(script.requests) == 3
    else:
        with pytest.raises(UpstreamError):
            await upstream(make_exchange(method))
        assert len(script.requests) == 2
    assert upstream.servers()[0]["in_flight"] == 0


async def test_the_race_is_not_run_twice(bench: Bench) -> None:
    """When one pooled connection turns out dead, no other pooled one is tried."""
    both = asyncio.Barrier(3)
    requests = []

    async def talk(peer: Peer) -> None:
        requests.append(await peer.request())
        if peer.number < 2:
            await both.wait()
            await peer.say(OK)
            requests.append(await peer.request())
        else:
            await peer.say(OK)

    server, url = await bench.server(talk)
    upstream = await bench.upstream(url)
    first = [asyncio.ensure_future(upstream(make_exchange())) for _ in range(2)]
    await both.wait()
    await asyncio.gather(*first)
    assert upstream.servers()[0]["idle"] == 2
    assert (await upstream(make_exchange())).body == b"ok"
    assert server.connections == 3
    assert len(requests) == 4


async def test_a_request_with_a_body_is_asked_once(bench: Bench) -> None:
    """PUT is idempotent, but its body went with the first attempt."""
    script = Closing(0)
    _, url = await bench.server(script)
    upstream = await bench.upstream(url)
    await upstream(make_exchange())
    with pytest.raises(UpstreamError):
        await upstream(make_exchange("PUT", body=[b"hi"], length=2))
    assert len(script.requests) == 2


@pytest.mark.parametrize(("method", "asked"), [("GET", 2), ("DELETE", 2), ("POST", 1)])
async def test_at_most_two_attempts(bench: Bench, method: str, asked: int) -> None:
    """A server that always hangs up is asked twice, or once when the method forbids it."""
    script = Closing()
    upstream = await bench.front(script)
    with pytest.raises(UpstreamError) as caught:
        await upstream(make_exchange(method))
    assert caught.value.status == 502
    assert len(script.requests) == asked


async def test_the_other_server_is_asked(bench: Bench) -> None:
    """A retry goes to another server when there is one."""
    gone, dead = await bench.server(always())
    await gone.aclose()
    _, alive = await bench.server(always())
    upstream = await bench.upstream(dead, alive, retries={"budget": 1.0})
    for _ in range(10):
        assert (await upstream(make_exchange())).status == 200


async def test_the_budget_ends_retries(bench: Bench) -> None:
    """When everything fails, retries are a small share and not a second load."""
    script = Closing()
    upstream = await bench.front(script, retries={"budget": 0.1})
    for _ in range(50):
        with pytest.raises(UpstreamError):
            await upstream(make_exchange())
    assert 50 + FLOOR <= len(script.requests) <= 50 + FLOOR + 5


@pytest.mark.parametrize("first", [b"H", b"HTTP/1.1 200 OK\r\n", b"rubbish"])
async def test_after_the_first_byte_nothing_is_retried(bench: Bench, first: bytes) -> None:
    """An answer that began was perhaps acted upon."""
    server, url = await bench.server(answers(first))
    upstream = await bench.upstream(url)
    with pytest.raises(UpstreamError):
        await upstream(make_exchange())
    assert server.connections == 1
