"""Tiers, costs and lists as a client of a running gateway meets them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import jwt

from tests.gateway.two_hosts import store_is

SECRET = "a secret of more than thirty-two bytes"


def bearer(user: str, **claims: Any) -> dict[str, str]:
    token = jwt.encode({"sub": user, "exp": time.time() + 600} | claims, SECRET, algorithm="HS256")
    return {"authorization": f"Bearer {token}"}


async def test_tiers_costs_and_lists(
    start_gateway: Any, tmp_path: Path, redis_volatile_url: str, until: Any
) -> None:
    """A vip's rate, a dear route, a banned user; the operator's rate holds for every tier."""
    (tmp_path / "secret").write_text(SECRET)
    gateway = await start_gateway(
        redis={"url": redis_volatile_url, "timeout": "5s"},
        identity={"jwt": {"algorithm": "HS256", "key_file": str(tmp_path / "secret")}, "tier_claim": "plan"},
        limits={
            "user": {
                "rate": {"default": "4/day", "vip": "40/day"},
                "per": "user",
                "allow": ["user:boss"],
                "deny": ["user:villain"],
            }
        },
        routes=[
            {"match": "/dear", "upstream": "shop", "limits": ["user"], "cost": 4},
            {"match": "/**", "upstream": "shop", "limits": ["user"]},
        ],
    )
    await store_is(until, 1, gateway)
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        vip = await client.get("/dear", headers=bearer("v", plan="vip"))
        assert vip.headers["ratelimit-policy"] == '"user";q=40;w=86400'
        assert vip.headers["ratelimit"].startswith('"user";r=36;')
        assert (await client.get("/dear", headers=bearer("u"))).status_code == 200
        for _ in range(3):  # the first may ask Redis, the others are refused from memory
            refused = await client.get("/", headers=bearer("u"))
            assert refused.status_code == 429
            assert refused.json()["violated-policies"] == ["user"]
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.headers["ratelimit"].startswith('"user";r=0;t=')
        boss = await client.get("/", headers=bearer("boss"))
        assert boss.status_code == 200
        assert "ratelimit" not in boss.headers
        villain = await client.get("/", headers=bearer("villain"))
        assert villain.status_code == 403
        assert villain.headers["content-type"] == "application/problem+json"
        assert villain.json()["type"] == "urn:tidegate:forbidden"
        changed = await gateway.admin("PUT", "/api/limits/user", {"rate": "5/day", "for": "1m"})
        assert changed.status_code == 200
        raised = await client.get("/", headers=bearer("u"))
        assert raised.status_code == 200  # what memory knew was of the old rate
        assert (await client.get("/", headers=bearer("v", plan="vip"))).headers[
            "ratelimit-policy"
        ] == '"user";q=5;w=86400'
    assert await gateway.metric("tidegate_limit_checks_total", limit="user", decision="denied") == 4
    assert await gateway.metric("tidegate_limit_near_total", limit="user") >= 2
