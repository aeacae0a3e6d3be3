"""`tidegate cards` and `tidegate warm` on a running stack, which has a Redis of its own for sessions."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import redis

from ops import card_keys
from ops.errors import OpsError


@pytest.fixture(scope="module")
def own_stack(start_stack: Callable[..., Any], short_tmp: Path) -> Any:
    """A stack of this file's own: its cards and keys are changed."""
    return start_stack("--session-redis", data=short_tmp / "cards-stack")


def _stores(stack: Any) -> dict[str, str]:
    stores: dict[str, str] = json.loads((stack.data_dir / "stack.json").read_text())["stores"]
    return stores


def _sealed_with(stack: Any) -> set[str]:
    with psycopg.connect(_stores(stack)["TIDEGATE_DATABASE_URL"]) as connection:
        return {str(kid) for (kid,) in connection.execute("SELECT DISTINCT key_id FROM cards").fetchall()}


def test_cards_go_off_sale_and_out_and_it_is_told(own_stack: Any, tmp_path: Path) -> None:
    """Disabled by ops, exported with a reason only, all of it with who and why; the audit stays clean."""
    off = own_stack.tidegate("cards", "disable", "steam-20", "3", "--by", "ann", "--reason", "burnt")
    wrong = own_stack.tidegate("cards", "disable", "steam-20")
    plain = own_stack.tidegate("cards", "export", "steam-20", str(tmp_path / "a.csv"))
    target = str(tmp_path / "b.csv")
    no_reason = own_stack.tidegate("cards", "export", "steam-20", target, "--with-keys")
    keys = own_stack.tidegate("cards", "export", "steam-20", target, "--with-keys", "--reason", "lawyer")
    told = own_stack.tidegate("cards", "log").stdout

    assert (off.returncode, off.stdout) == (0, "disabled 3 of steam-20\n"), off.stderr
    assert (wrong.returncode, no_reason.returncode) == (1, 1)
    assert "say why with --reason" in no_reason.stderr
    assert (plain.returncode, keys.returncode) == (0, 0), plain.stderr + keys.stderr
    rows = list(csv.DictReader((tmp_path / "b.csv").open()))
    assert len(rows) == 3
    assert all(row["secret"] for row in rows)
    assert not any(row["secret"] in (tmp_path / "a.csv").read_text() for row in rows)
    assert "disable 3 of steam-20 by ann: burnt" in told
    assert "lawyer (disabled, with keys)" in told
    assert own_stack.tidegate("cards", "enable", "steam-20", "all").stdout == "enabled 3 of steam-20\n"
    audit = own_stack.tidegate("audit")
    assert audit.returncode == 0, audit.stdout


def test_a_new_key_seals_once_everybody_has_read_it(own_stack: Any) -> None:
    """The stack runs since before: refused, nothing sealed. It learns the key when it is restarted."""
    before = card_keys.newest(own_stack.data_dir)

    made = own_stack.tidegate("cards", "new-key")
    early = own_stack.tidegate("cards", "rotate")

    assert made.returncode == 0, made.stderr
    assert card_keys.newest(own_stack.data_dir) == "k2"
    assert early.returncode == 1
    assert "runs since before the newest key was made" in early.stderr
    assert _sealed_with(own_stack) == {"k1"}
    assert before == "k1"


def test_every_card_gets_the_new_key(own_stack: Any) -> None:
    """As after a restart: all sealed anew, and the file says which key seals from now on."""
    if card_keys.newest(own_stack.data_dir) == "k1":
        card_keys.add(own_stack.data_dir)
    file = card_keys.place(own_stack.data_dir)
    os.utime(file, (0, 0))  # older than every process that runs

    done = own_stack.tidegate("cards", "rotate", "--by", "ann")

    assert done.returncode == 0, done.stderr
    assert "cards sealed with k2" in done.stdout
    assert _sealed_with(own_stack) == {"k2"}
    assert [part.partition(":")[0] for part in file.read_text().strip().split(",")] == ["k2", "k1"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_before_a_sale_everything_is_warm(own_stack: Any) -> None:
    """The stock is counted, the shared cache is full, every page was asked for."""
    answer = own_stack.tidegate("warm")

    assert answer.returncode == 0, answer.stderr + answer.stdout
    assert re.search(r"^steam-50: \d+ in stock, on sale from .* UTC to .* UTC$", answer.stdout, re.MULTILINE)
    assert re.search(r"^steam-20: \d+ in stock, on sale always$", answer.stdout, re.MULTILINE)
    assert "products asked for at" in answer.stdout
    assert "failed" not in answer.stdout
    with redis.Redis.from_url(_stores(own_stack)["TIDEGATE_REDIS_URL"], decode_responses=True) as cache:
        assert cache.exists("cache:{catalog}")


def test_sessions_and_carts_are_on_a_redis_of_their_own(own_stack: Any) -> None:
    """`up --session-redis`: a cart is there, and nothing else; caches and limits are elsewhere."""
    with httpx.Client(base_url=own_stack.url) as http:
        http.post("/api/session", json={})
        assert http.put("/api/cart/steam-50", json={"quantity": 1}).status_code == 200
    url, others = (_stores(own_stack)[f"TIDEGATE_{name}_URL"] for name in ("SESSION_REDIS", "REDIS"))

    assert url.partition("?")[0] != others.partition("?")[0]
    with redis.Redis.from_url(url, decode_responses=True) as sessions:
        kinds = {str(name).partition(":")[0] for name in sessions.scan_iter()}
    assert {"session", "cart"} <= kinds <= {"session", "cart", "orders"}  # second copies of orders, too


@pytest.mark.parametrize("words", [("dead-letters", "list"), ("outbox",), ("refunds",)], ids=" ".join)
def test_what_operators_look_after_is_shown(own_stack: Any, words: tuple[str, ...]) -> None:
    """The other commands on what the shop keeps find everything they need in the stack's folder."""
    answer = own_stack.tidegate(*words)

    assert answer.returncode == 0, answer.stderr


def test_a_folder_without_keys_is_told(tmp_path: Path) -> None:
    """Nothing has run there: one line that says so."""
    with pytest.raises(OpsError, match="has a stack run in"):
        card_keys.add(tmp_path)
