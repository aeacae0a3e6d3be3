"""The commands of an operator against a running stack: what they say, what then holds, how they end."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

HOLDS = r"in 2 of 2 workers(, after [\d.]+ ms)?"


@pytest.fixture
def tidegate(stack: Any) -> Iterator[Callable[..., str]]:
    """`tidegate(*words, code=0)`: what the command prints; whatever was pinned is free again afterwards."""

    def run(*words: str, code: int = 0) -> str:
        done = stack.tidegate(*words)
        assert done.returncode == code, done.stdout + done.stderr
        return str(done.stdout if code == 0 else done.stderr)

    yield run
    for words in (
        ("switch", "recommendations", "auto"),
        ("step", "auto"),
        ("breaker", "shop", "auto"),
        ("limit", "checkout", "auto"),
    ):
        run(*words)


def test_a_feature_is_switched_and_the_screen_says_who_and_why(
    stack: Any, tidegate: Callable[..., str]
) -> None:
    """It holds when the command ends; `status` shows the reason; `auto` frees it."""
    words = ("switch", "recommendations", "off", "--for", "10m", "--reason", "database is hot")
    said = tidegate(*words)
    fallback = httpx.get(f"{stack.url}/api/products/steam-50/recommendations", trust_env=False)
    screen = tidegate("status")
    freed = tidegate("switch", "recommendations", "auto")
    trail = tidegate("trail", "--last", "2").splitlines()

    assert re.match(rf"recommendations is off for 10 min {HOLDS}.*database is hot", said), said
    assert fallback.headers["tidegate-degraded"] == "recommendations"
    assert re.search(r"recommendations +off +operator +\d+ min \d+ s +database is hot", screen), screen
    assert freed.startswith("recommendations is left to the ladder")
    assert re.search(r"feature recommendations: off -> auto in 2 of 2 workers", trail[0]), trail
    assert re.search(r"feature recommendations: auto -> off until .*: database is hot$", trail[1]), trail


def test_the_step_is_held_by_name(tidegate: Callable[..., str]) -> None:
    """By its name or number; the screen marks it; an unknown one is told with what there is."""
    said = tidegate("step", "elevated", "--for", "5m")
    document = json.loads(tidegate("status", "--json"))
    wrong = tidegate("step", "elevatd", code=8)

    assert re.match(rf"step 1 \(elevated\) is pinned for 5 min {HOLDS}", said), said
    assert (document["step"]["step"], document["step"]["state"]) == (1, "1")
    assert "did you mean elevated?" in wrong


def test_a_breaker_is_held_open_and_freed(
    stack: Any, tidegate: Callable[..., str], wait_until: Callable[..., Any]
) -> None:
    """Open: shoppers are told to come back; auto: they are served."""

    def status() -> int:
        return httpx.post(f"{stack.url}/api/session", json={}, trust_env=False).status_code

    said = tidegate("breaker", "shop", "open", "--for", "1m", "--reason", "failover")

    assert re.match(rf"the breaker of shop is held open for 1 min {HOLDS}", said), said
    assert status() == 503
    assert "judges by itself" in tidegate("breaker", "shop", "auto")
    wait_until(lambda: status() == 201, what="the shop is reached again")


def test_a_limit_is_changed_in_scripts(tidegate: Callable[..., str]) -> None:
    """`--json` is the admin API's answer: the rate that holds, the configured one, until when, and where."""
    answer = json.loads(tidegate("limit", "checkout", "1/minute", "--for", "1m", "--json"))

    assert (answer["rate"], answer["configured"]) == ("1/minute", "5/10 seconds")
    assert round(answer["pin"]["until"] - answer["pin"]["since"]) == 60
    assert (answer["applied"], answer["workers"]) == (2, 2)


def test_what_is_shut_off_and_the_file_that_holds(tidegate: Callable[..., str]) -> None:
    """Nothing is sold out here, and the file is as it was: both are said plainly."""
    assert tidegate("shut-offs", "list").splitlines()[0] == "shut off by upstreams"
    assert tidegate("shut-offs", "clear", "none-such", code=8).startswith("tidegate: nothing of that id")
    assert re.match(rf"the file says what holds: configuration \d+ {HOLDS}", tidegate("reload"))


def test_the_screen_tells_what_is_going_on(stack: Any, tidegate: Callable[..., str]) -> None:
    """Rates and percentiles of late, totals, who is at a limit, the shop's stock and queues."""
    with httpx.Client(base_url=stack.url, trust_env=False) as shopper:
        shopper.post("/api/session", json={}).raise_for_status()
        shopper.get("/api/products/steam-20").raise_for_status()
        codes = [shopper.post("/api/orders", json={}).status_code for _ in range(7)]
    assert set(codes) == {400, 429}  # no Idempotency-Key; then over the limit
    screen = tidegate("status")

    for words in (
        r"gateway",
        r"workers +2 of 2",
        r"outcome +now, /s +in all",
        r"proxied +[\d.]+ +\d+",
        r"p99 +[\d.]+ ms",
        r"checkout +5/10 seconds +user +enforce",
        r"who is at a limit",
        r"checkout +u:\w+ +\d+",
        r"steam-20 +\d+ +\d+",
        r"callbacks +\d+ +[\d.]+",
        r"were delivered +\d+",
    ):
        assert re.search(words, screen), f"{words}\n{screen}"


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("switch", "recomendations", "off"), 8, "did you mean recommendations?"),
        (("switch", "recommendations", "off", "--for", "soon"), 8, "for: "),
        (("limit", "checkout", "a lot"), 8, "rate: "),
        (("status", "--token", "wrong"), 8, "refused the token"),
        (("status", "--admin-url", "http://127.0.0.1:1"), 7, "does not answer"),
    ],
)
def test_what_is_refused_is_one_line_with_its_exit_status(
    tidegate: Callable[..., str], words: tuple[str, ...], code: int, says: str
) -> None:
    """As documented in `--help` and docs/operate.md."""
    said = tidegate(*words, code=code)

    assert said.startswith("tidegate: ")
    assert said.count("\n") == 1
    assert says in said
