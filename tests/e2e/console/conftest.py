"""The console in a real browser, before a stack that sells."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page

from tests.e2e.console.lone_gateway import LoneGateway
from tests.e2e.console.operating import log_in
from tests.waiting import PATIENCE

SKU = "steam-50"


def complains(message: ConsoleMessage) -> bool:
    """An error or a warning, unless it only says that a form was refused."""
    return message.type in ("error", "warning") and "status of 422" not in message.text


@pytest.fixture
def complaints() -> list[str]:
    """What the browser complains about, CSP among it; a test that ends with some has failed."""
    return []


@pytest.fixture
def console(browser: Browser, stack: Any, complaints: list[str]) -> Iterator[Callable[..., Page]]:
    """`console(token=None, **context)`: the console in a browser of its own, logged in unless token is ""."""

    def opened(token: str | None = None, **options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
        contexts.callback(context.close)
        page = context.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.on("console", lambda m: complaints.append(m.text) if complains(m) else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(stack.admin_url)
        if token != "":
            log_in(page, token or stack.admin_token)
        return page

    with contextlib.ExitStack() as contexts:
        yield opened
    assert complaints == []


@pytest.fixture
def lone_gateway(tmp_path: Path, free_port: Any) -> Iterator[LoneGateway]:
    """A gateway that a test may stop and kill."""
    running = LoneGateway(tmp_path, free_port())
    yield running
    running.kill()


@pytest.fixture(autouse=True)
def admin(stack: Any) -> Iterator[httpx.Client]:
    """The admin API, the ladder held at its foot; whatever a test has pinned is free again afterwards."""
    headers = {"authorization": f"Bearer {stack.admin_token}"}
    with httpx.Client(base_url=stack.admin_url, headers=headers, trust_env=False) as http:
        # On a machine that is busy with other tests it would climb by itself.
        http.put("/api/step", json={"step": 0, "reason": "a test of the console"}).raise_for_status()
        try:
            yield http
        finally:
            freed = [
                http.put("/api/features/recommendations", json={"state": "auto"}),
                http.put("/api/step", json={"step": "auto"}),
                http.put("/api/breakers/shop", json={"state": "auto"}),
                http.put("/api/limits/checkout", json={"rate": "auto"}),
            ]
            for answer in freed:
                answer.raise_for_status()


@pytest.fixture
def shopper(browser: Browser, stack: Any) -> Iterator[Page]:
    """A shopper on a product's page."""
    with contextlib.closing(browser.new_context(viewport={"width": 390, "height": 844})) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.goto(f"{stack.url}/p/{SKU}")
        yield page


@pytest.fixture
def load(stack: Any) -> Iterator[Counter[int]]:
    """Shoppers all the while; how each of their requests was answered."""
    seen: Counter[int] = Counter()
    over = threading.Event()

    def look() -> None:
        with httpx.Client(base_url=stack.url, trust_env=False, timeout=60) as http:
            http.post("/api/session", json={}).raise_for_status()
            while not over.is_set():
                for path in ("/", f"/p/{SKU}", f"/api/products/{SKU}/recommendations"):
                    seen[http.get(path).status_code] += 1
                over.wait(0.2)  # Shoppers, who stay within what one user may ask.

    crowd = [threading.Thread(target=look) for _ in range(6)]
    for one in crowd:
        one.start()
    try:
        yield seen
    finally:
        over.set()
        for one in crowd:
            one.join()
