"""Recommendations go off and on, by the admin API and by an edit of the config, in every worker."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

PATH = "/api/products/steam-50/recommendations"
SWITCHED = "recommendations: {state: off, fallback:"


def _degraded(stack: Any) -> set[str | None]:
    """What several connections are told: spread over every worker."""
    answers = [httpx.get(stack.url + PATH) for _ in range(12)]
    assert {answer.status_code for answer in answers} == {200}
    for answer in answers:
        if answer.headers.get("tidegate-degraded"):
            assert answer.json() == {"items": []}
    return {answer.headers.get("tidegate-degraded") for answer in answers}


@pytest.fixture
def admin(stack: Any) -> Iterator[httpx.Client]:
    """A client of the admin API, the ladder held at its foot; all is back on `auto` afterwards."""
    headers = {"Authorization": f"Bearer {stack.admin_token}"}
    with httpx.Client(base_url=stack.admin_url, headers=headers) as http:
        http.put("/api/step", json={"step": 0}).raise_for_status()
        yield http
        http.put("/api/features/recommendations", json={"state": "auto"})
        http.put("/api/step", json={"step": "auto"})


def test_the_admin_api_switches_every_worker(
    stack: Any, admin: httpx.Client, wait_until: Callable[..., Any]
) -> None:
    """PUT off: every worker answers the fallback; PUT auto: every worker asks the shop again."""
    wait_until(lambda: _degraded(stack) == {None}, what="on in every worker")

    assert admin.put("/api/features/recommendations", json={"state": "off", "for": "5m"}).is_success
    wait_until(lambda: _degraded(stack) == {"recommendations"}, what="off in every worker")

    assert admin.put("/api/features/recommendations", json={"state": "auto"}).is_success
    wait_until(lambda: _degraded(stack) == {None}, what="on in every worker")


def test_a_page_keeps_its_style_in_an_emergency(stack: Any, admin: httpx.Client) -> None:
    """Where only what is critical passes, whoever waits for a key still sees a page, not bare text."""
    page = httpx.get(stack.url).text
    styles = re.findall(r'"(/static/[^"]+\.css)"', page)
    assert styles
    try:
        assert admin.put("/api/step", json={"step": 3, "for": "1m"}).json()["name"] == "emergency"
        assert {httpx.get(stack.url + style).status_code for style in styles} == {200}
        assert httpx.get(f"{stack.url}/p/{uuid.uuid4()}").status_code == 503  # no cache has it
        assert httpx.post(f"{stack.url}/static/style.css").status_code == 503  # only what is read is critical
    finally:
        admin.put("/api/step", json={"step": "auto"})


@pytest.mark.usefixtures("admin")
def test_an_edit_of_the_config_switches_every_worker(stack: Any, wait_until: Callable[..., Any]) -> None:
    """Saving the file is enough; a broken edit changes nothing; putting it back undoes it."""
    before = stack.config.read_text()
    edited = before.replace("recommendations: {fallback:", SWITCHED)
    assert edited != before
    try:
        stack.edit(edited)
        wait_until(lambda: _degraded(stack) == {"recommendations"}, what="off in every worker")

        reloads = _reloads(stack)
        stack.edit(before.replace("limits:\n", "limitz:\n", 1))
        wait_until(lambda: _reloads(stack) > reloads, what="the broken edit was looked at")
        assert _degraded(stack) == {"recommendations"}
    finally:
        stack.edit(before)
    wait_until(lambda: _degraded(stack) == {None}, what="on in every worker")


def _reloads(stack: Any) -> int:
    page = httpx.get(f"{stack.admin_url}/metrics").text
    lines = [line for line in page.splitlines() if line.startswith("tidegate_config_reloads_total{")]
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in lines)


def test_the_shell_does_what_the_admin_api_does(
    stack: Any, admin: httpx.Client, wait_until: Callable[..., Any]
) -> None:
    """`tidegate switch`, `step` and `limit` change what the API shows, and say so in words or JSON."""
    switched = stack.tidegate(
        "switch", "recommendations", "off", "--for", "10m", "--reason", "test", "--json"
    )
    stepped = stack.tidegate("step", "elevated", "--for", "1m")
    limited = stack.tidegate("limit", "user", "500/second", "--for", "1m")
    try:
        assert switched.returncode == 0, switched.stderr
        assert json.loads(switched.stdout)
        assert admin.get("/api/features/recommendations").json()["state"] == "off"
        assert stepped.returncode == 0, stepped.stderr
        wait_until(lambda: admin.get("/api/step").json()["step"] == 1, what="step 1")
        held = r"step 1 \(elevated\) is pinned for 1 min in 2 of 2 workers after \d+ ms\n"
        assert re.fullmatch(held, stepped.stdout), stepped.stdout
        assert limited.returncode == 0, limited.stderr
        assert "500" in str(admin.get("/api/limits/user").json()["rate"])
    finally:
        for words in (("switch", "recommendations", "auto"), ("step", "auto"), ("limit", "user", "auto")):
            assert stack.tidegate(*words).returncode == 0


def test_mistakes_on_the_shell_are_one_line(stack: Any) -> None:
    """An unknown feature is refused by the API with 404 and told in one line: exit 8."""
    done = stack.tidegate("switch", "recomendations", "off")

    assert done.returncode == 8
    assert done.stderr.endswith("; did you mean recommendations?\n")
    assert done.stderr.count("\n") == 1
