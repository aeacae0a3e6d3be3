"""What an edit would change is told before it is made, and what it has changed after."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gateway.config import load
from gateway.differences import differences, in_words, passwords, without_password
from gateway.reload import ConfigFile

TOKEN = "a-token-for-tests"
BASE = """
redis: {url: 'redis://:hunter2@127.0.0.1:1/0'}
upstreams: {shop: {servers: ['http://127.0.0.1:9']}}
limits: {user: {rate: 5/second, per: user}}
features: {a: {}}
routes:
  - {match: '/a', upstream: shop, feature: a}
  - {match: '/api/orders', methods: [POST], upstream: shop, limits: [user]}
  - {match: '/**', upstream: shop}
"""


def changed(old: str, new: str) -> list[tuple[str, Any, Any]]:
    before = load(BASE.encode(), "test.yaml", {})
    after = load(BASE.replace(old, new).encode(), "test.yaml", {})
    return [(one["path"], one["before"], one["after"]) for one in differences(before, after)]


def test_each_key_that_differs_is_named() -> None:
    """By its path in the file; items of a list by what they are, so an inserted one is one difference."""
    assert changed("x", "y") == []
    assert changed("5/second", "7/second") == [("limits.user.rate", "5/second", "7/second")]
    assert changed("features: {a: {}}", "features: {a: {state: 'off'}}") == [
        ("features.a.state", "auto", "off")
    ]
    assert changed("upstream: shop, limits: [user]", "upstream: shop") == [
        ("routes[/api/orders POST].limits", ["user"], [])
    ]
    inserted = changed("routes:\n", "routes:\n  - {match: '/new', upstream: shop}\n")
    assert [(path, before) for path, before, _ in inserted] == [("routes[/new]", None)]
    swapped = BASE.splitlines()
    swapped[6], swapped[7] = swapped[7], swapped[6]
    ((path, before, after),) = changed(BASE, "\n".join(swapped))
    assert (path, before) == ("routes (order)", ["/a", "/api/orders POST", "/**"])
    assert after == ["/api/orders POST", "/a", "/**"]


def test_differences_tell_no_secret() -> None:
    """A new password is a difference; neither the old nor the new is shown."""
    ((path, before, after),) = changed("hunter2", "hunter3")

    assert (path, before, after) == ("redis.url", "redis://***@127.0.0.1:1/0", "redis://***@127.0.0.1:1/0")
    digest = hashlib.sha256(b"x").hexdigest()
    tokens = f"admin: {{tokens: [{{name: vera, token_sha256: {digest}}}]}}\nfeatures"
    told = in_words(
        differences(*(load(t.encode(), "t", {}) for t in (BASE, BASE.replace("features", tokens))))
    )
    assert "vera" in told
    assert digest not in told


def test_words_say_what_takes_a_restart() -> None:
    """In the log and the trail as in the answer: nobody takes a new port for one that is listened on."""
    before, after = (
        load(f"listen: {{port: {port}, drain: {port}s}}\n{BASE}".encode(), "test.yaml", {})
        for port in (81, 82)
    )

    told = "listen.port: 81 -> 82 (after a restart); listen.drain: 81s -> 82s"
    assert in_words(differences(before, after)) == told


@pytest.mark.parametrize(
    ("text", "told", "secrets"),
    [
        ("redis://:hunter2@10.0.0.1:1/0", "redis://***@10.0.0.1:1/0", {"hunter2"}),
        ("redis://ops:p@ss:word@10.0.0.1/0", "redis://***@10.0.0.1/0", {"p@ss:word"}),
        ("redis://nobody@10.0.0.1", "redis://***@10.0.0.1", set()),
        (
            "redis+sentinel://:one@a:1,b:2/shop?sentinel_username=ops&sentinel_password=two&db=1",
            "redis+sentinel://***@a:1,b:2/shop?sentinel_username=ops&sentinel_password=***&db=1",
            {"one", "two"},
        ),
        ("unix:///run/redis.sock?password=two", "unix:///run/redis.sock?password=***", {"two"}),
        ("rediss://:one@a and redis://:two@b", "rediss://***@a and redis://***@b", {"one", "two"}),
        *[
            (plain, plain, set())
            for plain in (
                "http://10.0.0.1?to=ops@shop.example",
                "http://10.0.0.1#ops@shop.example",
                "http://10.0.0.1/@ops/password=1",
                "http://10.0.0.1 asked ops@shop.example",
                "http://10.0.0.1/?password=",
            )
        ],
    ],
)
def test_a_password_in_a_url_is_found_and_hidden(text: str, told: str, secrets: set[str]) -> None:
    """Wherever a URL has room for one, whatever its characters; a URL without one is told as it is."""
    assert without_password(text) == told
    assert passwords(text) == secrets


async def post(gateway: Any, path: str, text: str = "") -> httpx.Response:
    return await gateway.admin("POST", path, text.encode())


async def test_a_file_is_compared_and_changes_nothing(start_gateway: Any) -> None:
    """Sent or on disk; what takes a restart says so; afterwards all is as before."""
    gateway = await start_gateway()
    held = yaml.safe_load(gateway.config.read_text())
    held["features"]["recommendations"]["state"] = "off"
    held["listen"]["workers"] = 3

    told = (await post(gateway, "/api/config/check", yaml.safe_dump(held))).json()

    assert {one["path"]: (one["before"], one["after"], one["restart"]) for one in told["changes"]} == {
        "features.recommendations.state": ("auto", "off", False),
        "listen.workers": (2, 3, True),
    }
    assert (await post(gateway, "/api/config/check")).json()["changes"] == []
    assert "tidegate-degraded" not in (await gateway.fresh("/recommendations")).headers
    assert (await gateway.admin("GET", "/api/audit")).json()["changes"] == []


async def test_what_stands_in_a_named_file_is_compared(tmp_path: Path) -> None:
    """The file on disk is as it was, one that it names is not: both looks say so, and the second takes it."""
    (tmp_path / "token").write_text("old")
    (tmp_path / "gateway.yaml").write_text(BASE + "admin: {token_file: token}\n")
    file = ConfigFile(tmp_path / "gateway.yaml", {})
    assert await file.compare() == []
    (tmp_path / "token").write_text("new")

    for _ in range(2):
        assert [one["path"] for one in await file.compare()] == ["admin.token_file"]
    edit = await file.read()
    assert [one["path"] for one in edit.found] == ["admin.token_file"]
    file.take(edit, 2)

    assert (await file.compare(), file.version) == ([], 2)


async def test_a_reload_tells_what_it_has_changed(start_gateway: Any, until: Any) -> None:
    """The differences and in how many workers they hold; the trail has both, also of a noticed edit."""
    gateway = await start_gateway()
    gateway.edit(limits={"all": {"rate": "9/second", "per": "global"}})

    async def noticed() -> Any:
        return (await gateway.admin("GET", "/api/audit")).json()["changes"]

    (entry,) = await until(noticed)
    assert (entry["kind"], entry["old"], entry["value"], entry["by"]) == ("config", "1", "2", "file changed")
    assert (entry["applied"], entry["workers"]) == (2, 2)
    assert "limits.all" in entry["detail"]
    again = (await post(gateway, "/api/config/reload")).json()
    assert (again["version"], again["changes"], again["applied"]) == (2, [], 2)

    code, said = await run("reload", TIDEGATE_ADMIN_URL=gateway.admin_url, TIDEGATE_ADMIN_TOKEN=TOKEN)
    holds, since = said.splitlines()
    assert (code, holds.startswith("the file says what holds: configuration 2 ")) == (0, True)
    assert re.fullmatch(rf"since \S+ \S+ \(file changed\): {re.escape(entry['detail'])}", since)


async def test_what_waits_for_a_restart_is_told_until_it_came(start_gateway: Any) -> None:
    """By the status, while the file differs from what was started; not what the command line decides."""
    gateway = await start_gateway("--workers", "2")

    async def after(**edits: Any) -> Any:
        gateway.edit(**edits)
        await post(gateway, "/api/config/reload")
        return (await gateway.admin("GET", "/api/status")).json()["config"]["restart"]

    as_it_was = {"host": "127.0.0.1", "port": 0}
    moved = {**as_it_was, "host": "127.0.0.2", "workers": 3}
    told = {"path": "listen.host", "before": "127.0.0.1", "after": "127.0.0.2", "restart": True}
    assert await after(limits={"all": {"rate": "9/second", "per": "global"}}) == []
    assert await after(listen=moved) == [told]
    assert await after(limits={"all": {"rate": "8/second", "per": "global"}}) == [told]
    await gateway.says("listen.host changed in")
    await gateway.says("listen.workers changed in")
    await gateway.says("; --workers has the say over it")
    assert (await post(gateway, "/api/config/check", gateway.config.read_text())).json()["changes"] == []
    back = gateway.config.read_text().replace("host: 127.0.0.2", "host: 127.0.0.1")
    undone = (await post(gateway, "/api/config/check", back)).json()["changes"]
    assert [(one["path"], one["restart"]) for one in undone] == [("listen.host", False)]
    assert await after(listen=as_it_was) == []


async def test_edits_at_once_are_one(start_gateway: Any) -> None:
    """However many ask for it together, a change is taken, told of and recorded once."""
    gateway = await start_gateway()
    gateway.edit(limits={"all": {"rate": "9/second", "per": "global"}})

    answers = await asyncio.gather(*(post(gateway, "/api/config/reload") for _ in range(8)))

    told = [answer.json() for answer in answers]
    assert {one["version"] for one in told} == {2}
    assert sum(bool(one["changes"]) for one in told) <= 1  # the gateway may have noticed it first
    assert len((await gateway.admin("GET", "/api/audit")).json()["changes"]) == 1


async def test_a_file_with_mistakes_is_told_line_by_line(start_gateway: Any) -> None:
    """422, the line and what was meant; the attempt is recorded."""
    gateway = await start_gateway()
    refused = await post(gateway, "/api/config/check", BASE.replace("limits: [user]", "limits: [usr]"))

    assert refused.status_code == 422
    assert refused.json()["mistakes"] == [
        "sent:8: routes[1].limits[0]: unknown limit 'usr' (did you mean user?)"
    ]
    assert (await post(gateway, "/api/config/check", "x" * (2 << 20))).status_code == 413
    assert [one["status"] for one in (await gateway.admin("GET", "/api/audit")).json()["refused"]] == [
        413,
        422,
    ]


async def test_a_sent_file_reads_no_variable_of_the_gateways(start_gateway: Any) -> None:
    """Only those that the present file asks for, and never a password in one."""
    secrets = {"CARD_KEY": "k1:canary-of-the-shop", "STORE": "redis://:canary-password@127.0.0.1:1/0"}
    gateway = await start_gateway(env=secrets, redis={"url": "${STORE}"})

    for name in ("CARD_KEY", "STORE"):
        for text in (
            BASE.replace("5/second", f"${{{name}}}"),
            BASE.replace("'/a'", f"'${{{name}}}'"),
            BASE.replace("upstream: shop, feature: a", f"upstream: shop, feature: '${{{name}}}'"),
            BASE.replace("http://127.0.0.1:9", f"${{{name}}}"),
        ):
            answer = await post(gateway, "/api/config/check", text)
            assert "canary" not in answer.text
    assert "canary" not in json.dumps((await gateway.admin("GET", "/api/audit")).json())


async def run(*words: str, **variables: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ops.cli", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PATH": "/usr/bin", **variables},
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_the_command_asks_the_running_gateway(start_gateway: Any, tmp_path: Path) -> None:
    """`tidegate check --diff`: the differences, or the mistakes under the file's own name."""
    gateway = await start_gateway()
    where = {"TIDEGATE_ADMIN_URL": gateway.admin_url, "TIDEGATE_ADMIN_TOKEN": TOKEN}
    edited = tmp_path / "edited.yaml"
    held = yaml.safe_load(gateway.config.read_text())
    edited.write_text(yaml.safe_dump(held))
    assert await run("check", str(edited), "--diff", **where) == (
        0,
        "good; it is configuration 1 as it holds\n",
    )
    held["features"]["recommendations"]["state"] = "off"
    edited.write_text(yaml.safe_dump(held))
    code, said = await run("check", str(edited), "--diff", **where)
    assert (code, said.splitlines()) == (
        0,
        ["good; it changes 1 key of configuration 1:", "features.recommendations.state: auto -> off"],
    )

    edited.write_text("upstreams: {}\nroutes: []\n")
    code, said = await run("check", str(edited), "--diff", **where)

    assert code == 1
    assert f"{edited}:1: upstreams: needs at least 1, has 0" in said


