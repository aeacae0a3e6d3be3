"""Who comes in at the admin port, with a token or a browser's session, and what they may do."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from gateway.admin.auth import MOST_SESSIONS, Door
from gateway.admin.guesses import BURST, MOST_ADDRESSES, Guesses
from gateway.config import Admin
from gateway.errors import TooManyLogins, Unauthorized
from tests.clock import Clock

VIEWER, OPERATOR = "a-viewer's-token", "an-operator's-token"
FEATURE = "/api/features/recommendations"


def listed(name: str, role: str, token: str) -> dict[str, str]:
    return {"name": name, "role": role, "token_sha256": hashlib.sha256(token.encode()).hexdigest()}


TOKENS = [listed("vera", "viewer", VIEWER), listed("otto", "operator", OPERATOR)]


@pytest.fixture
async def gateway(start_gateway: Any) -> Any:
    """One whose settings name a viewer and an operator."""
    return await start_gateway(admin={"port": 0, "tokens": TOKENS})


def browser(gateway: Any, **headers: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=gateway.admin_url, headers={"origin": gateway.admin_url, **headers})


async def log_in(client: httpx.AsyncClient, token: str) -> httpx.Response:
    return await client.post("/api/session", json={"token": token})


def request(cookie: str = "", token: str = "") -> Request:
    headers = [(b"cookie", f"tidegate-session={cookie}".encode())] if cookie else []
    if token:
        headers.append((b"authorization", f"Bearer {token}".encode()))
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "client": ("10.0.0.1", 1)}
    return Request(scope)


# ---- roles -------------------------------------------------------------------------------------


async def test_a_viewer_looks_and_touches_nothing(gateway: Any) -> None:
    """A viewer's token opens every look and no change; the attempt is recorded with who made it."""
    assert (await gateway.admin("GET", "/api/status", token=VIEWER)).json()["role"] == "viewer"
    for method, path, body in (
        ("PUT", FEATURE, {"state": "off"}),
        ("PUT", "/api/step", {"step": 0}),
        ("DELETE", "/api/shut-offs", None),
        ("POST", "/api/config/reload", None),
        ("POST", "/api/config/check", None),
    ):
        refused = await gateway.admin(method, path, body, token=VIEWER)
        assert (refused.status_code, refused.json()["type"]) == (403, "urn:tidegate:read-only")

    trail = (await gateway.admin("GET", "/api/audit", token=VIEWER)).json()
    assert trail["changes"] == []
    assert {(one["by"], one["role"], one["status"]) for one in trail["refused"]} == {
        ("vera at 127.0.0.1", "viewer", 403)
    }
    assert len(trail["refused"]) == 5
    assert await gateway.metric("tidegate_admin_refusals_total", code="403") == 5


async def test_an_operator_is_known_by_name(gateway: Any) -> None:
    """What an operator of the list changes is recorded under their name, with what came of it."""
    done = await gateway.admin(
        "PUT", FEATURE, {"state": "off", "reason": "sale", "for": "5m"}, token=OPERATOR
    )

    assert done.json()["pin"]["by"] == "otto at 127.0.0.1"
    effect = done.json()["effect"]
    assert (effect["applied"], effect["workers"], len(effect["each"])) == (2, 2, 2)
    assert all(0 <= one["ms"] <= effect["ms"] for one in effect["each"])
    (entry,) = (await gateway.admin("GET", "/api/audit")).json()["changes"]
    told = {key: entry[key] for key in ("by", "role", "kind", "name", "old", "value", "reason", "result")}
    assert told == {
        "by": "otto at 127.0.0.1",
        "role": "operator",
        "kind": "feature",
        "name": "recommendations",
        "old": "auto",
        "value": "off",
        "reason": "sale",
        "result": "done",
    }
    assert (entry["applied"], entry["workers"], entry["ms"]) == (2, 2, effect["ms"])
    assert entry["until"] > entry["at"] / 1000


async def test_a_token_that_is_taken_out_of_the_file_opens_nothing(gateway: Any, until: Any) -> None:
    """An edit takes a token away and gives another, without a restart; its sessions end with it."""
    async with browser(gateway) as client:
        assert (await log_in(client, OPERATOR)).status_code == 201
        gateway.edit(admin={"port": 0, "tokens": [listed("nina", "operator", "new")]})

        async def taken() -> bool:
            return bool((await gateway.admin("GET", "/api/status", token="new")).status_code == 200)

        await until(taken)
        assert (await client.get("/api/status")).status_code == 401
    assert (await gateway.admin("GET", "/api/status", token=OPERATOR)).status_code == 401


