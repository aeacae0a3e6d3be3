"""The admin API of a running gateway."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

LADDER = {
    "steps": [
        {"name": "elevated", "off": ["recommendations"]},
        {"name": "emergency", "only": "critical"},
    ]
}


async def _all(gateway: Any, path: str, count: int = 16) -> list[httpx.Response]:
    """Answers over so many connections that every worker gave some."""
    return list(await asyncio.gather(*(gateway.fresh(path) for _ in range(count))))


async def test_a_feature_is_switched_off_in_every_worker(start_gateway: Any) -> None:
    """When the PUT is answered, no worker serves the feature; the rest works; "auto" brings it back."""
    gateway = await start_gateway(listen={"port": 0, "workers": 3})

    done = await gateway.admin("PUT", "/api/features/recommendations", {"state": "off", "reason": "too slow"})

    assert done.status_code == 200
    assert (done.json()["applied"], done.json()["workers"], done.json()["on"]) == (3, 3, False)
    for answer in await _all(gateway, "/recommendations"):
        assert (answer.status_code, answer.json()) == (200, {"items": []})
        assert answer.headers["tidegate-degraded"] == "recommendations"
    assert {answer.status_code for answer in await _all(gateway, "/products")} == {200}
    assert await gateway.metric("tidegate_feature_on", feature="recommendations") == 0

    await gateway.admin("PUT", "/api/features/recommendations", {"state": "auto"})

    assert {"tidegate-degraded" in answer.headers for answer in await _all(gateway, "/recommendations")} == {
        False
    }
    changes = (await gateway.admin("GET", "/api/audit")).json()["changes"]
    assert [(c["old"], c["value"], c["reason"]) for c in changes] == [
        ("off", "auto", ""),
        ("auto", "off", "too slow"),
    ]
    assert changes[0]["by"] == "operator at 127.0.0.1"


async def test_a_switch_with_for_ends_by_itself(start_gateway: Any, until: Any) -> None:
    """`for` bounds a switch in time."""
    gateway = await start_gateway()
    done = await gateway.admin("PUT", "/api/features/recommendations", {"state": "off", "for": "3s"})

    async def back() -> bool:
        on = (await gateway.admin("GET", "/api/features/recommendations")).json()["on"]
        return on and "tidegate-degraded" not in (await gateway.fresh("/recommendations")).headers

    assert not done.json()["on"]
    await until(back)


async def test_the_ladder_can_be_pinned(start_gateway: Any) -> None:
    """A pinned rung gives up what it says, and those below it."""
    gateway = await start_gateway(
        degradation=LADDER,
        routes=[
            {"match": "/recommendations", "upstream": "shop", "feature": "recommendations"},
            {"match": "/orders", "upstream": "shop", "priority": "critical"},
            {"match": "/**", "upstream": "shop"},
        ],
    )

    done = (await gateway.admin("PUT", "/api/step", {"step": 2})).json()

    assert (done["step"], done["state"], done["name"]) == (2, "2", "emergency")
    assert {answer.status_code for answer in await _all(gateway, "/orders")} == {200}
    shed = await gateway.fresh("/anything")
    assert (shed.status_code, shed.json()["type"].rpartition("#")[2]) == (503, "temporary-reduced-capacity")
    assert int(shed.headers["retry-after"]) >= 1
    assert (await gateway.fresh("/recommendations")).json() == {"items": []}
    assert await gateway.metric("tidegate_degradation_step") == 2

    await gateway.admin("PUT", "/api/step", {"step": "auto"})

    assert {answer.status_code for answer in await _all(gateway, "/anything")} == {200}


async def test_a_breaker_is_forced_open_and_freed(start_gateway: Any, shop: Any) -> None:
    """Forced open, nothing reaches the upstream; on auto everything does."""
    upstream = {"servers": [f"http://127.0.0.1:{shop.port}"], "breaker": {}}
    gateway = await start_gateway(upstreams={"shop": upstream})

    done = (await gateway.admin("PUT", "/api/breakers/shop", {"state": "open"})).json()

    assert (done["state"], done["now"]) == ("open", "open")
    assert {answer.json()["type"] for answer in await _all(gateway, "/x")} == {
        "urn:tidegate:upstream-unavailable"
    }
    assert shop.seen == []
    await gateway.admin("PUT", "/api/breakers/shop", {"state": "auto"})
    assert {answer.status_code for answer in await _all(gateway, "/x")} == {200}


async def test_a_limit_is_changed_for_a_while(start_gateway: Any) -> None:
    """Another rate holds in every worker, is told to clients, and "auto" brings the configured one back."""
    gateway = await start_gateway(
        limits={"all": {"rate": "1000000/minute", "per": "global"}},
        routes=[{"match": "/**", "upstream": "shop", "limits": ["all"]}],
    )

    done = (await gateway.admin("PUT", "/api/limits/all", {"rate": "4/minute", "for": "10m"})).json()

    assert (done["rate"], done["configured"], done["applied"]) == ("4/minute", "1000000/minute", 2)
    answers = await _all(gateway, "/", 20)
    assert (
        sum(answer.status_code == 200 for answer in answers) <= 8
    )  # a share each worker, two windows at most
    assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"all";q=4;w=60'}
    await gateway.admin("PUT", "/api/limits/all", {"rate": "off"})
    assert {answer.status_code for answer in await _all(gateway, "/")} == {200}
    await gateway.admin("PUT", "/api/limits/all", {"rate": "auto"})
    assert (await gateway.fresh()).headers["ratelimit-policy"] == '"all";q=1000000;w=60'


@pytest.mark.parametrize("token", [None, "wrong", "a-token-for-tests x", "ä"])
@pytest.mark.parametrize(
    "path", ["/api/status", "/api/features/recommendations", "/api/audit", "/api/config"]
)
async def test_without_the_token_nothing_is_told(one_gateway: Any, path: str, token: str | None) -> None:
    """401 as problem+json with a challenge; metrics and probes need none."""
    headers = {} if token is None else {"authorization": f"Bearer {token}".encode()}
    async with httpx.AsyncClient(base_url=one_gateway.admin_url) as client:
        refused = await client.get(path, headers=headers)

    assert refused.status_code == 401
    assert refused.headers["www-authenticate"].startswith("Bearer")
    assert refused.headers["content-type"] == "application/problem+json"


async def test_probes_and_metrics_need_no_token(one_gateway: Any) -> None:
    """Prometheus and the supervisor come without."""
    for path in ("/livez", "/readyz", "/metrics", "/"):
        assert (await one_gateway.admin("GET", path, token=None)).status_code == 200
    page = await one_gateway.admin("GET", "/", token=None)
    assert "script-src 'self'" in page.headers["content-security-policy"]
    for name in ("script/main.js", "style/base.css", "words/en.json"):
        assert (await one_gateway.admin("GET", f"/static/{name}", token=None)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/api/features/nothing", None, 404),
        ("PUT", "/api/features/nothing", {"state": "off"}, 404),
        ("PUT", "/api/breakers/nothing", {"state": "open"}, 404),
        ("PUT", "/api/limits/nothing", {"rate": "1/second"}, 404),
        ("GET", "/api/nothing", None, 404),
        ("DELETE", "/api/step", None, 405),
        ("PUT", "/api/features/recommendations", {"state": "maybe"}, 422),
        ("PUT", "/api/features/recommendations", {"state": True}, 422),
        ("PUT", "/api/features/recommendations", {}, 422),
        ("PUT", "/api/features/recommendations", {"state": "off", "for": "soon"}, 422),
        ("PUT", "/api/features/recommendations", {"state": "off", "for": "0s"}, 422),
        ("PUT", "/api/features/recommendations", {"state": "off", "fro": "1m"}, 422),
        ("PUT", "/api/features/recommendations", {"state": "off", "reason": "x" * 501}, 422),
        ("PUT", "/api/features/recommendations", {"state": "off", "reason": "x\n2026 ERROR y"}, 422),
        ("PUT", "/api/features/recommendations", {"state": "off", "reason": "\x1b[2J"}, 422),
        ("PUT", "/api/features/recommendations", b'{"state": "off", "reason": "\\ud800"}', 422),
        ("PUT", "/api/features/recommendations", ["off"], 422),
        ("PUT", "/api/features/recommendations", b"{", 422),
        ("PUT", "/api/features/recommendations", b"\xff\xfe", 422),
        ("PUT", "/api/features/recommendations", b"[" * 15_000, 422),
        ("PUT", "/api/features/recommendations", b" " * 20_000, 413),
        ("PUT", "/api/step", {"step": 1}, 422),  # no ladder is configured
        ("PUT", "/api/step", {"step": -1}, 422),
        ("PUT", "/api/step", {"step": True}, 422),
        ("PUT", "/api/step", {"step": 1e400}, 422),
        ("PUT", "/api/breakers/shop", {"state": "open"}, 422),  # it has no breaker
        ("PUT", "/api/limits/all", {"rate": "0/second"}, 422),
        ("PUT", "/api/limits/all", {"rate": 5}, 422),
    ],
)
async def test_bad_forms_change_nothing(
    one_gateway: Any, method: str, path: str, body: Any, status: int
) -> None:
    """Each is refused with its reason as problem+json, and no switch moves."""
    if isinstance(body, dict) and body.get("step") == float("inf"):
        body = b'{"step": 1e400}'
    before = (await one_gateway.admin("GET", "/api/audit")).json()["changes"]

    answer = await one_gateway.admin(method, path, body)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]
    assert (await one_gateway.admin("GET", "/api/audit")).json()["changes"] == before


async def test_a_step_that_is_none_is_told_what_one_is(one_gateway: Any) -> None:
    """The command takes a rung's name, this takes its number: said in words, not in types."""
    answer = (await one_gateway.admin("PUT", "/api/step", {"step": "high"})).json()

    said = "the number of a step, or auto; GET /api/step has their names"
    assert answer["errors"] == [{"field": "step", "detail": said}]


