"""Take the pictures of the README anew, from a real run: a stack of its own, a sale, a browser.

`PYTHONPATH=. python docs/pictures.py` needs Chromium and the extra `bench` (Pillow), takes two minutes, and writes
docs/pictures/*.png; with the word `shop` or `console` only those.
"""

from __future__ import annotations

import asyncio
import io
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from ops.rehearsal import crowd, pulse
from ops.rehearsal.notes import Notes
from tests.running_stack import Stack, start_stack

PICTURES = Path(__file__).resolve().parent / "pictures"
SECONDS = 75.0  # of the sale; curves want some minutes, patience does not
PEOPLE = 600
SWITCH_AT, LOOK_AT = 46.0, 58.0  # seconds into it
MOST = 200_000  # bytes of a picture
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}


def play(stack: Stack) -> threading.Thread:
    """A crowd that comes as on the night, and a smaller one that wants what is soon sold out."""

    async def both() -> None:
        wallet = crowd.Scene(stack.url, stack.sandbox_url, "steam-50", 1)
        passes = crowd.Scene(stack.url, stack.sandbox_url, "flash-100", 2)
        await asyncio.gather(
            crowd.play(wallet, pulse.arrivals(PEOPLE, SECONDS, 1), 3, Notes(0)),
            crowd.play(passes, pulse.arrivals(PEOPLE // 4, SECONDS, 2), 0, Notes(0)),
        )

    thread = threading.Thread(target=lambda: asyncio.run(both()), daemon=True)
    thread.start()
    return thread


def console(browser: Browser, stack: Stack, **context: Any) -> Page:  # noqa: ANN401 - Playwright's own
    """A console that is logged in."""
    page = browser.new_context(**context).new_page()
    page.goto(stack.admin_url)
    page.locator("#token").fill(stack.admin_token)
    page.locator("#enter button").click()
    page.locator("#traffic svg").wait_for()
    return page


def switch(page: Page) -> None:
    """What an operator does: a feature off, a limit lower, each with its reason."""
    page.locator("#features tr", has_text="recommendations").get_by_role(
        "button", name="off", exact=True
    ).click()
    page.get_by_label("Why?").fill("database is hot")
    page.get_by_role("button", name="Switch off").click()
    page.locator("#ask").wait_for(state="hidden")
    page.locator("#limits tr", has_text="checkout").get_by_role("button", name="change…").click()
    page.get_by_role("dialog").get_by_label("Rate").fill("2/second")
    page.get_by_label("Why?").fill("bots at the till")
    page.get_by_role("button", name="Change", exact=True).click()
    page.locator("#ask").wait_for(state="hidden")


def save(page: Page, name: str) -> None:
    """Write a picture with as many colours as it needs to be small."""
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    for colours in (256, 128, 64, 32):
        raw = io.BytesIO()
        image.quantize(colours, dither=Image.Dither.NONE).save(raw, "PNG", optimize=True)
        if len(raw.getvalue()) < MOST:
            break
    (PICTURES / f"{name}.png").write_bytes(raw.getvalue())
    print(f"{name}.png  {len(raw.getvalue()) >> 10} KiB, {colours} colours")  # noqa: T201 - says what it did


def take_shop(browser: Browser, stack: Stack) -> None:
    """The shop before the sale: its front page, and a product on a phone."""
    shop = browser.new_context(viewport={"width": 1280, "height": 860}).new_page()
    shop.goto(stack.url, wait_until="networkidle")
    save(shop, "shop")
    product = browser.new_context(**PHONE).new_page()
    product.goto(f"{stack.url}/p/nova-1000", wait_until="networkidle")
    save(product, "shop-phone")


def take_console(browser: Browser, stack: Stack) -> None:
    """The console while a sale goes on."""
    desk = console(browser, stack, viewport={"width": 1440, "height": 1230})
    hand = console(browser, stack, **PHONE)
    night = console(
        browser, stack, viewport={"width": 1440, "height": 900}, color_scheme="dark", locale="zh-CN"
    )
    began = time.monotonic()
    sale = play(stack)
    desk.wait_for_timeout(max(0.0, began + SWITCH_AT - time.monotonic()) * 1000)
    switch(desk)
    desk.wait_for_timeout(max(0.0, began + LOOK_AT - time.monotonic()) * 1000)
    desk.evaluate("scrollTo({top: 0, behavior: 'instant'}); document.activeElement.blur()")
    desk.wait_for_function("scrollY === 0")
    for page, name in ((desk, "console"), (hand, "console-phone"), (night, "console-night")):
        save(page, name)
    hand.locator("#s-features").scroll_into_view_if_needed()
    hand.locator("#features button[data-value=off]").last.click()
    save(hand, "console-question")
    sale.join(60)


def main() -> None:
    """Take them."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        raise SystemExit("no chromium on PATH")
    PICTURES.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="tg-", dir="/tmp"))
    stack = start_stack(folder / "data")
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
            for what, take in (("shop", take_shop), ("console", take_console)):
                if what in (sys.argv[1:] or ("shop", "console")):
                    take(browser, stack)
            browser.close()
    finally:
        stack.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
