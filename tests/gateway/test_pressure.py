"""Every signal of pressure is measured, told and weighed; some lift the ladder only so far."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Degradation, Signals
from gateway.ladder import Ladder
from gateway.pressure import SIGNALS, CpuShare, highest, measured, on_ladder

STEPS = Degradation.model_validate(
    {
        "steps": [
            {"name": "elevated", "off": ["recommendations"]},
            {"name": "high", "off": ["profile"]},
            {"name": "emergency", "only": "critical"},
        ]
    }
)
PRESSURES = st.dictionaries(st.sampled_from(SIGNALS), st.floats(0, 1))


def test_each_signal_is_a_share_of_full() -> None:
    """Half a lag is half full, more than full is full, and one that is off says nothing."""
    measure = {"in_flight": 0.25, "queue_delay": 3.0, "critical_wait": 0.1}
    measure |= {"lag": 0.125, "cpu": 0.75, "sick": True}
    full = {"in_flight": 0.25, "queue_delay": 1.0, "critical_wait": 0.1}
    full |= {"loop_lag": 0.5, "cpu": 0.75, "breakers": 1.0}

    assert measured(Signals(), **measure) == full
    off = Signals.model_validate({"loop_lag": "off", "cpu": False, "breakers": False})
    assert measured(off, **measure) == full | {"loop_lag": 0.0, "cpu": 0.0, "breakers": 0.0}


def test_processor_time_is_told_in_cores() -> None:
    """Used since the last question, over the time since then; two questions at once are no division by 0."""
    at, spent = 10.0, 3.0
    share = CpuShare(lambda: at, lambda: spent)
    assert share.read() == 0.0
    at, spent = 12.0, 4.5
    assert share.read() == 0.75
    at = 13.0
    assert share.read() == 0.0


@given(st.lists(PRESSURES))
def test_the_most_pressed_worker_counts(workers: list[dict[str, float]]) -> None:
    """Signal by signal."""
    assert highest(workers) == {s: max((w.get(s, 0.0) for w in workers), default=0.0) for s in SIGNALS}


@given(PRESSURES, st.integers(0, 3))
def test_a_gentle_signal_moves_the_ladder_no_further_than_features(
    pressures: dict[str, float], step: int
) -> None:
    """They climb to rung 2, hold it, count no more above; a late loop and critical waiters always do."""
    gentle = {s: p for s, p in pressures.items() if s not in {"loop_lag", "critical_wait"}}
    firm = max((p for s, p in pressures.items() if s not in gentle), default=0.0)
    counted = on_ladder(pressures, STEPS, step)

    assert counted >= firm
    high = max(gentle.values(), default=0.0)
    assert counted == max(firm, (high, high, min(high, 0.5), 0.0)[step])


def test_a_sick_upstream_switches_the_optional_off_and_no_route() -> None:
    """For as long as it is sick; then everything comes back by the dwell times."""
    now = 0.0
    ladder = Ladder(STEPS, lambda: now)

    def after(seconds: int, sick: float) -> int:
        nonlocal now
        for _ in range(seconds * 4):
            now += 0.25
            ladder.observe(on_ladder({"breakers": sick}, STEPS, ladder.step))
        return ladder.step

    assert after(4, 1.0) == 1
    assert after(600, 1.0) == 2
    assert after(70, 0.0) == 0


async def test_an_upstream_well_by_its_health_checks_that_fails_its_users(
    start_gateway: Any, shop: Any, until: Any
) -> None:
    """200 for probes, errors for three of five users: breaker open, metrics say so, the optional off."""
    asked = 0

    async def sick(reader: Any, writer: asyncio.StreamWriter, seen: Any) -> None:
        nonlocal asked
        asked += 1
        if asked % 5 < 2:
            await shop.ok(reader, writer, seen)
        else:
            writer.write(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")

    shop.scripts["/buy"] = sick
    servers = [f"http://127.0.0.1:{shop.port}"]
    gateway = await start_gateway(
        upstreams={
            "shop": {
                "servers": list(servers),
                "breaker": {"window": "10s", "min_requests": 20, "failure_ratio": 0.5, "open_for": "60s"},
                "health": {"path": "/health", "interval": "100ms"},
            },
            "extras": {"servers": list(servers)},
        },
        routes=[
            {"match": "/recommendations", "upstream": "extras", "feature": "recommendations"},
            {"match": "/**", "upstream": "shop"},
        ],
        degradation={
            "steps": [{"name": "elevated", "off": ["recommendations"]}, {"name": "last", "only": "critical"}],
            "climb": {"pressure": 0.8, "after": "250ms"},
            "signals": {"loop_lag": "off", "cpu": "off"},  # the machine's doing, and firm
        },
    )
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        before = await client.get("/recommendations")
        assert before.json() == {"ok": True}
        codes = [(await client.get("/buy")).status_code for _ in range(60)]
    assert codes.count(503) >= 20  # refused at the gate once it was noticed
    assert asked <= 40  # by two workers, twenty each

    async def open_and_off() -> bool:
        is_open = await gateway.metric("tidegate_breaker_state", upstream="shop", state="open") == 1
        off = await gateway.metric("tidegate_feature_on", feature="recommendations") == 0
        return is_open and off

    await until(open_and_off, gateway.log)
    assert await gateway.metric("tidegate_pressure_signal", signal="breakers") == 1
    assert (await gateway.fresh("/recommendations")).headers["tidegate-degraded"] == "recommendations"
    assert any(seen.target == "/health" for seen in shop.seen)
    assert await gateway.metric("tidegate_degradation_step") == 1  # whole routes are not refused for this
    assert (await gateway.admin("GET", "/api/status")).json()["signals"]["breakers"] == 1
