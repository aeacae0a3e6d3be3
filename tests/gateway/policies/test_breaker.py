"""What counts for and against an upstream, seen from the request."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from gateway import config
from gateway.errors import (
    Internal,
    Overloaded,
    PayloadTooLarge,
    PoolExhausted,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from gateway.exchange import ClientGone, Exchange, Handler, Reply, compose
from gateway.policies.breaker import Breaker
from gateway.policies.circuit import JITTER, Circuit
from gateway.policies.degrade import build_fallback

SETTINGS = config.Breaker(min_requests=10, probes=3, open_for=5, slow_after=2)
Make = Callable[..., Exchange]


@pytest.fixture
def circuit(clock: Any) -> Circuit:
    """A closed circuit."""
    return Circuit("shop", SETTINGS, clock=clock, rng=random.Random(3))


@pytest.fixture
def half_open(circuit: Circuit, clock: Any) -> Circuit:
    """A circuit about to probe."""
    for _ in range(SETTINGS.min_requests):
        circuit.record(circuit.enter(), failed=True)
    clock.advance(SETTINGS.open_for * (1 + JITTER))
    return circuit


def answering(status: int, seconds: float = 0.01) -> Handler:
    async def upstream(exchange: Exchange) -> Reply:
        exchange.upstream_seconds = seconds
        return Reply(status, [], b"")

    return upstream


def raising(error: BaseException) -> Handler:
    async def upstream(_: Exchange) -> Reply:
        raise error

    return upstream


def streaming(*chunks: bytes, error: Exception | None = None) -> Handler:
    async def body() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk
        if error is not None:
            raise error

    async def upstream(exchange: Exchange) -> Reply:
        exchange.upstream_seconds = 0.01
        return Reply(200, [], stream=body())

    return upstream


async def ask(circuit: Circuit, exchange: Exchange, upstream: Handler, **words: Any) -> Reply:
    return await compose(Breaker(circuit, **words), then=upstream)(exchange)


# ---- what counts ---------------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_server_errors_are_failures(circuit: Circuit, exchange: Make, status: int) -> None:
    """The answers still pass; ten of them open it."""
    for _ in range(10):
        assert (await ask(circuit, exchange(), answering(status))).status == status
    assert circuit.state == "open"


@pytest.mark.parametrize("error", [UpstreamError("broke off"), UpstreamTimeout("too slow")])
async def test_upstream_errors_are_failures(circuit: Circuit, exchange: Make, error: Exception) -> None:
    """They pass on as they are; ten of them open it."""
    for _ in range(10):
        with pytest.raises(type(error)):
            await ask(circuit, exchange(), raising(error))
    assert circuit.state == "open"


@pytest.mark.parametrize("status", [200, 204, 301, 400, 401, 404, 409, 410, 429, 499, 501, 505])
async def test_other_answers_are_none(circuit: Circuit, exchange: Make, status: int) -> None:
    """4xx is the client's fault or the shop's will, not sickness."""
    for _ in range(50):
        await ask(circuit, exchange(), answering(status))
    assert circuit.state == "closed"


async def test_the_set_of_failures_can_be_chosen(exchange: Make) -> None:
    """An upstream that says 429 when sick is believed, if told so; what isn't named is no failure then."""
    circuit = Circuit("shop", SETTINGS.model_copy(update={"failures": frozenset({429})}))
    for _ in range(10):
        await ask(circuit, exchange(), answering(503))
    assert circuit.state == "closed"
    for _ in range(10):
        await ask(circuit, exchange(), answering(429))
    assert circuit.state == "open"


async def test_slow_answers_open_it(circuit: Circuit, exchange: Make) -> None:
    """Good answers that come after slow_after, four fifths of them."""
    for _ in range(2):
        await ask(circuit, exchange(), answering(200, seconds=2.0))
    for _ in range(8):
        await ask(circuit, exchange(), answering(200, seconds=2.1))
    assert circuit.state == "open"


NEITHER = [
    ClientGone(),
    asyncio.CancelledError(),
    PoolExhausted("all busy"),
    Overloaded("shed"),
    PayloadTooLarge("body"),
    Internal("a defect"),
    ZeroDivisionError(),
]


@pytest.mark.parametrize("error", NEITHER, ids=lambda error: type(error).__name__)
async def test_neither_failure_nor_success(circuit: Circuit, exchange: Make, error: BaseException) -> None:
    """What is not the upstream's doing neither opens a circuit nor dilutes real failures."""
    for _ in range(100):
        with pytest.raises(type(error)):
            await ask(circuit, exchange(), raising(error))
    assert circuit.state == "closed"
    for _ in range(10):
        await ask(circuit, exchange(), answering(500))
    assert circuit.state == "open"


async def test_ten_thousand_cancelled_clients_open_nothing(circuit: Circuit, exchange: Make) -> None:
    """All under way at once, each gone before the header or in the middle of the body."""
    stuck = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"first"
        await stuck.wait()

    async def upstream(asked: Exchange) -> Reply:
        if asked.method == "GET":
            await stuck.wait()
        return Reply(200, [], stream=endless())

    async def client(number: int) -> None:
        asked = exchange("GET" if number % 2 else "POST")
        try:
            reply = await ask(circuit, asked, upstream)
            assert reply.stream is not None
            async for _ in reply.stream:
                pass
        finally:
            asked.finish()

    clients = [asyncio.create_task(client(number)) for number in range(10_000)]
    await asyncio.sleep(0)  # every one runs to where it hangs
    for task in clients:
        task.cancel()
    ends = await asyncio.gather(*clients, return_exceptions=True)
    assert all(isinstance(end, asyncio.CancelledError) for end in ends)
    assert circuit.state == "closed"
    for _ in range(9):
        await ask(circuit, exchange(), answering(500))
    assert circuit.state == "closed"  # not one of them stands in the window
    await ask(circuit, exchange(), answering(500))
    assert circuit.state == "open"


