"""Circuits by upstream or by route: who shares one, what a reload keeps, what others' findings are worth."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import httpx
import pytest

from gateway import config
from gateway.breakers import Breakers
from gateway.metrics import WorkerMetrics
from gateway.policies.circuit import Circuit
from gateway.policies.circuit_state import Change


def settings(per: str = "upstream", **timeout: Any) -> config.Config:
    breaker = {"min_requests": 4, "failure_ratio": 0.5, "per": per}
    return config.Config.model_validate(
        {
            "upstreams": {
                "shop": {"servers": ["http://shop.test"], "breaker": breaker, "timeout": timeout},
                "bare": {"servers": ["http://bare.test"]},
            },
            "routes": [
                {"match": "/a", "upstream": "shop"},
                {"match": "/b", "upstream": "shop"},
                {"match": "/c", "upstream": "bare"},
            ],
        }
    )


def circuits(breakers: Breakers, of: config.Config) -> list[Circuit | None]:
    return [breakers.of(route) for route in of.routes]


def fail(circuit: Circuit | None) -> None:
    assert circuit is not None
    for _ in range(4):
        circuit.record(circuit.enter(), failed=True)


def states(breakers: Breakers) -> dict[str, float]:
    metrics = WorkerMetrics()
    breakers.gauges(metrics)
    return {"/".join(labels): value for _, labels, value in metrics.snapshot()["gauges"]}


def test_routes_share_a_circuit_unless_each_has_its_own() -> None:
    """One for the upstream, or one for each pattern; none where no breaker is asked for."""
    changes: list[Change] = []
    breakers = Breakers(changes.append)
    shared = settings()
    breakers.adopt(shared)
    a, b, c = circuits(breakers, shared)
    assert a is b is not None
    assert c is None

    own = settings("route")
    breakers.adopt(own)
    a, b, _ = circuits(breakers, own)
    assert a is not None
    assert b is not None
    fail(a)
    assert (a.state, b.state, breakers.sick) == ("open", "closed", True)
    assert [(change.upstream, change.route, change.after) for change in changes] == [("shop", "/a", "open")]
    assert states(breakers) == {"shop": 2, "shop//a": 2, "shop//b": 0}  # the upstream's is the sickest


def test_a_reload_keeps_the_circuits_that_it_does_not_change() -> None:
    """An open one stays open when something else is edited, and is new with its own settings."""
    breakers = Breakers(lambda _: None)
    breakers.adopt(settings())
    fail(circuits(breakers, settings())[0])
    breakers.adopt(settings())
    assert breakers.sick
    breakers.adopt(settings(total="9s"))
    assert not breakers.sick


def test_an_operator_holds_all_circuits_of_an_upstream() -> None:
    """Those of every route; and being held open is no sickness."""
    breakers = Breakers(lambda _: None)
    own = settings("route")
    breakers.adopt(own)
    breakers.force({"shop": "open"})
    assert states(breakers) == {"shop": 2, "shop//a": 2, "shop//b": 2}
    assert not breakers.sick
    breakers.force({})
    assert set(states(breakers).values()) == {0}


def test_another_hosts_finding_is_doubted_against_good_evidence() -> None:
    """A worker of this host is believed at once; another host only by those who don't know better."""
    breakers = Breakers(lambda _: None)
    own = settings("route")
    breakers.adopt(own)
    a, b, _ = circuits(breakers, own)
    assert a is not None
    assert b is not None
    for _ in range(8):
        a.record(a.enter(), failed=False)
    for route in ("/a", "/b", "/unknown"):
        breakers.trip("shop", route, 5.0, doubt=True)
    assert (a.state, b.state) == ("closed", "open")
    breakers.trip("shop", "/a", 5.0, doubt=False)
    assert a.state == "open"


async def test_a_sick_route_leaves_the_others_alone(start_gateway: Any, shop: Any) -> None:
    """Over sockets: its users are refused at once in every worker, those of other routes are served."""

    async def sick(_: Any, writer: asyncio.StreamWriter, __: Any) -> None:
        writer.write(b"HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\n\r\n")

    shop.scripts["/sick"] = sick
    gateway = await start_gateway(
        upstreams={
            "shop": {
                "servers": [f"http://127.0.0.1:{shop.port}"],
                "breaker": {"min_requests": 5, "open_for": "60s", "failures": [418], "per": "route"},
            }
        },
        routes=[{"match": "/sick", "upstream": "shop"}, {"match": "/**", "upstream": "shop"}],
    )
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        codes = [(await client.get("/sick")).status_code for _ in range(10)]
        assert codes == [418] * 5 + [503] * 5
        assert (await client.get("/well")).status_code == 200
    state = (await gateway.admin("GET", "/api/breakers/shop")).json()
    assert state["now"] == "open"
    assert state["routes"] == {"/sick": "open", "/**": "closed"}
    assert await gateway.metric("tidegate_route_breaker_state", route="/sick", state="open") == 1


