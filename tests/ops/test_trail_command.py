"""`tidegate trail`, `shut-offs` and `reload`: what they ask, and what they make of the answer."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.ops.admin_api import Api, run

CHANGE = {
    "at": 1_700_000_000_000,
    "kind": "feature",
    "name": "recommendations",
    "old": "auto",
    "value": "off",
    "by": "operator at 127.0.0.1",
    "reason": "database is hot",
    "until": 1_700_000_600.0,
    "applied": 2,
    "workers": 2,
    "ms": 11.6,
    "result": "done",
}
REFUSAL = {
    "at": 1_700_000_001_000,
    "kind": "step",
    "name": "PUT /api/step\x1b[2J",
    "by": "somebody at 10.0.0.9",
    "status": 401,
    "detail": "nobody has this token",
    "result": "refused",
    "left_out": 7,
}
HELD = {
    "shut_offs": [
        {"id": one, "route": "/{sku}", "parameter": "sku", "value": value, "status": 410, "seconds_left": s}
        for one, value, s in (("a1", "one", 65.4), ("b2", "two", 4.6))
    ]
}


def test_the_trail_is_a_line_for_each_change(api: Api) -> None:
    """When, who, what, until when, where it held, and why; in the time of the machine."""
    at, until = (
        time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when)) for when in (1_700_000_000, 1_700_000_600)
    )
    api.answer = (200, json.dumps({"changes": [CHANGE] * 30, "refused": [REFUSAL]}).encode())
    lines = run(api, "trail", "--last", "3").output.splitlines()

    what = "operator at 127.0.0.1  feature recommendations: auto -> off"
    assert lines == [f"{at}  {what} until {until} in 2 of 2 workers after 12 ms: database is hot"] * 3
    assert len(run(api, "trail").output.splitlines()) == 20
    assert api.asked[0][:2] == ("GET", "/api/audit")


def test_the_trail_tells_what_an_edit_has_changed(api: Api) -> None:
    """Two numbers of configurations tell nobody anything. Of nothing it says so."""
    edit = {"kind": "config", "name": "gateway.yaml", "old": "1", "value": "2", "by": "file changed"}
    edit |= {"at": 1_700_000_000_000, "detail": "limits.user.rate: 1/hour -> 2/hour"}
    api.answer = (200, json.dumps({"changes": [edit], "refused": []}).encode())

    said = "file changed  config gateway.yaml: 1 -> 2 (limits.user.rate: 1/hour -> 2/hour)\n"
    assert run(api, "trail").output.endswith(said)
    assert run(api, "trail", "--refused").output == "none\n"


def test_a_closed_admin_api_blames_no_token(api: Api) -> None:
    """Its gateway knows nobody; another token in the caller's environment would open nothing."""
    closed = "the admin API is closed: set TIDEGATE_ADMIN_TOKEN, admin.token_file or admin.tokens"
    api.answer = (401, json.dumps({"detail": closed}).encode())
    done = run(api, "status")

    assert done.exit_code == 8
    assert "knows no token; the admin API is closed" in done.output
    assert "refused the token" not in done.output


def test_refused_attempts_are_told_and_move_no_cursor(api: Api) -> None:
    """Who tried what and why not; what a stranger has spelt is shown harmlessly."""
    api.answer = (200, json.dumps({"changes": [CHANGE], "refused": [REFUSAL]}).encode())
    said = run(api, "trail", "--refused").output

    assert "somebody at 10.0.0.9  PUT /api/step?[2J: 401 nobody has this token (7 more before it)\n" in said


@pytest.mark.parametrize("words", ["trail", "shut-offs list", "shut-offs clear all", "reload"])
def test_scripts_get_the_answer_as_it_is(api: Api, words: str) -> None:
    """`--json` is the admin API's own document."""
    api.answer = (200, b'{"changes": [], "more": 1}')
    done = run(api, *words.split(), "--json")

    assert done.exit_code == 0, done.output
    assert json.loads(done.output) == {"changes": [], "more": 1}


def test_shut_offs_are_listed_and_cleared(api: Api) -> None:
    """What, where, with which answer and for how long; one by its id, or all."""
    api.answer = (200, json.dumps(HELD).encode())
    listed = run(api, "shut-offs", "list").output
    api.answer = (200, b'{"cleared": 1}')
    one, every = run(api, "shut-offs", "clear", "a1"), run(api, "shut-offs", "clear", "all")
    api.answer = (404, b'{"detail": "nothing of that id is shut off"}')
    gone = run(api, "shut-offs", "clear", "a1")

    assert [line.split() for line in listed.splitlines()[1:]] == [
        ["id", "what", "route", "answer", "for"],
        ["b2", "sku=two", "/{sku}", "410", "4", "s"],
        ["a1", "sku=one", "/{sku}", "410", "1", "min", "5", "s"],
    ]
    assert one.output == every.output == "1 let through again\n"
    assert [one[:2] for one in api.asked[:3]] == [
        ("GET", "/api/shut-offs"),
        ("DELETE", "/api/shut-offs/a1"),
        ("DELETE", "/api/shut-offs"),
    ]
    assert (gone.exit_code, gone.output) == (8, "tidegate: nothing of that id is shut off\n")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            {"version": 3, "changes": [{"path": "limits.user.rate", "before": "1/hour", "after": "2/hour"}]},
            [
                "configuration 3 holds in 2 of 2 workers after 40 ms; it changed 1 key:",
                "limits.user.rate: 1/hour -> 2/hour",
            ],
        ),
        (
            {"version": 2, "changes": []},
            ["the file says what holds: configuration 2 in 2 of 2 workers after 40 ms"],
        ),
    ],
)
def test_the_file_is_loaded(api: Api, answer: dict[str, Any], says: list[str]) -> None:
    """Which configuration holds, where, and what it changed."""
    api.answer = (200, json.dumps({**answer, "applied": 2, "workers": 2, "ms": 40.0}).encode())
    done = run(api, "reload")

    assert (done.exit_code, done.output.splitlines()) == (0, says)
    assert api.asked[0][:2] == ("POST", "/api/config/reload")


def test_a_broken_file_is_told_line_by_line(api: Api) -> None:
    """Like `tidegate check`: each mistake, exit 1."""
    mistakes = ["gateway.yaml:3: listen.prot: unknown", "gateway.yaml:9: routes: missing"]
    api.answer = (422, json.dumps({"detail": "the file is not used", "mistakes": mistakes}).encode())
    done = run(api, "reload")

    assert (done.exit_code, done.output.splitlines()) == (1, mistakes)
