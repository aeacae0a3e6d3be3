"""Limits while Redis is away, slow, or answers nonsense."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from gateway.exchange import Hit
from gateway.state import limits as limits_
from gateway.state.limits import SharedLimits
from tests.gateway.limits.reference import Told, hit_of, told
from tests.waiting import PATIENCE, until

if TYPE_CHECKING:
    from tests.gateway.limits.conftest import NewStore
    from tests.gateway.own_redis import OwnRedis

HIT = hit_of("user", "u", 10, 3600.0)
ALL = hit_of("global", "", 40, 30 * 86400.0, "fixed-window")  # which hardly ever turns over in a test


def at_once(limits: SharedLimits, hits: list[Hit]) -> list[Told]:
    """The verdict, which must come without waiting for anything."""
    return told(limits.try_take(hits))


async def test_frozen_redis(own_redis: OwnRedis, new_store: NewStore) -> None:
    """Who waits is judged locally after the time-out; then nobody waits; then a probe brings Redis back."""
    limits = await new_store(own_redis.url, timeout=0.05)
    await until(lambda: limits.up)
    own_redis.freeze()
    verdicts = await asyncio.gather(*(limits.take([HIT]) for _ in range(20)))
    assert all(told(verdict)[0].fallback for verdict in verdicts)
    assert sum(told(verdict)[0].allowed for verdict in verdicts) == 5  # this worker's share of 10
    assert not limits.up
    assert not at_once(limits, [HIT])[0].allowed

    own_redis.thaw()
    await until(lambda: limits.up)
    await eventually_shared(limits)


async def eventually_shared(limits: SharedLimits) -> None:
    """A loaded machine may lose Redis again; it must come back for good."""

    async def shared() -> bool:
        return not told(await limits.take([HIT]))[0].fallback

    await until(shared, "a probe succeeds")


async def test_restarted_redis(own_redis: OwnRedis, new_store: NewStore) -> None:
    """A Redis that stops is noticed while idle, and a new one with nothing in it is taken up."""
    limits = await new_store(own_redis.url)
    await until(lambda: limits.up)
    own_redis.stop()
    await until(lambda: not limits.up)
    assert at_once(limits, [HIT])[0].fallback
    own_redis.start()
    await until(lambda: limits.up)
    assert not told(await limits.take([HIT]))[0].fallback


async def test_no_redis_at_the_start(new_store: NewStore, short_tmp: Path) -> None:
    """A gateway starts without Redis, and judges its share."""
    limits = await new_store(f"unix://{short_tmp}/nobody.sock")
    assert not limits.up
    assert at_once(limits, [HIT])[0].remaining == 4


async def test_what_each_limit_does_without_redis(new_store: NewStore, short_tmp: Path) -> None:
    """`allow` admits, `refuse` refuses and then costs the others nothing, a shadow never refuses."""
    limits = await new_store(f"unix://{short_tmp}/nobody.sock", workers=10)
    allow = hit_of("a", "", 1, 60.0, on_store_failure="allow")
    refuse = hit_of("r", "", 1, 60.0, on_store_failure="refuse")
    shadow = hit_of("s", "", 1, 60.0, on_store_failure="refuse", shadow=True)
    for _ in range(3):
        allowed, refused, _ = at_once(limits, [allow, refuse, HIT])
        assert allowed.allowed
        assert not refused.allowed
        assert refused.retry_after >= 1_000_000
    _, local = at_once(limits, [shadow, HIT])
    assert local.allowed  # its one token is still there


async def test_closing_answers_who_still_waits(own_redis: OwnRedis, new_store: NewStore) -> None:
    """Nobody is left waiting by a shutdown in mid-call."""
    limits = await new_store(own_redis.url)
    own_redis.freeze()
    waiting = limits.take([HIT])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await limits.aclose()
    assert told(await waiting)[0].fallback


async def test_a_busy_worker_is_no_outage(new_store: NewStore) -> None:
    """An answer that came in time, but to a loop that was busy for longer than the time-out, counts."""
    limits = await new_store(timeout=2.0)
    await eventually_shared(limits)
    task = limits.take([HIT])
    for _ in range(3):  # the call goes out
        await asyncio.sleep(0)
    time.sleep(1.5)  # noqa: ASYNC251 - stands for work that keeps the loop, and leaves Redis a processor
    assert not told(await task)[0].fallback
    assert limits.up


class Fixed(random.Random):
    """Draws the same, always."""

    def __init__(self, drawn: float) -> None:
        super().__init__()
        self.drawn = drawn

    def uniform(self, a: float, b: float) -> float:  # noqa: ARG002 - as in random
        return self.drawn


async def all_know(url: str) -> None:
    """Wait until each of two stores knows of the other."""
    with redis.Redis.from_url(url) as client:

        def beats() -> dict[bytes, float]:
            return dict(client.zrange("{test}:limit-workers", 0, -1, withscores=True))

        await until(lambda: len(beats()) == 2)  # a busy machine may hold up the first connection
        newest = max(beats().values())
        await until(lambda: min(beats().values()) > newest)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is given up because the machine stood still."""
    for patience in ("ALL_BACK", "ALL_SETTLED"):
        monkeypatch.setattr(limits_, patience, PATIENCE)


