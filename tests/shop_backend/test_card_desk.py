"""Cards taken off sale, put back, sealed anew, exported: never one that is promised, always written down."""

from __future__ import annotations

import base64
import csv
import stat
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg
import pytest

from shop_backend.card_desk import Actor, CardDesk, changes, export, rotate
from shop_backend.cards import import_cards, keys_in
from shop_backend.errors import SetupError
from shop_backend.restock import restock
from shop_backend.stock.records import StockClosed
from shop_backend.vault import Vault

KEY_1 = "k1:" + base64.urlsafe_b64encode(b"k" * 32).decode()
KEY_2 = "k2:" + base64.urlsafe_b64encode(b"z" * 32).decode()
ANN = Actor("ann", "burnt by the supplier")


def _desk(shop: Any) -> CardDesk:
    return CardDesk(shop.parts.database, shop.parts.stock)


async def _states(shop: Any, sku: str) -> Counter[str]:
    rows = await shop.rows("SELECT state, count(*)::int AS n FROM cards WHERE sku = %s GROUP BY state", sku)
    return Counter({row["state"]: row["n"] for row in rows})


async def _recounted(shop: Any) -> None:
    await restock(shop.parts.database, shop.parts.redis_durable, shop.parts.stock, shop.settings.stock)


async def test_what_is_promised_stays(shop: Any) -> None:
    """An order that SQL does not know yet keeps its card; the rest goes off sale, and nobody can buy it."""
    order = (await shop.order("plain", 5)).json()

    outcome = await _desk(shop).disable_some("plain", 1000, ANN)

    assert (outcome.changed["plain"], outcome.left) == (45, 955)
    assert (await shop.snapshot()).free["plain"] == 0
    assert (await shop.order("plain")).status_code == 410
    await shop.drain()
    assert (await shop.see(order))["status"] == "pending"
    assert await _states(shop, "plain") == {"held": 5, "disabled": 45}
    await shop.check()
    await _recounted(shop)
    await shop.check()


async def test_these_cards_and_no_others(shop: Any) -> None:
    """By id: available ones go, sold and unknown ones are counted as left."""
    sold = await shop.placed("single")
    (card,) = await shop.rows("SELECT id FROM cards WHERE order_id = %s", sold["order_id"])
    mine = [
        row["id"] for row in await shop.rows("SELECT id FROM cards WHERE sku = 'flash' ORDER BY id LIMIT 3")
    ]

    outcome = await _desk(shop).disable([*mine, card["id"], 10**9], ANN)

    assert (dict(outcome.changed), outcome.left) == ({"flash": 3}, 2)
    gone = await shop.rows("SELECT id FROM cards WHERE state = 'disabled' ORDER BY id")
    assert [row["id"] for row in gone] == mine
    await shop.check()


async def test_back_on_sale(shop: Any) -> None:
    """Enabled cards are sold again once the stock is counted."""
    await _desk(shop).disable_some("single", 1, ANN)
    assert (await shop.order("single")).status_code == 410

    outcome = await _desk(shop).enable("single", 5, ANN)
    await _recounted(shop)

    assert (outcome.changed["single"], outcome.left) == (1, 4)
    assert (await shop.order("single")).status_code == 202
    await shop.drain()
    await shop.check()


async def test_while_the_stock_is_counted_nothing_is_disabled(shop: Any) -> None:
    """Redis lost its data: an error, and every card stays as it was."""
    await shop.parts.redis_durable.flushall()

    with pytest.raises(StockClosed):
        await _desk(shop).disable_some("plain", 3, ANN)

    assert await _states(shop, "plain") == {"available": 50}
    assert await shop.rows("SELECT * FROM card_changes WHERE action = 'disable'") == []


async def test_everything_is_written_down(shop: Any, tmp_path: Path) -> None:
    """Who, what, how many, why: imports too, growing with their batches."""
    more = tmp_path / "more.csv"
    more.write_text("sku,secret\n" + "".join(f"plain,MORE-{n}\n" for n in range(2500)))
    with psycopg.connect(shop.settings.require("database_url")) as connection:
        import_cards(more, connection, Vault(KEY_1), actor="bob", reason="delivery 7")
        await _recounted(shop)
        await _desk(shop).disable_some("plain", 2, ANN)
        connection.rollback()
        told = [change[1:] for change in changes(connection, 2)]
        seeded = connection.execute(
            "SELECT sum(cards) FROM card_changes WHERE actor = 'seed' AND action = 'import'"
        ).fetchone()

    assert told == [
        ("import", "plain", 2500, "bob", "delivery 7"),
        ("disable", "plain", 2, "ann", "burnt by the supplier"),
    ]
    assert seeded == (161,)