@pytest.mark.parametrize("error", NEITHER, ids=lambda error: type(error).__name__)
async def test_a_probe_that_came_to_nothing_gives_its_permit_back(
    half_open: Circuit, exchange: Make, error: BaseException
) -> None:
    """Cancelled, shed or left by its client, over and over: the circuit does not wedge."""
    for _ in range(50):
        with pytest.raises(type(error)):
            await ask(half_open, exchange(), raising(error))
    assert half_open.state == "half-open"
    for _ in range(3):
        await ask(half_open, exchange(), answering(200))
    assert half_open.state == "closed"


# ---- probing -------------------------------------------------------------------------------


async def test_a_crowd_at_the_moment_of_half_open(half_open: Circuit, exchange: Make) -> None:
    """A thousand callers at once: three reach the upstream; cancelled, three others do."""
    reached: list[Exchange] = []
    gate = asyncio.Event()

    async def upstream(exchange: Exchange) -> Reply:
        reached.append(exchange)
        await gate.wait()
        return Reply(200, [])

    async def crowd() -> list[asyncio.Task[Reply]]:
        tasks = [asyncio.create_task(ask(half_open, exchange(), upstream)) for _ in range(1000)]
        refused, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        assert all(isinstance(task.exception(), UpstreamUnavailable) for task in refused)
        assert len(waiting) == 3
        return list(waiting)

    first = await crowd()
    assert len(reached) == 3
    for task in first:
        task.cancel()
    await asyncio.gather(*first, return_exceptions=True)

    second = await crowd()
    assert len(reached) == 6
    gate.set()
    await asyncio.gather(*second)
    assert half_open.state == "closed"


# ---- streams -------------------------------------------------------------------------------


async def test_a_stream_is_judged_at_its_end(half_open: Circuit, exchange: Make) -> None:
    """Header and body came: three such probes close the circuit, not before the last byte."""
    for index in range(3):
        asked = exchange()
        reply = await ask(half_open, asked, streaming(b"a", b"b"))
        assert reply.stream is not None
        assert [chunk async for chunk in reply.stream] == [b"a", b"b"]
        assert half_open.state == "half-open", index
        asked.finish()
        asked.finish()
    assert half_open.state == "closed"


@pytest.mark.parametrize("how", ["raised", "flagged"])
async def test_a_body_that_breaks_off_is_a_failure(half_open: Circuit, exchange: Make, how: str) -> None:
    """Whether the stream raised it or the proxy noted it."""
    for _ in range(2):
        asked = exchange()
        error = UpstreamTimeout("stalled") if how == "raised" else None
        reply = await ask(half_open, asked, streaming(b"a", error=error))
        assert reply.stream is not None
        if error is not None:
            with pytest.raises(UpstreamTimeout):
                [chunk async for chunk in reply.stream]
        else:
            asked.broke_off = True
        asked.finish()
    assert half_open.state == "open"


async def test_a_client_that_leaves_in_mid_body_says_nothing(half_open: Circuit, exchange: Make) -> None:
    """The permit comes back, the stream is closed, and no verdict is given."""
    closed = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal closed
        try:
            yield b"a"
            yield b"b"
        finally:
            closed += 1

    async def upstream(_: Exchange) -> Reply:
        return Reply(200, [], stream=body())

    for _ in range(20):
        asked = exchange()
        reply = await ask(half_open, asked, upstream)
        assert reply.stream is not None
        assert await anext(reply.stream) == b"a"
        await reply.aclose()
        asked.finish()
        assert half_open.state == "half-open"
    assert closed == 20


async def test_a_failing_status_need_not_be_read(half_open: Circuit, exchange: Make) -> None:
    """A streamed 500 counts at its header."""

    async def upstream(_: Exchange) -> Reply:
        return Reply(500, [], stream=(await streaming(b"oops")(exchange())).stream)

    for _ in range(2):
        await ask(half_open, exchange(), upstream)
    assert half_open.state == "open"


# ---- refusing ------------------------------------------------------------------------------


async def test_open_refuses_without_asking(circuit: Circuit, exchange: Make) -> None:
    """503 with the time to wait; the upstream's name, no secrets; the upstream is not asked."""
    circuit.force("open")
    with pytest.raises(UpstreamUnavailable, match="shop") as refused:
        await ask(circuit, exchange(), raising(AssertionError("asked")))
    assert refused.value.status == 503
    assert refused.value.retry_after == 5
    assert refused.value.outcome == "broken"


@pytest.mark.parametrize(("method", "body"), [("GET", b"{}"), ("HEAD", b"")])
async def test_a_fallback_stands_in(circuit: Circuit, exchange: Make, method: str, body: bytes) -> None:
    """The feature's answer in place of the refusal, labelled; fresh each time; no body for HEAD."""
    circuit.force("open")
    fallback = build_fallback(config.Fallback(json={}))
    for _ in range(2):
        asked = exchange(method)
        reply = await ask(circuit, asked, answering(200), fallback=fallback, feature="profile")
        assert (reply.status, reply.body, asked.outcome) == (200, body, "broken")
        assert asked.reply_headers == [(b"tidegate-degraded", b"profile")]
