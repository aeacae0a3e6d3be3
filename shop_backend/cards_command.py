"""The operator's commands on card keys and stock: import, disable, enable, export, rotate, log; warm."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import getpass
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import psycopg

from shop_backend.config import Settings
from shop_backend.errors import SetupError

if TYPE_CHECKING:
    from shop_backend.card_desk import CardDesk, Outcome
    from shop_backend.stock.ledger import StockLedger
    from shop_backend.storage.bounded_redis import BoundedRedis
    from shop_backend.storage.database import Database

Run = Callable[[Settings, argparse.Namespace], int]
_T = TypeVar("_T")
_SHOWN = 20  # card ids named in a complaint
_MOST = 2**31 - 1


def add_to(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Give the program these commands."""
    add = _command(commands, "import-cards", _import, "add card keys: CSV with the columns sku,secret")
    add.add_argument("file", type=Path)
    off = _command(commands, "disable-cards", _disable, "take card keys off sale")
    off.add_argument("sku", nargs="?", help="so many of this product, oldest first")
    off.add_argument("count", nargs="?", type=_count)
    off.add_argument("--id", type=int, nargs="+", default=[], metavar="NUMBER", help="these cards")
    off.add_argument("--file", type=Path, help="those that a CSV with the columns sku,secret names")
    on = _command(commands, "enable-cards", _enable, "put disabled card keys back on sale")
    on.add_argument("sku")
    on.add_argument("count", type=_count)
    out = _command(commands, "export-cards", _export, "write a product's cards to a CSV file")
    out.add_argument("sku")
    out.add_argument("file", type=Path, help="must not be there yet; only its owner may read it")
    out.add_argument("--state", choices=["available", "held", "delivered", "disabled"], default="disabled")
    out.add_argument("--with-keys", action="store_true", help="with the card keys in clear")
    turn = _command(commands, "rotate-cards", _rotate, "seal every card key with one of our keys")
    turn.add_argument("--to", metavar="KID", help="its id in TIDEGATE_CARD_KEY; the first when left out")
    log = commands.add_parser("card-log", help="what was done to card keys, by whom, and why")
    log.add_argument("--newest", type=_count, default=50)
    log.set_defaults(run=_log)
    warm = commands.add_parser("warm", help="count the stock and fill the shared cache before a sale")
    warm.set_defaults(run=_warm)


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, run: Run, summary: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=summary)
    parser.add_argument("--by", help="who does it; else the account's name")
    parser.add_argument("--reason", default="", help="why; kept with the rest")
    parser.set_defaults(run=run)
    return parser


def _count(text: str) -> int:
    if text == "all":
        return _MOST
    if not (text.isascii() and text.isdigit() and 0 < int(text[:11]) <= _MOST):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number above 0 nor `all`")
    return int(text)


def _actor(arguments: argparse.Namespace) -> str:
    if arguments.by:
        return str(arguments.by)
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return f"account {os.getuid()}"


# ---- the commands ----------------------------------------------------------------------------


def _import(settings: Settings, arguments: argparse.Namespace) -> int:
    from shop_backend.cards import import_cards
    from shop_backend.vault import Vault

    vault = Vault(settings.require("card_key"))
    with psycopg.connect(settings.require("database_url")) as connection:
        summary = import_cards(
            arguments.file, connection, vault, actor=_actor(arguments), reason=arguments.reason
        )
    _say(str(summary))
    return restocked(settings)


def _disable(settings: Settings, arguments: argparse.Namespace) -> int:
    from shop_backend.card_desk import Actor
    from shop_backend.cards import keys_in
    from shop_backend.vault import Vault

    by_count = arguments.sku is not None and arguments.count is not None
    if by_count + bool(arguments.id) + (arguments.file is not None) != 1 or (arguments.sku and not by_count):
        raise SetupError("say either a product and how many (or `all`), or --id, or --file")
    actor = Actor(_actor(arguments), arguments.reason)
    cards, unknown = list(arguments.id), 0
    if arguments.file is not None:
        with psycopg.connect(settings.require("database_url")) as connection:
            cards, unknown = keys_in(arguments.file, connection, Vault(settings.require("card_key")))

    async def work(desk: CardDesk) -> Outcome:
        if by_count:
            return await desk.disable_some(arguments.sku, arguments.count, actor)
        outcome = await desk.disable(cards, actor)
        outcome.left += unknown
        return outcome

    outcome = asyncio.run(_at_desk(settings, work))
    if arguments.count == _MOST:
        outcome.left = 0
    _say(f"disabled {outcome}")
    return 1 if outcome.left else 0