async def test_a_rotated_token_file_ends_the_old_token(
    start_gateway: Any, tmp_path: Path, until: Any
) -> None:
    """Only the file's content changes: it is noticed, and told of; the old token's sessions end with it."""
    file = tmp_path / "token"
    file.write_text("old\n")
    gateway = await start_gateway(
        admin={"port": 0, "token_file": str(file)}, env={"TIDEGATE_ADMIN_TOKEN": ""}
    )
    async with browser(gateway) as client:
        assert (await log_in(client, "old")).status_code == 201
        file.write_text("new\n")

        async def taken() -> bool:
            return bool((await gateway.admin("GET", "/api/status", token="new")).status_code == 200)

        await until(taken, gateway.log)
        assert (await client.get("/api/status")).status_code == 401
    assert (await gateway.admin("GET", "/api/status", token="old")).status_code == 401
    changes = (await gateway.admin("GET", "/api/audit", token="new")).json()["changes"]
    told = {change["detail"] for change in changes if change["by"] == "file changed"}
    assert told == {"admin.token_file: what stood in it -> what stands in it now"}


def test_a_token_file_that_goes_away_locks_nobody_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its token holds until there is another, and the log says so; what is listed is as the settings say."""
    file = tmp_path / "token"
    file.write_text("of-the-file")
    now, later = [Admin.model_validate({"token_file": file, "tokens": [one]}) for one in TOKENS]
    door = Door(lambda: now, {})
    assert [bearer.name for bearer in door.bearers()] == ["operator", "vera"]
    file.unlink()

    now = later

    assert door.enter(request(token="of-the-file")).name == "operator"
    assert [bearer.name for bearer in door.bearers()] == ["operator", "otto"]
    assert [record.args[0] for record in caplog.records if record.args] == [file]
    assert "of-the-file" not in caplog.text
    with pytest.raises(FileNotFoundError):
        Door(lambda: now, {}).bearers()


async def test_no_token_is_kept_or_told(gateway: Any) -> None:
    """Neither tokens nor their hashes are in any answer, nor in the log."""
    async with browser(gateway) as client:
        await log_in(client, OPERATOR)
        await log_in(client, "no-such-token-anywhere")
    pages = [(await gateway.admin("GET", path)).text for path in ("/api/config", "/api/audit", "/api/status")]

    for text in (*pages, gateway.log()):
        for one in TOKENS:
            assert one["token_sha256"] not in text
        for secret in (VIEWER, OPERATOR, "no-such-token-anywhere", "a-token-for-tests"):
            assert secret not in text


# ---- browsers ----------------------------------------------------------------------------------


async def test_a_browser_logs_in_changes_and_logs_out(gateway: Any) -> None:
    """The cookie lets it look; with the form's token it changes; after logging out neither."""
    async with browser(gateway) as client:
        session = await log_in(client, OPERATOR)
        assert session.status_code == 201
        cookie = session.headers["set-cookie"].lower()
        for word in ("httponly", "samesite=strict", "path=/"):
            assert word in cookie
        assert "domain" not in cookie
        csrf = session.json()["csrf"]
        assert (await client.get("/api/session")).json() == session.json()
        assert (await client.get("/api/status")).json()["role"] == "operator"

        changed = await client.put(FEATURE, json={"state": "off"}, headers={"x-csrf-token": csrf})
        assert (changed.status_code, changed.json()["on"]) == (200, False)
        gone = await client.delete("/api/session", headers={"x-csrf-token": csrf})
        assert gone.status_code == 204
        assert (await client.get("/api/status")).status_code == 401
        client.cookies.set("tidegate-session", session.cookies["tidegate-session"])
        assert (await client.get("/api/status")).status_code == 401


