"""Other sites' pages can make a browser send requests here; none of them changes anything."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from shop_backend.origin import SameOrigin

FOREIGN: list[dict[str, str]] = [
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "same-origin", "origin": "http://evil.test"},
    {"origin": "null"},
    {"origin": "http://evil.test"},
    {"origin": "http://shop.test.evil.test"},
    {"origin": "http://shop.test:81"},
    {"origin": "http://shop.test@evil.test"},
    {"origin": "file://shop.test"},
    {"origin": "http://[::1"},
    {"origin": ""},
]
OWN: list[dict[str, str]] = [
    {},
    {"sec-fetch-site": "none"},
    {"sec-fetch-site": "same-origin", "origin": "http://shop.test"},
    {"origin": "http://SHOP.test:80"},
    {"origin": "http://gateway.test:8000", "x-forwarded-host": "gateway.test:8000", "host": "127.0.0.1:1"},
    {"origin": "https://shop.test", "host": "inner:8100"},
]


@pytest.mark.parametrize("headers", FOREIGN)
async def test_no_foreign_page_changes_anything(shop: Any, headers: dict[str, str]) -> None:
    """Login CSRF and drive-by posts of any type: 403 problem+json, no cookie, nothing ordered."""
    buyer = await shop.session()
    for method, path in (
        ("POST", "/api/session"),
        ("POST", "/api/orders"),
        ("PUT", "/api/cart/plain"),
        ("DELETE", "/api/cart/plain"),
    ):
        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json"):
            answer = await shop.client.request(
                method, path, headers={**buyer, **headers, "content-type": kind}, content=b"{}"
            )
            assert answer.status_code == 403, (method, path)
            assert answer.headers["content-type"] == "application/problem+json"
            assert "set-cookie" not in answer.headers
    assert (await shop.client.get("/api/cart", headers={**buyer, **headers})).status_code == 200


@pytest.mark.parametrize("headers", OWN)
async def test_our_own_pages_and_programs_may(shop: Any, headers: dict[str, str]) -> None:
    """The shop's pages, behind the gateway too, and programs that say nothing of sites."""
    answer = await shop.client.post("/api/session", headers=headers, content=b"{}")
    assert answer.status_code == 201, answer.text


async def test_callbacks_prove_themselves(shop: Any) -> None:
    """A provider may send what headers it likes: its signature counts."""
    answer = await shop.client.post("/callbacks/sandbox", content=b"{}", headers=FOREIGN[0])
    assert answer.status_code == 401


async def test_the_provider_is_no_drive_by_target(shop: Any) -> None:
    """Another site's page can't open checkouts, pay or refund at the sandbox on the loopback; curl -d can."""
    order = await shop.placed()
    body = (
        f'{{"order_id": "{order["order_id"]}", "amount_cents": 1000, "currency": "EUR",'
        ' "callback_url": "http://127.0.0.1:1/callbacks/sandbox", "return_url": "http://shop.test/"}'
    )
    form = {"content-type": "application/x-www-form-urlencoded"}
    for headers in FOREIGN:
        for path in ("/checkouts", "/refunds"):
            answer = await shop.provider.post(path, content=body, headers={**form, **headers})
            assert answer.status_code == 403, headers
    made = await shop.provider.post("/checkouts", content=body, headers=form)
    assert made.status_code == 200
    address = f"/checkouts/{made.json()['id']}/pay"
    page = {"sec-fetch-site": "same-origin", "origin": "http://sandbox.test", **form}
    assert (
        await shop.provider.post(address, content="outcome=success", headers=FOREIGN[0])
    ).status_code == 403
    paid = await shop.provider.post(address, content="outcome=success", headers=page)
    assert paid.status_code == 303


@given(origin=st.text(max_size=30) | st.from_regex(r"https?://[a-z0-9.:@\[\]-]{0,30}", fullmatch=True))
async def test_no_origin_breaks_the_check(origin: str) -> None:
    """Whatever Origin says: let through only when it names our host, never an error of ours."""
    raw = origin.encode("latin-1", "replace").replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b"")

    async def done(_: Request) -> PlainTextResponse:
        return PlainTextResponse("done")

    app = Starlette(
        routes=[Route("/", done, methods=["POST"])],
        middleware=[Middleware(SameOrigin, public_url="http://shop.test")],
    )
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop.test") as client:
        answer = await client.post("/", headers=[(b"origin", raw)])
    ours = raw.strip().lower().split(b"://")[-1].split(b":")[0].split(b"/")[0] == b"shop.test"
    assert answer.status_code == 403 or ours
