"""Which server is asked, and which is left alone."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from gateway import config
from gateway.upstream.balance import Balancer, Server
from gateway.upstream.health import EJECT_AFTER, Health
from gateway.upstream.pool import Endpoint, Pool
from tests.clock import Clock
from tests.gateway.upstream.scripted import OK, Bench, Peer, always, make_exchange
from tests.waiting import until


def make(count: int, clock: Clock) -> Balancer:
    settings = config.Upstream.model_validate({"servers": ["http://127.0.0.1:1"]})
    endpoint = Endpoint.parse("http://127.0.0.1:1", settings, clock=clock, tls=None)
    servers = [Server(f"http://s{n}", endpoint, Pool(endpoint, size=8, keep_alive=1)) for n in range(count)]
    return Balancer(servers, clock=clock, rng=random.Random(7))


def fail(balancer: Balancer, server: Server, times: int = EJECT_AFTER) -> None:
    for _ in range(times):
        balancer.failed(server)


def picked(balancer: Balancer) -> set[str]:
    return {balancer.pick().url for _ in range(200)}


def test_failures_in_a_row_eject_for_longer_each_time() -> None:
    """Five in a row eject for 1 s; once back, one more for 2 s, then 4 s; a success forgives all."""
    clock = Clock(0.0)
    balancer = make(2, clock)
    bad, good = balancer.servers
    fail(balancer, bad, EJECT_AFTER - 1)
    balancer.succeeded(bad)
    fail(balancer, bad, EJECT_AFTER - 1)
    assert picked(balancer) == {bad.url, good.url}
    for length in (1, 2, 4):
        balancer.failed(bad)
        clock.now += length - 0.01
        assert picked(balancer) == {good.url}
        clock.now += 0.02
        assert picked(balancer) == {bad.url, good.url}
    balancer.succeeded(bad)
    balancer.failed(bad)
    assert picked(balancer) == {bad.url, good.url}


def test_a_lone_server_is_never_ejected() -> None:
    """There is nowhere else to go."""
    balancer = make(1, Clock(0.0))
    fail(balancer, balancer.servers[0], 100)
    assert picked(balancer) == {"http://s0"}
    assert balancer.well(balancer.servers[0])


@given(count=st.integers(1, 7), events=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 9)), max_size=60))
def test_at_most_half_are_ejected_and_somebody_is_always_picked(
    count: int, events: list[tuple[int, int]]
) -> None:
    """Whatever fails when, at least half of the servers stay in use."""
    clock = Clock(0.0)
    balancer = make(count, clock)
    for index, kind in events:
        server = balancer.servers[index % count]
        if kind == 0:
            balancer.succeeded(server)
        elif kind == 1:
            clock.now += 0.7
        else:
            fail(balancer, server, kind)
        assert sum(not balancer.well(other) for other in balancer.servers) * 2 <= count
        assert balancer.pick() in balancer.servers
        if count > 1:
            assert balancer.pick(avoid=server) is not server or count == 1 or len(picked(balancer)) == 1


def test_below_half_well_all_are_used() -> None:
    """The panic threshold: one well server of three could not carry the load."""
    balancer = make(3, Clock(0.0))
    for server in balancer.servers[:2]:
        server.health.answers_probes = False
    balancer.refresh()
    assert len(picked(balancer)) == 3
    balancer.servers[1].health.answers_probes = True
    balancer.refresh()
    assert picked(balancer) == {"http://s1", "http://s2"}


def test_probes_change_the_verdict_only_in_a_row() -> None:
    """`unhealthy_after` failures in a row, `healthy_after` successes in a row."""
    settings = config.Health(unhealthy_after=3, healthy_after=2)
    health = Health()
    verdicts = []
    for ok in (False, False, True, False, False, False, True, False, True, True):
        health.probed(ok, settings)
        verdicts.append(health.answers_probes)
    assert verdicts == [True] * 5 + [False] * 4 + [True]


async def test_the_less_busy_of_two_is_picked(bench: Bench) -> None:
    """A server that hangs gets little; the other carries on."""

    async def hang(peer: Peer) -> None:
        await peer.hung_up()

    _, slow = await bench.server(hang)
    _, fast = await bench.server(always())
    upstream = await bench.upstream(slow, fast)
    tasks = [asyncio.ensure_future(upstream(make_exchange())) for _ in range(40)]
    await until(lambda: sum(task.done() for task in tasks) >= 19)
    for _ in range(20):
        assert (await upstream(make_exchange())).status == 200  # with two servers, always the idle one
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert [server["in_flight"] for server in upstream.servers()] == [0, 0]


async def test_a_server_that_fails_users_is_ejected_though_its_probes_pass(bench: Bench) -> None:
    """The night's load balancer saw every server healthy: 500s and good probes. Ours looks at users."""

    async def lie(peer: Peer) -> None:
        while True:
            request = await peer.request()
            status = b"200 OK" if request.startswith(b"GET /readyz") else b"500 Oops"
            await peer.say(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status)

    _, bad = await bench.server(lie)
    _, good = await bench.server(always())
    upstream = await bench.upstream(bad, good, health={"interval": 0.1}, clock=Clock())  # it stays ejected
    answers: Counter[int] = Counter()
    for _ in range(60):
        answers[(await upstream(make_exchange())).status] += 1
    assert answers[500] == EJECT_AFTER
    assert [server["healthy"] for server in upstream.servers()] == [False, True]


async def test_probes_take_a_server_out_and_in_again(bench: Bench) -> None:
    """A server that says it is not ready gets no requests until it says it is."""
    ready = False
    seen = Counter[str]()

    async def moody(peer: Peer) -> None:
        while True:
            request = await peer.request()
            if request.startswith(b"GET /readyz"):
                await peer.say(OK if ready else b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
            else:
                seen["moody"] += 1
                await peer.say(OK)

    _, first = await bench.server(moody)
    _, second = await bench.server(always())
    health = {"interval": 0.1, "unhealthy_after": 1}
    upstream = await bench.upstream(first, second, health=health, clock=Clock())  # no probe is ever late
    await until(lambda: not upstream.servers()[0]["healthy"])
    for _ in range(30):
        await upstream(make_exchange())
    assert not seen
    ready = True
    await until(lambda: bool(upstream.servers()[0]["healthy"]))

    async def asked() -> bool:
        await upstream(make_exchange())
        return bool(seen)

    await until(asked)