async def test_over_tls_the_cookie_is_bound_to_it(gateway: Any) -> None:
    """A browser that came by https gets a __Host- cookie that no plain page ever sees."""
    async with browser(
        gateway, **{"origin": "https://ops.example", "sec-fetch-site": "same-origin"}
    ) as client:
        cookie = (await log_in(client, OPERATOR)).headers["set-cookie"]

    assert cookie.startswith("__Host-tidegate-session=")
    assert "Secure" in cookie


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({}, "stale-form"),
        ({"x-csrf-token": "of-an-earlier-session"}, "stale-form"),
        ({"x-csrf-token": "{csrf}", "origin": "http://evil.example"}, "cross-site"),
        ({"x-csrf-token": "{csrf}", "origin": "null"}, "cross-site"),
        ({"x-csrf-token": "{csrf}", "sec-fetch-site": "cross-site"}, "cross-site"),
        ({"x-csrf-token": "{csrf}", "sec-fetch-site": "same-site"}, "cross-site"),
    ],
)
async def test_stale_and_foreign_forms_change_nothing(
    gateway: Any, headers: dict[str, str], kind: str
) -> None:
    """A page of another session or site, with the browser's cookie, is refused and recorded."""
    async with browser(gateway) as client:
        csrf = (await log_in(client, OPERATOR)).json()["csrf"]
        sent = {name: value.format(csrf=csrf) for name, value in headers.items()}

        refused = await client.put(FEATURE, json={"state": "off"}, headers=sent)

    assert (refused.status_code, refused.json()["type"]) == (403, f"urn:tidegate:{kind}")
    assert (await gateway.admin("GET", FEATURE)).json()["on"]
    assert (await gateway.admin("GET", "/api/audit")).json()["refused"][0]["detail"] == refused.json()[
        "detail"
    ]


async def test_another_sites_page_logs_nobody_in(gateway: Any) -> None:
    """Login forgery: even with a right token."""
    async with browser(gateway, origin="http://evil.example") as client:
        refused = await log_in(client, OPERATOR)

    assert (refused.status_code, "set-cookie" in refused.headers) == (403, False)


def test_a_session_ends_and_there_are_only_so_many() -> None:
    """`admin.session` bounds one, the oldest makes room for the newest, and logging out ends it at once."""
    clock = Clock(0.0)
    settings = Admin(session=60)
    door = Door(lambda: settings, {"TIDEGATE_ADMIN_TOKEN": OPERATOR}, clock)

    cookie, session = door.log_in(request(), OPERATOR)
    assert door.enter(request(cookie)).session is session
    clock.now += 59.9
    assert door.enter(request(cookie)).role == "operator"
    clock.now += 0.1
    with pytest.raises(Unauthorized):
        door.enter(request(cookie))

    first, *_, last = [door.log_in(request(), OPERATOR) for _ in range(MOST_SESSIONS + 1)]
    assert door.session(request(first[0])) is None
    assert door.session(request(last[0])) is last[1]
    principal = door.enter(request(last[0]))
    door.log_out(last[1])
    assert door.session(request(last[0])) is None
    assert not door.still(principal)


# ---- guessing ----------------------------------------------------------------------------------


async def test_who_guesses_is_stopped(gateway: Any) -> None:
    """After so many wrong tokens the address waits; who is logged in goes on."""
    async with browser(gateway) as client:
        await log_in(client, VIEWER)
        codes = [
            (await client.get("/api/status", headers={"authorization": f"Bearer wrong-{n}"})).status_code
            for n in range(int(BURST) + 20)
        ]
        first = codes.index(429)
        assert first >= BURST
        assert codes[:first] == [401] * first
        assert (await client.get("/api/status")).status_code == 200


def test_a_guesser_waits_with_a_right_token_too() -> None:
    """Else one that succeeds could be told from one that is not looked at; a second gives one more."""
    clock = Clock(0.0)
    door = Door(Admin, {"TIDEGATE_ADMIN_TOKEN": OPERATOR}, monotonic=clock)
    for _ in range(int(BURST)):
        with pytest.raises(Unauthorized):
            door.enter(request(token="wrong"))

    with pytest.raises(TooManyLogins) as refused:
        door.enter(request(token=OPERATOR))

    assert refused.value.retry_after == 1
    clock.now += 1
    assert door.enter(request(token=OPERATOR)).role == "operator"


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.floats(0, 5)), max_size=200))
def test_no_address_gets_more_guesses_than_its_bucket_holds(tries: list[tuple[str, float]]) -> None:
    """At any pace: guesses looked at never exceed the burst and one a second; one address costs no other."""
    clock = Clock(0.0)
    guesses = Guesses(clock)
    looked: dict[str, int] = {"a": 0, "b": 0}
    for address, pause in tries:
        clock.now += pause
        if guesses.wait(address) == 0:
            guesses.wrong(address)
            looked[address] += 1
        assert looked[address] <= BURST + clock.now + 1e-6