async def test_a_gateway_without_token_stays_closed(start_gateway: Any) -> None:
    """No token configured means nobody is let in, and the log says what to do."""
    gateway = await start_gateway(env={"TIDEGATE_ADMIN_TOKEN": ""})

    assert (await gateway.admin("GET", "/api/status", token="x")).status_code == 401
    await gateway.says("set TIDEGATE_ADMIN_TOKEN")


async def test_the_configuration_is_shown_without_secrets(start_gateway: Any) -> None:
    """The password in the Redis URL stays out of /api/config."""
    gateway = await start_gateway(redis={"url": "redis://:hunter2@127.0.0.1:1/0"})

    shown = await gateway.admin("GET", "/api/config")

    assert shown.json()["config"]["redis"]["url"] == "redis://***@127.0.0.1:1/0"
    assert "hunter2" not in shown.text
    assert "hunter2" not in gateway.log()
    assert (await gateway.fresh()).status_code == 200  # with Redis away


async def test_switches_outlive_a_restart(start_gateway: Any, tmp_path: Any) -> None:
    """What was pinned holds again after a restart, from the state file alone."""
    admin = {"port": 0, "state_file": str(tmp_path / "switches.json")}
    first = await start_gateway(admin=admin)
    await first.admin("PUT", "/api/features/recommendations", {"state": "off", "reason": "sale"})
    assert await first.stop() == 0

    second = await start_gateway(admin=admin)

    assert (await second.fresh("/recommendations")).headers["tidegate-degraded"] == "recommendations"
    assert (await second.admin("GET", "/api/audit")).json()["changes"][0]["reason"] == "sale"


async def test_two_hosts_share_switches_through_redis(
    start_gateway: Any, redis_volatile_url: str, until: Any
) -> None:
    """A switch thrown on one gateway holds on the other; every key has a TTL."""
    import redis as redis_client

    shared = {"url": redis_volatile_url, "timeout": "5s"}
    one, other = await start_gateway(redis=shared), await start_gateway(redis=shared)

    await one.admin("PUT", "/api/features/recommendations", {"state": "off"})

    async def there() -> bool:
        return not (await other.admin("GET", "/api/features/recommendations")).json()["on"]

    await until(there)
    await other.admin("PUT", "/api/features/recommendations", {"state": "on"})

    async def back() -> bool:
        return bool((await one.admin("GET", "/api/features/recommendations")).json()["on"])

    await until(back)
    with redis_client.Redis.from_url(redis_volatile_url) as client:
        assert all(client.ttl(key) > 0 for key in client.keys("*"))