async def test_what_one_worker_finds_well_is_so_in_all(start_gateway: Any, shop: Any, until: Any) -> None:
    """Whose worker gets no requests, and so has no probes of its own, is told; the ladder comes down.

    And a feature that was the only one to ask its upstream comes back, although nobody could probe meanwhile.
    """

    async def sick(_: Any, writer: asyncio.StreamWriter, __: Any) -> None:
        writer.write(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")

    def upstream(total: str) -> dict[str, Any]:
        return {
            "servers": [f"http://127.0.0.1:{shop.port}"],
            "breaker": {"min_requests": 5, "open_for": "200ms", "window": "1s"},
            "timeout": {"total": total},  # and for a second more it counts as sick without being asked
        }

    gateway = await start_gateway(
        upstreams={"shop": upstream("60s"), "extras": upstream("2s")},
        routes=[
            {"match": "/recommendations", "upstream": "extras", "feature": "recommendations"},
            {"match": "/**", "upstream": "shop"},
        ],
        degradation={
            "steps": [{"name": "elevated", "off": ["recommendations"]}],
            "climb": {"pressure": 0.8, "after": "250ms"},
            "descend": {"pressure": 0.5, "after": "500ms"},
        },
    )

    async def step(wanted: int) -> bool:
        return await gateway.metric("tidegate_degradation_step") == wanted

    async def stands(upstream: str, path: str, *, closed: bool) -> bool:
        for _ in range(5):
            await client.get(path)  # over one connection: one worker finds out
        state = await gateway.metric("tidegate_breaker_state", upstream=upstream, state="closed")
        return bool(state) is closed

    async with httpx.AsyncClient(base_url=gateway.url) as client:
        shop.scripts |= {"/": sick, "/recommendations": sick}
        await until(lambda: stands("extras", "/recommendations", closed=False), gateway.log)
        await until(lambda: stands("shop", "/", closed=False), gateway.log)
        await until(lambda: step(1), gateway.log)
        shop.scripts.clear()
        await until(lambda: stands("shop", "/", closed=True), gateway.log)
        await until(lambda: step(0), gateway.log)
        assert (await gateway.fresh("/recommendations")).status_code == 200


@pytest.mark.parametrize("workers", [1, 2])
async def test_five_hundred_wait_and_the_probes_reach_the_upstream(
    start_gateway: Any, shop: Any, until: Any, workers: int
) -> None:
    """At half-open, over sockets, of all workers together: three reach it, the others are refused at once.

    (Of two workers the kernel may give the one that probes fewer than three; the other one still waits.)

    Probes whose clients give up free their permits; three others then reach it.
    """
    answer = asyncio.Event()
    arrived = 0

    async def sick(_: Any, writer: asyncio.StreamWriter, __: Any) -> None:
        writer.write(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")

    async def hanging(reader: Any, writer: asyncio.StreamWriter, seen: Any) -> None:
        nonlocal arrived
        arrived += 1
        await answer.wait()
        await shop.ok(reader, writer, seen)

    shop.scripts["/"] = sick
    gateway = await start_gateway(
        listen={"port": 0, "workers": workers},
        upstreams={
            "shop": {
                "servers": [f"http://127.0.0.1:{shop.port}"],
                # However long it takes until all of the crowd are told, the probes' answers are not slow.
                "breaker": {"min_requests": 5, "open_for": "200ms", "probes": 3, "slow_after": "60s"},
                "timeout": {"total": "60s"},
            }
        },
    )

    async with httpx.AsyncClient(base_url=gateway.url) as client:

        async def is_open() -> bool:
            return (await client.get("/")).status_code == 503

        # One worker has seen five, and tells the other: who both see them before they hear of each other
        # both hold back as they begin to probe, and refuse all of the crowd.
        await until(is_open)
    shop.scripts["/"] = hanging

    async def ask() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        try:
            writer.write(b"GET / HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\n\r\n")
            return (await reader.read())[9:12]
        finally:
            writer.close()

    async def crowd() -> list[asyncio.Task[bytes]]:
        tasks = [asyncio.create_task(ask()) for _ in range(500)]
        before = arrived

        def all_told() -> bool:
            return sum(task.done() for task in tasks) + arrived - before == 500

        await until(all_told, lambda: arrived, within=60)
        return [task for task in tasks if not task.done()]

    async def may_probe() -> bool:
        return (await gateway.metric("tidegate_breaker_state", state="half-open")) == 1

    async def none_in_flight() -> bool:
        return (await gateway.metric("tidegate_in_flight", upstream="shop")) == 0

    await until(may_probe)
    probes = await crowd()
    assert arrived == 3 if workers == 1 else 1 <= arrived <= 3
    for probe in probes:
        probe.cancel()
    await until(none_in_flight)
    if workers == 1:
        probes = await crowd()
        assert arrived == 6
        answer.set()
        assert [await probe for probe in probes] == [b"200"] * 3
        assert await gateway.metric("tidegate_breaker_state", state="closed") == 1


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_ten_thousand_clients_that_leave_open_nothing(
    start_gateway: Any, shop: Any, until: Any
) -> None:
    """Over sockets: gone before the header or in mid-body; five failures would have opened it."""
    arrived = 0

    async def hanging(_: Any, writer: asyncio.StreamWriter, __: Any) -> None:
        nonlocal arrived
        arrived += 1
        if arrived % 2:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await asyncio.Event().wait()

    async def leave() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"GET /hang HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        crowd.append((reader, writer))

    async def none_in_flight() -> bool:
        return await gateway.metric("tidegate_in_flight", upstream="shop") == 0

    shop.scripts["/hang"] = hanging
    gateway = await start_gateway(
        listen={"port": 0, "workers": 1},
        upstreams={
            "shop": {
                "servers": [f"http://127.0.0.1:{shop.port}"],
                "breaker": {"min_requests": 5, "failure_ratio": 0.01, "slow_after": "60s"},
                "timeout": {"total": "60s"},
            }
        },
    )
    crowd: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    for batch in range(1, 51):
        await asyncio.gather(*(leave() for _ in range(200)))
        await until(lambda batch=batch: arrived == 200 * batch, lambda: arrived)
        for _, writer in crowd:
            # As a client that crashes: one that only says no more could still be reading the body.
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.close()
        crowd.clear()
        await until(none_in_flight, gateway.log)

    assert arrived == 10_000
    assert await gateway.metric("tidegate_breaker_state", state="closed") == 1
    assert (await gateway.fresh("/well")).status_code == 200