@pytest.mark.parametrize("role", ["viewer", "operator"])
async def test_a_made_token_lets_in(start_gateway: Any, role: str) -> None:
    """`tidegate token`: what it prints for the config lets in what it prints for the person."""
    code, said = await run("token", "vera", "--role", role, "--json")
    assert code == 0
    made = json.loads(said)
    token = made.pop("token")
    assert len(token) >= 43  # 256 bits

    gateway = await start_gateway(admin={"port": 0, "tokens": [made]})

    assert (await gateway.admin("GET", "/api/session", token=token)).json() == {
        "name": "vera",
        "role": role,
        "csrf": None,
        "ends": None,
    }
    code, said = await run("token", "vera", "--role", role)
    assert "tokens:" in said
    assert yaml.safe_load(said[said.index("  tokens:") :])["tokens"][0]["role"] == role


async def test_a_bad_edit_is_in_the_trail(start_gateway: Any, until: Any) -> None:
    """Noticed by itself, refused, and recorded with the first mistake; each try once."""
    gateway = await start_gateway()
    gateway.edit(routes=[{"match": "/**", "upstream": "shpo"}])

    async def refused() -> Any:
        return (await gateway.admin("GET", "/api/audit")).json()["refused"]

    (entry,) = await until(refused)
    assert (entry["by"], entry["result"]) == ("file changed", "refused")
    assert "did you mean shop?" in entry["detail"]
    assert (await post(gateway, "/api/config/reload")).status_code == 422
    assert len(await refused()) == 2


async def test_mistakes_tell_no_password(start_gateway: Any, until: Any) -> None:
    """Where it does not belong, in the file or by a variable: neither the log nor any page shows it."""
    store = "redis://:canary-one@canary-end@127.0.0.1:1/0"
    gateway = await start_gateway(env={"STORE": store}, redis={"url": "${STORE}"})
    misplaced = [("/a", "${STORE}"), ("/b", "redis://:canary-two@canary-end@x")]
    gateway.edit(routes=[{"match": match, "upstream": upstream} for match, upstream in misplaced])

    async def told() -> Any:
        return (await gateway.admin("GET", "/api/status")).json()["config"]["mistakes"]

    assert all("***" in line for line in await until(told))
    pages = [(await gateway.admin("GET", path)).text for path in ("/api/status", "/api/config", "/api/audit")]
    for text in (*pages, (await post(gateway, "/api/config/reload")).text, gateway.log()):
        assert "canary" not in text
