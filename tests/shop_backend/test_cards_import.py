"""Importing card keys: each once, sealed for its row, bad lines named and never quoted."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shop_backend.cards import import_cards
from shop_backend.config import Settings
from shop_backend.errors import SetupError
from shop_backend.seed import read_products, seed
from shop_backend.vault import SealError, Vault

KEY_1 = "k1:" + base64.urlsafe_b64encode(b"k" * 32).decode()
KEY_2 = "k2:" + base64.urlsafe_b64encode(b"z" * 32).decode()


def test_the_summary_names_duplicates_and_refused_lines(shop_settings: Settings, tmp_path: Path) -> None:
    """Good lines are added, repeated ones counted, bad ones named by line without their secret."""
    url = shop_settings.require("database_url")
    file = tmp_path / "more.csv"
    file.write_bytes(
        b"sku,secret\r\nplain,NEW-1\r\nplain,NEW-2\r\nplain,NEW-1\r\nplain,CANARY-plain-0001\r\n"
        b"nothing,NEW-3\r\nplain\r\nplain,\r\nplain,\xff\xfe\r\nplain,a\x00b\r\n\r\nplain,NEW 4\r\n"
        b"plain," + b"x" * 501 + b"\r\n"
    )
    with psycopg.connect(url) as connection:
        seed(shop_settings.catalog.directory, connection, Vault(KEY_1))
        summary = import_cards(file, connection, Vault(KEY_1))
        assert summary.added == 3
        assert summary.duplicate == [4, 5]
        assert [line for line, _ in summary.refused] == [6, 7, 8, 9, 10, 13]
        assert "NEW" not in str(summary)
        again = import_cards(file, connection, Vault(KEY_1))
        assert (again.added, len(again.duplicate)) == (0, 5)


def test_seeding_twice_adds_nothing(shop_settings: Settings) -> None:
    """`seed` fills an empty shop and leaves a filled one alone."""
    with psycopg.connect(shop_settings.require("database_url")) as connection:
        first = seed(shop_settings.catalog.directory, connection, Vault(KEY_1))
        assert first is not None
        assert first.added == 161
        assert seed(shop_settings.catalog.directory, connection, Vault(KEY_1)) is None


def test_rotation_keeps_old_cards_readable_and_duplicates_known(
    shop_settings: Settings, tmp_path: Path
) -> None:
    """With a new key in front, old rows open, new rows use it, and an old secret is still a duplicate."""
    file = tmp_path / "more.csv"
    file.write_text("sku,secret\nplain,CANARY-plain-0001\nplain,AFTER\n")
    rotated = Vault(f"{KEY_2},{KEY_1}")
    with psycopg.connect(shop_settings.require("database_url")) as connection:
        seed(shop_settings.catalog.directory, connection, Vault(KEY_1))
        summary = import_cards(file, connection, rotated)
        assert (summary.added, summary.duplicate) == (1, [2])
        rows = connection.execute("SELECT id, key_id, secret FROM cards WHERE sku = 'plain'").fetchall()
        opened = {rotated.open_card(card, kid, bytes(blob)): kid for card, kid, blob in rows}
        assert opened["AFTER"] == "k2"
        assert opened["CANARY-plain-0001"] == "k1"
        # The fingerprint key was sealed anew: the old key may go.
        assert import_cards(file, connection, Vault(KEY_2)).added == 0


def test_a_sealed_key_opens_in_its_own_row_only() -> None:
    """Moved to another row, altered, or with another key, it does not open."""
    vault = Vault(KEY_1)
    kid, sealed = vault.seal_card(7, "SECRET")
    assert vault.open_card(7, kid, sealed) == "SECRET"
    altered = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for card, key_id, blob in ((8, kid, sealed), (7, "k9", sealed), (7, kid, altered), (7, kid, b"")):
        with pytest.raises(SealError):
            vault.open_card(card, key_id, blob)


@pytest.mark.parametrize("spec", ["", "k1", "k1:", "k1:abc", ":" + KEY_1[3:], f"{KEY_1},{KEY_1}", "k:é"])
def test_a_malformed_card_key_is_a_clear_error(spec: str) -> None:
    """The message names the variable and the part, and shows no key."""
    with pytest.raises(SetupError, match="TIDEGATE_CARD_KEY") as raised:
        Vault(spec)
    assert KEY_1[3:] not in str(raised.value)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(content=st.binary(max_size=300))
def test_no_file_breaks_the_import(shop_settings: Settings, tmp_path: Path, content: bytes) -> None:
    """Whatever bytes follow the header, every line is added, a duplicate or refused."""
    file = tmp_path / "fuzz.csv"
    file.write_bytes(b"sku,secret\nplain," + content)
    with psycopg.connect(shop_settings.require("database_url")) as connection:
        summary: Any = import_cards(file, connection, Vault(KEY_1))
    assert summary.added == 0  # there are no products here


def test_a_bad_catalogue_is_refused_line_by_line(tmp_path: Path) -> None:
    """Every mistake of products.csv is named with its line."""
    file = tmp_path / "products.csv"
    file.write_text(
        "sku,name,kind,brand,description,price_cents,list_price_cents,currency,sale_starts_at,sale_ends_at,"
        "per_user_cap,image,featured\nOK!,n,k,b,d,0,1,EUR,,,1,i,true\nok,n,k,b,d,1,1,EUR,soon,,1,i,true\n"
    )
    with pytest.raises(SetupError, match=r":2: sku") as raised:
        read_products(file)
    assert ":3: sale_starts_at" in str(raised.value)


async def test_new_cards_are_for_sale_after_an_import(shop: Any, tmp_path: Path) -> None:
    """Loading the stock adds what was imported, also while orders are open; nothing is counted twice."""
    await shop.order("single")
    await shop.placed("plain", 2)
    file = tmp_path / "more.csv"
    file.write_text("sku,secret\n" + "".join(f"single,MORE-{n}\n" for n in range(4)))
    with psycopg.connect(shop.settings.require("database_url")) as connection:
        import_cards(file, connection, Vault(KEY_1))
    for _ in range(2):
        await shop.keeper.load()
        assert (await shop.snapshot()).free["single"] == 4
        assert (await shop.snapshot()).free["plain"] == 48
    await shop.drain()
    await shop.keeper.load()
    assert (await shop.snapshot()).free["single"] == 4