def _enable(settings: Settings, arguments: argparse.Namespace) -> int:
    from shop_backend.card_desk import Actor

    actor = Actor(_actor(arguments), arguments.reason)
    outcome = asyncio.run(_at_desk(settings, lambda desk: desk.enable(arguments.sku, arguments.count, actor)))
    if arguments.count == _MOST:
        outcome.left = 0
    _say(f"enabled {outcome}")
    return 1 if outcome.left else 0


def _export(settings: Settings, arguments: argparse.Namespace) -> int:
    from shop_backend.card_desk import Actor, export
    from shop_backend.vault import Vault

    if arguments.with_keys and not arguments.reason:
        raise SetupError("say why with --reason: keys in clear leave the shop")
    vault = Vault(settings.require("card_key")) if arguments.with_keys else None
    with psycopg.connect(settings.require("database_url")) as connection:
        written = export(
            connection,
            vault,
            arguments.sku,
            arguments.state,
            arguments.file,
            Actor(_actor(arguments), arguments.reason),
        )
    _say(f"{written} {arguments.state} cards of {arguments.sku} written to {arguments.file}")
    return 0


def _rotate(settings: Settings, arguments: argparse.Namespace) -> int:
    from shop_backend.card_desk import Actor, rotate
    from shop_backend.vault import Vault

    vault = Vault(settings.require("card_key"), seal_with=arguments.to)
    with psycopg.connect(settings.require("database_url"), autocommit=True) as connection:
        done, broken = rotate(connection, vault, Actor(_actor(arguments), arguments.reason))
    _say(f"{done} cards sealed with {vault.current}")
    if broken:
        shown = ", ".join(map(str, broken[:_SHOWN])) + (", ..." if len(broken) > _SHOWN else "")
        _say(f"{len(broken)} can't be opened with any key there is, and stay as they are: {shown}")
    return 1 if broken else 0


def _log(settings: Settings, arguments: argparse.Namespace) -> int:
    from shop_backend.card_desk import changes

    with psycopg.connect(settings.require("database_url")) as connection:
        for at, action, sku, cards, actor, reason in changes(connection, arguments.newest):
            why = f": {reason}" if reason else ""
            _say(f"{at:%Y-%m-%d %H:%M:%S}  {action} {cards} of {sku or 'all products'} by {actor}{why}")
    return 0


def _warm(settings: Settings, _: argparse.Namespace) -> int:
    return asyncio.run(_warmed(settings))


async def _warmed(settings: Settings) -> int:
    from shop_backend.parts import connect
    from shop_backend.restock import restock

    async with connect(settings) as parts:
        await restock(parts.database, parts.redis_durable, parts.stock, settings.stock)
        catalog = parts.catalog(settings.catalog)
        await catalog.watch()  # what Redis has is the newest
        free = await parts.stock.free([product.sku for product in await catalog.shelf()])
        for product in await catalog.shelf():
            window = [
                f"{word} {moment:%Y-%m-%d %H:%M %Z}"
                for word, moment in (("from", product.sale_starts_at), ("to", product.sale_ends_at))
                if moment
            ]
            on_sale = " ".join(["on sale", *(window or ["always"])])
            _say(f"{product.sku}: {free.get(product.sku) or 0} in stock, {on_sale}")
    return 0


# ---- what they stand on ----------------------------------------------------------------------


def restocked(settings: Settings) -> int:
    """New cards are sold once Redis knows them; a worker would see to it, too, at its next start."""
    if settings.stock_redis_url is None:
        _say("TIDEGATE_STOCK_REDIS_URL is not set: a worker will load the stock when it starts")
        return 0

    async def nothing(_: CardDesk) -> None:
        """Counting is all."""

    asyncio.run(_at_desk(settings, nothing))
    return 0


async def _at_desk(settings: Settings, work: Callable[[CardDesk], Awaitable[_T]]) -> _T:
    """Some work on cards, then Redis and SQL agree again."""
    from shop_backend.card_desk import CardDesk
    from shop_backend.restock import restock

    async with _stores(settings) as (database, redis, stock):
        try:
            return await work(CardDesk(database, stock))
        finally:
            await restock(database, redis, stock, settings.stock)


@contextlib.asynccontextmanager
async def _stores(settings: Settings) -> AsyncIterator[tuple[Database, BoundedRedis, StockLedger]]:
    from shop_backend.parts import redis_client
    from shop_backend.restock import current_epoch
    from shop_backend.stock.ledger import StockLedger
    from shop_backend.storage.database import Database

    database = Database(settings.require("database_url"), settings.database)
    redis = redis_client(
        settings.require("stock_redis_url"), timeout=settings.stock.timeout, cluster=settings.stock.cluster
    )
    await database.open()
    try:
        yield database, redis, StockLedger(redis, settings.stock, epoch=await current_epoch(database))
    finally:
        await redis.aclose()
        await database.close()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
