"""The gateway's deadline and its switched-off features, as the shop behind it honours them."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import psycopg

_WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND application_name = 'tidegate-shop' AND wait_event_type = 'Lock' AND query LIKE '%FROM orders%'"
)


def _dropped(stack: Any) -> float:
    page = httpx.get(f"{stack.state()['urls']['shop_metrics']}/metrics").text
    counts = re.findall(r'^shop_dropped_requests_total\{at="database"\} (\S+)', page, re.MULTILINE)
    return sum(map(float, counts))


def test_the_database_works_for_nobody_who_was_told_too_late(
    stack: Any, wait_until: Callable[..., Any]
) -> None:
    """Behind a gateway that waits 400 ms the shop gives up what a locked table holds, as does PostgreSQL."""
    before = stack.config.read_text()
    database = stack.state()["stores"]["TIDEGATE_DATABASE_URL"]
    with httpx.Client(base_url=stack.url) as shopper, psycopg.connect(database) as operator:
        shopper.post("/api/session", json={}).raise_for_status()
        body = {"sku": "steam-20", "quantity": 1, "email": "late@example.org"}
        placed = shopper.post("/api/orders", json=body, headers={"idempotency-key": uuid.uuid4().hex})
        path = placed.json()["status_url"]
        wait_until(lambda: shopper.get(path).json()["status"] == "pending", what="the order is written")

        edited = before.replace("timeout: {total: 5s}", "timeout: {total: 400ms}")
        assert edited != before
        try:
            stack.edit(edited)
            operator.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
            count = _dropped(stack)

            def given_up() -> bool:
                answer = shopper.get(path)  # by the shop or by the gateway, whose times end at once
                assert answer.status_code in {503, 504}, answer.text
                return _dropped(stack) > count

            wait_until(given_up, what="the new limit", every=0.1)

            def ended() -> bool:
                operator.execute(
                    "SELECT pg_stat_clear_snapshot()"
                )  # else a transaction sees its first look only
                return operator.execute(_WAITING).fetchone() == (0,)

            wait_until(ended, what="its statements have ended")
        finally:
            operator.rollback()
            stack.edit(before)
        wait_until(lambda: shopper.get(path).status_code == 200, what="the order is shown again")


def test_a_page_is_built_without_what_is_off(stack: Any) -> None:
    """A switch reaches the shop with the next request, kept pages included, and back."""

    def blocks() -> set[bool]:
        pages = [httpx.get(f"{stack.url}/p/steam-50") for _ in range(12)]  # every worker
        assert {page.status_code for page in pages} == {200}
        return {"data-recommendations" in page.text for page in pages}

    def switch(*words: str) -> None:
        assert stack.tidegate("switch", "recommendations", *words).returncode == 0

    # Pinned on, not left to the ladder: a machine that is busy with other tests would have it off.
    try:
        switch("on", "--for", "1m")
        assert blocks() == {True}
        switch("off", "--for", "1m")
        assert blocks() == {False}
        switch("on", "--for", "1m")
        assert blocks() == {True}
    finally:
        switch("auto")