@pytest.mark.usefixtures("patient")
async def test_hosts_return_together(own_redis: OwnRedis, new_store: NewStore) -> None:
    """Who finds Redis first waits for the other: shares and whole limit never count at the same time."""
    stores = [await new_store(own_redis.url, workers=1, rng=Fixed(drawn)) for drawn in (0.1, 1.5)]
    await all_know(own_redis.url)
    own_redis.stop()
    await until(lambda: not any(store.up for store in stores))
    passed = 0

    async def offer(store: SharedLimits) -> None:
        nonlocal passed
        verdicts = [store.try_take([ALL]) or await store.take([ALL]) for _ in range(50)]
        passed += sum(told(verdict)[0].allowed for verdict in verdicts)

    for store in stores:
        await offer(store)
    assert passed == 40  # each its half
    own_redis.start()
    async with asyncio.timeout(PATIENCE):
        while not all(store.up for store in stores):
            for store in stores:
                await offer(store)
            await asyncio.sleep(0.01)
    passed += sum([told(await store.take([ALL]))[0].allowed for store in stores])
    assert passed == 40


@pytest.mark.usefixtures("patient")
async def test_a_share_is_never_judged_beside_the_whole_limit(
    own_redis: OwnRedis, new_store: NewStore
) -> None:
    """While one that is back has the whole limit, the other has no share of it, though it asked for none."""
    first, last = [await new_store(own_redis.url, workers=1, rng=Fixed(drawn)) for drawn in (0.1, 1.5)]
    await all_know(own_redis.url)
    own_redis.stop()
    await until(lambda: not first.up and not last.up)
    own_redis.start()
    await until(lambda: first.up or last.up)
    up, other = (first, last) if first.up else (last, first)
    assert sum([told(await up.take([ALL]))[0].allowed for _ in range(50)]) == 40
    assert not told(other.try_take([ALL]) or await other.take([ALL]))[0].allowed


# ---- between the gateway and Redis -----------------------------------------------------------

Relay = Callable[[bytes], bytes]


async def relay(url: str, replies: Relay) -> tuple[asyncio.Server, str]:
    """A door to Redis that may change what comes back."""
    path = url.removeprefix("unix://").partition("?")[0]

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, change: Relay) -> None:
        while data := await reader.read(65536):
            writer.write(change(data))
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_unix_connection(path)
        await asyncio.gather(
            pump(reader, there_writer, lambda data: data),
            pump(there_reader, writer, replies),
            return_exceptions=True,
        )

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    return server, f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_reply_out_of_step_is_never_believed(new_store: NewStore, limits_url: str) -> None:
    """When a reply comes twice, the next caller does not take it for its own: the connection is dropped."""
    repeat = [False]

    def change(data: bytes) -> bytes:
        if repeat[0]:
            repeat[0] = False
            return data + data
        return data

    server, url = await relay(limits_url, change)
    async with server:
        limits = await new_store(url)
        await until(lambda: limits.up)
        repeat[0] = True
        await limits.take([hit_of("user", "first", 100, 3600.0)])
        (charge,) = told(await limits.take([hit_of("user", "second", 10, 3600.0)]))
        assert charge.fallback or charge.remaining == 9
        await until(lambda: limits.up)
        (charge,) = told(await limits.take([hit_of("user", "third", 20, 3600.0)]))
        assert charge.remaining == 19
        await limits.aclose()


async def test_a_black_hole(new_store: NewStore) -> None:
    """A door that opens and never answers: the start is not held up for long, requests not at all."""

    async def swallow(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    async with server:
        limits = await new_store(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        assert not limits.up
        assert at_once(limits, [HIT])[0].fallback
        await limits.aclose()


@pytest.mark.parametrize("to", [b"SCRIPT", b"EVALSHA"])
@pytest.mark.parametrize("answer", [b":5", b"*0", b"*1\r\n$1\r\n2", b"+OK", b"$-1", b"-ERR no", b"?"])
async def test_a_redis_that_talks_nonsense(new_store: NewStore, to: bytes, answer: bytes) -> None:
    """Whatever it answers: requests are judged here, and it is asked again."""
    asked = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                for command in re.findall(rb"\*\d+\r\n\$\d+\r\n(\w+)", data):
                    asked += command == to
                    writer.write(answer if command == to else b"+" + b"0" * 40)
                    writer.write(b"\r\n")
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        limits = await new_store(url, rng=Fixed(0.01))
        assert at_once(limits, [HIT])[0].fallback
        await until(lambda: asked >= 3)
        assert not limits.up
        await limits.aclose()


async def test_probes_are_jittered(new_store: NewStore, short_tmp: Path) -> None:
    """The pauses between probes are drawn, so that gateways don't come back all at once."""
    drawn: list[float] = []

    class Drawing(random.Random):
        def uniform(self, a: float, b: float) -> float:
            drawn.append(super().uniform(a, b))
            return drawn[-1] / 100

    await new_store(f"unix://{short_tmp}/nobody.sock", rng=Drawing(1))
    await until(lambda: len(drawn) >= 5)
    assert len(set(drawn)) == len(drawn)
    assert all(0.5 <= factor <= 1.5 for factor in drawn)