def test_many_addresses_cost_bounded_memory() -> None:
    """A botnet grows nothing; one client's whole IPv6 network is one address."""
    clock = Clock(0.0)
    guesses = Guesses(clock)
    for number in range(MOST_ADDRESSES + 100):
        guesses.wrong(f"10.0.{number >> 8}.{number & 255}")
    assert len(guesses) == MOST_ADDRESSES
    for number in range(int(BURST)):
        guesses.wrong(f"2001:db8::{number:x}")
    assert guesses.wait("2001:db8::ffff") > 0
    assert guesses.wait("2001:db8:0:1::1") == 0


def test_who_guessed_last_is_forgotten_last() -> None:
    """A crowd of addresses frees first those whom nothing was heard of for longest."""
    clock = Clock(0.0)
    guesses = Guesses(clock)
    for address in ("10.9.0.1", "10.9.0.2"):
        for _ in range(int(BURST)):
            guesses.wrong(address)
    for number in range(MOST_ADDRESSES - 2):
        guesses.wrong(f"10.0.{number >> 8}.{number & 255}")
    guesses.wrong("10.9.0.1")
    guesses.wrong("10.8.0.1")
    assert guesses.wait("10.9.0.1") > 0
    assert guesses.wait("10.9.0.2") == 0


async def test_a_trusted_proxy_speaks_for_its_clients(start_gateway: Any) -> None:
    """Each client behind it has an address of its own; from anyone else the field is worth nothing."""
    for trusted, told in ((["127.0.0.0/8"], "203.0.113.9"), ([], "127.0.0.1")):
        gateway = await start_gateway(admin={"port": 0, "trusted_proxies": trusted})
        sent = {"x-forwarded-for": "203.0.113.9", "authorization": "Bearer a-token-for-tests"}
        async with httpx.AsyncClient(base_url=gateway.admin_url, headers=sent) as client:
            done = await client.put(FEATURE, json={"state": "off"})
        assert done.json()["pin"]["by"] == f"operator at {told}"


async def test_every_kind_of_bad_input_is_recorded(gateway: Any) -> None:
    """What was tried, by whom as far as known, from where, and what was answered."""
    bad = [
        ("PUT", FEATURE, {"state": "off"}, None, 401),  # no token
        ("GET", "/api/status", None, "wrong", 401),
        ("PUT", "/api/features/nothing", {"state": "off"}, OPERATOR, 404),
        ("PUT", FEATURE, {"state": "maybe"}, OPERATOR, 422),
        ("PUT", FEATURE, b" " * 20_000, OPERATOR, 413),
        ("PUT", FEATURE, {"state": "off"}, VIEWER, 403),
        ("DELETE", "/api/step", None, OPERATOR, 405),
        ("DELETE", "/api/step", None, "wrong", 405),
        ("POST", "/api/nothing", None, OPERATOR, 404),
        ("POST", "/api/session", {"token": "wrong"}, None, 401),
    ]
    for method, path, body, token, status in bad:
        assert (await gateway.admin(method, path, body, token=token)).status_code == status, path

    trail = (await gateway.admin("GET", "/api/audit")).json()

    assert trail["changes"] == []
    assert [(one["name"], one["status"]) for one in reversed(trail["refused"])] == [
        (f"{method} {path}", status) for method, path, _, _, status in bad
    ]
    whose = {None: ("somebody", ""), "wrong": ("somebody", "")}
    whose |= {OPERATOR: ("otto", "operator"), VIEWER: ("vera", "viewer")}
    assert [(one["by"], one["role"]) for one in reversed(trail["refused"])] == [
        (f"{whose[token][0]} at 127.0.0.1", whose[token][1]) for _, _, _, token, _ in bad
    ]
    assert (
        await gateway.admin("GET", "/api/audit", token=None)
    ).status_code == 401  # a look is nobody's concern
    assert len((await gateway.admin("GET", "/api/audit")).json()["refused"]) == len(bad)