async def test_every_card_is_sealed_anew_and_the_old_key_may_go(shop: Any, tmp_path: Path) -> None:
    """While the shop sells, sold cards too; each still opens, duplicates are known; again: nothing to do."""
    order = await shop.placed("plain", 2)
    await shop.callback(order, await shop.pay(order))
    await shop.drain()
    both = Vault(f"{KEY_1},{KEY_2}", seal_with="k2")
    again = tmp_path / "again.csv"
    again.write_text("sku,secret\nplain,CANARY-plain-0001\nplain,NEW\n")
    with psycopg.connect(shop.settings.require("database_url"), autocommit=True) as connection:
        assert rotate(connection, both, ANN) == (161, [])
        assert rotate(connection, both, ANN) == (0, [])
        rows = connection.execute("SELECT id, key_id, secret FROM cards").fetchall()
        only = Vault(KEY_2)
        opened = {only.open_card(card, kid, bytes(secret)) for card, kid, secret in rows}
        assert len(opened) == 161
        assert all(text.startswith("CANARY-") for text in opened)
        assert import_cards(again, connection, only).added == 1
        assert next(change[1:4] for change in changes(connection, 2)) == ("rotate", None, 161)


async def test_a_card_that_can_not_be_opened_is_named_and_left(shop: Any) -> None:
    """Sealed with a key that is gone, or damaged: the others are sealed anew."""
    with psycopg.connect(shop.settings.require("database_url"), autocommit=True) as connection:
        connection.execute("UPDATE cards SET secret = '\\x00' WHERE id = (SELECT min(id) FROM cards)")
        first = connection.execute("SELECT min(id) FROM cards").fetchone()
        done, broken = rotate(connection, Vault(f"{KEY_2},{KEY_1}"), ANN)

    assert (done, broken) == (160, [first and first[0]])


def test_an_unknown_key_seals_nothing() -> None:
    """The id that was meant is not among the keys: said, without showing one."""
    with pytest.raises(SetupError, match="has no key 'k3'; it has k1, k2") as refusal:
        Vault(f"{KEY_1},{KEY_2}", seal_with="k3")
    assert KEY_1[3:] not in str(refusal.value)


async def test_an_export_is_private_and_written_down(shop: Any, tmp_path: Path) -> None:
    """Keys only where asked for; mode 0600; never over a file that is there; noted before a key is opened."""
    await _desk(shop).disable_some("plain", 2, ANN)
    plain, secret = tmp_path / "plain.csv", tmp_path / "secret.csv"
    with psycopg.connect(shop.settings.require("database_url")) as connection:
        assert export(connection, None, "plain", "disabled", plain, ANN) == 2
        assert export(connection, Vault(KEY_1), "plain", "disabled", secret, ANN) == 2
        with pytest.raises(SetupError, match="not there yet"):
            export(connection, Vault(KEY_1), "plain", "disabled", secret, ANN)
        told = [change[1:] for change in changes(connection, 2)]

    assert "CANARY" not in plain.read_text()
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    keys = [row["secret"] for row in csv.DictReader(secret.open())]
    assert keys == ["CANARY-plain-0000", "CANARY-plain-0001"]
    why = "burnt by the supplier (disabled, {} keys)"
    assert told == [("export", "plain", 2, "ann", why.format(word)) for word in ("without", "with")]


async def test_a_supplier_s_list_finds_its_cards(shop: Any, tmp_path: Path) -> None:
    """By their keys, under their product only; lines that name none are counted."""
    listed = tmp_path / "burnt.csv"
    listed.write_text("sku,secret\nplain,CANARY-plain-0003\nflash,CANARY-plain-0004\nplain,nobody's\n,\n")
    with psycopg.connect(shop.settings.require("database_url")) as connection:
        found, unknown = keys_in(listed, connection, Vault(KEY_1))

    assert (len(found), unknown) == (1, 3)
