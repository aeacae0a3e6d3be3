"""One purchase, the way the contract walks it with curl."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx


def test_session_product_order_pay_key(stack: Any, wait_until: Callable[..., Any]) -> None:
    """A shopper comes, looks, orders, pays, and holds a card key; everything by plain HTTP."""
    with httpx.Client(base_url=stack.url) as http:
        session = http.post("/api/session", json={"email": "ann@example.org"})
        product = http.get("/api/products/steam-50")
        body = {"sku": "steam-50", "quantity": 1, "email": "ann@example.org"}
        order = http.post("/api/orders", json=body, headers={"Idempotency-Key": "walk-1"})
        again = http.post("/api/orders", json=body, headers={"Idempotency-Key": "walk-1"})

        assert session.status_code == 201
        assert "session" in session.cookies
        assert product.status_code == 200
        assert product.headers["etag"]
        assert order.status_code == 202, order.text
        assert again.status_code == 202
        assert again.json()["order_id"] == order.json()["order_id"]

        path = f"/api/orders/{order.json()['order_id']}"
        pay_url = wait_until(lambda: http.get(path).json().get("pay_url"), what="a pay link")
        assert pay_url.startswith(stack.sandbox_url)
        assert httpx.post(f"{pay_url}/pay", json={"outcome": "success"}).is_success
        done = wait_until(
            lambda: (state := http.get(path)).json()["status"] == "delivered" and state, what="delivery"
        )

        assert len(done.json()["cards"]) == 1
        assert done.headers["cache-control"] == "no-store"
        assert httpx.get(stack.url + path).status_code == 404  # a stranger sees nothing
        token = httpx.get(stack.url + path, params={"token": order.json()["token"]})
        assert token.json()["cards"] == done.json()["cards"]


def test_answers_carry_the_gates_marks(stack: Any) -> None:
    """An admitted answer says how much quota is left and which request it was."""
    answer = httpx.get(f"{stack.url}/api/products")

    assert answer.status_code == 200
    assert answer.headers["ratelimit-policy"]
    assert answer.headers["ratelimit"]
    assert answer.headers["x-request-id"]


def test_static_files_and_pages_come_through(stack: Any) -> None:
    """The storefront is served through the gate, which keeps each file once, whatever query comes with it."""
    with httpx.Client(base_url=stack.url) as client:  # one connection, so one worker and its cache
        page = client.get("/")
        style = re.findall(r'"(/static/[^"]+\.css)"', page.text)[0]
        client.get(style)
        again = [client.get(f"{style}?v={n}").headers["cache-status"] for n in range(3)]

    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert all(said.startswith("tidegate; hit") for said in again), again


def test_a_page_is_kept_once_however_it_is_asked_for(stack: Any) -> None:
    """Queries that the shop does not read, spellings of Accept-Encoding, a missing file: one each."""
    headers = {"authorization": f"Bearer {stack.admin_token}"}

    def kept() -> int:
        status = httpx.get(f"{stack.admin_url}/api/status", headers=headers).json()
        return int(status["cache"]["entries"])

    with httpx.Client(base_url=stack.url) as client:  # one connection, so one worker and its cache
        style = re.findall(r'"(/static/[^"]+\.css)"', client.get("/").text)[0]
        nowhere = f"/static/{uuid.uuid4()}.css"
        pages = [(path, 200) for path in (style, "/", "/p/steam-50", "/api/products")]
        for path, status in [*pages, (nowhere, 404)]:
            client.get(path, headers={"accept-encoding": "gzip, br"})
            before = kept()
            for number in range(4):
                asking = {
                    "accept-encoding": f"br;q=0.{number}1, x-{number}, gzip",
                    "accept": f"text/x-{number}",
                }
                assert client.get(f"{path}?x={number}", headers=asking).status_code == status
            assert kept() == before, path
        assert before > 0


def test_card_keys_are_imported_while_the_shop_sells(
    stack: Any, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    """`tidegate cards import` says what was added or refused; the new ones are for sale at once."""
    file = tmp_path / "cards.csv"
    file.write_text("sku,secret\nnova-1000,E2E-AAAA-0001\nnova-1000,E2E-AAAA-0001\nunknown,E2E-AAAA-0002\n")
    before = _free(stack, "nova-1000")
    done = stack.tidegate("cards", "import", str(file))

    assert "1 added" in done.stdout.replace("added: 1", "1 added"), done.stdout + done.stderr
    wait_until(lambda: _free(stack, "nova-1000") == before + 1, what="the new card in the stock")
    again = stack.tidegate("cards", "import", str(file))
    assert "E2E-AAAA" not in done.stdout + done.stderr + again.stdout + again.stderr


def _free(stack: Any, sku: str) -> float:
    page = httpx.get(f"{stack.state()['urls']['worker_metrics']}/metrics").text
    wanted = f'shop_stock{{sku="{sku}",state="free"}} '
    return next(float(line.removeprefix(wanted)) for line in page.splitlines() if line.startswith(wanted))


def test_the_audit_is_clean_after_a_purchase(stack: Any) -> None:
    """`tidegate audit` exits 0."""
    done = stack.tidegate("audit")

    assert done.returncode == 0, done.stdout + done.stderr


def test_status_is_one_screen(stack: Any) -> None:
    """`tidegate status` shows the gate and the shop behind it."""
    done = stack.tidegate("status")

    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("step", "features", "breakers", "limits", "stock", "queues"):
        assert word in done.stdout
