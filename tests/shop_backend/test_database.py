"""The pools: bounded, growing and shrinking, nothing lost to callers that vanish; a lagging replica."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ops import embedded
from ops.programs import find_postgres
from ops.spawn import spawn
from shop_backend.config import Settings
from shop_backend.errors import Unavailable
from shop_backend.metrics import PoolCollector
from shop_backend.sections import DatabaseSettings
from shop_backend.storage.database import Database
from tests import unsupervised
from tests.waiting import until

LEAVERS = 5000
DELAY = 5  # seconds the replica is behind


@contextlib.asynccontextmanager
async def opened(url: str, replica_url: str | None = None, **settings: Any) -> AsyncIterator[Database]:
    database = Database(url, DatabaseSettings(**settings), replica_url=replica_url)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


# ---- pools -----------------------------------------------------------------------------------


async def test_the_pool_grows_under_load_and_shrinks_after(migrated_database_url: str) -> None:
    """From one connection to eight while eight work at once, and back to one when they are idle."""
    async with opened(migrated_database_url, min_size=1, max_size=8, idle_for=0.05) as database:
        everybody = asyncio.Barrier(8)
        used: list[int] = []  # as each sees it while all work

        async def work() -> None:
            async with database.primary() as connection:
                await connection.execute("SELECT 1")
                await everybody.wait()
                used.append(database.usage()["primary", "used"])
                await everybody.wait()

        await asyncio.gather(*(work() for _ in range(8)))
        assert used == [8] * 8
        await until(lambda: database.usage()[("primary", "idle")] == 1, "the pool shrank")


async def test_waiting_for_a_connection_is_bounded(migrated_database_url: str) -> None:
    """Who gets none in time is told so; metrics say who waited, and who got nothing."""
    async with opened(migrated_database_url, min_size=1, max_size=1, acquire_timeout=0.1) as database:
        await until(lambda: database.usage()["primary", "idle"] == 1, "the pool has its connection")
        async with database.primary():
            with pytest.raises(Unavailable):
                async with database.latest():
                    pass
        assert database.waits()["primary"][2] == 1
        collected = PoolCollector(database.usage, database.ceilings, database.waits).collect()
        samples = {(s.name, s.labels["role"]): s.value for family in collected for s in family.samples}
        assert samples["shop_db_pool_refused_total", "primary"] == 1
        assert samples["shop_db_pool_waits_total", "primary"] >= 1


async def test_statements_and_locks_end_in_time(migrated_database_url: str) -> None:
    """A statement that takes too long, and a lock that nobody gives, fail by the server's clock."""
    async with opened(migrated_database_url, statement_timeout=2.0, lock_timeout=1.0) as database:
        with pytest.raises(psycopg.errors.QueryCanceled):
            async with database.latest() as connection:
                await connection.execute("SELECT pg_sleep(30)")
        async with database.primary() as one:
            await one.execute("LOCK TABLE products")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                async with database.primary() as other:
                    await other.execute("SELECT * FROM products")


async def test_callers_that_vanish_leave_no_connection_behind(migrated_database_url: str) -> None:
    """Five thousand cancelled at random in mid-transaction: none stays in one, all connections come back."""
    async with opened(migrated_database_url, max_size=8) as database:
        luck = random.Random(6)

        async def work() -> None:
            async with database.primary() as connection:
                await connection.execute("SELECT pg_advisory_xact_lock_shared(1)")
                await connection.execute("UPDATE stock_epoch SET epoch = epoch")
                await connection.execute("SELECT 1")

        async def leave() -> None:
            task = asyncio.ensure_future(work())
            for _ in range(luck.randrange(40)):
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Unavailable):
                await task

        for begin in range(0, LEAVERS, 200):
            await asyncio.gather(*(leave() for _ in range(min(200, LEAVERS - begin))))
        await until(lambda: database.usage()[("primary", "used")] == 0, "every connection is back")
        assert database.usage()[("primary", "waiting")] == 0

        def states() -> list[str]:
            with psycopg.connect(migrated_database_url) as outside:
                found = outside.execute(
                    "SELECT state, count(*) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND application_name = 'tidegate-shop' GROUP BY state"
                ).fetchall()
            return [state for state, _ in found]

        await until(lambda: states() == ["idle"], states)  # the server may not have seen all of it yet
        async with database.primary() as connection:  # and nobody holds a lock
            await connection.execute("SELECT pg_advisory_xact_lock(1)")


# ---- a replica -------------------------------------------------------------------------------


@pytest.fixture
def pair(short_tmp: Path) -> Iterator[tuple[embedded.EmbeddedPostgres, embedded.EmbeddedPostgres]]:
    """A primary, and a replica that streams from it and applies what comes DELAY seconds late."""
    home = short_tmp / "pair"
    home.mkdir()
    home.chmod(0o711)
    primary = embedded.EmbeddedPostgres(home / "primary", home / "a", durable=False)
    replica = embedded.EmbeddedPostgres(home / "replica", home / "b", durable=False)
    log = home / "log"
    for server in (primary, replica):
        server.run.mkdir()
        server.run.chmod(0o711)
    primary.create(log)
    running = []
    try:
        running.append((unsupervised.start(primary.service(), log), primary.service()))
        primary.create_database()
        source = re.sub("/[a-z]+[?]", "/postgres?", primary.url())
        argv = [
            *(str(find_postgres() / "pg_basebackup"), "-D", str(replica.data), "-d", source),
            *("-R", "-X", "stream", "-c", "fast"),
        ]
        for folder in (replica.data, replica.socket_folder):
            embedded._own(folder, replica.account())
        with log.open("ab") as out:
            assert spawn(argv, stdout=out, account=replica.account(), cwd=Path("/")).wait() == 0
        with (replica.data / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"recovery_min_apply_delay = '{DELAY}s'\nhot_standby = on\n")
        running.append((unsupervised.start(replica.service(), log), replica.service()))
        yield primary, replica
    finally:
        for process, service in reversed(running):
            unsupervised.stop(process, service)


async def test_a_buyer_sees_own_order_however_late_the_replica(
    pair: tuple[embedded.EmbeddedPostgres, embedded.EmbeddedPostgres],
    shop_settings: Settings,
    fill_shop: Any,
    start_shop: Any,
) -> None:
    """With a replica five seconds behind, every step of an order is seen at once; the catalogue may lag."""
    from shop_backend.storage.migrate import migrate

    primary, replica = pair
    migrate(primary.url())
    values = {"database_url": primary.url(), "replica_url": replica.url()}
    settings = Settings.model_validate(shop_settings.model_dump() | values)
    fill_shop(settings)

    def followed() -> bool:
        with psycopg.connect(replica.url()) as connection:
            found = connection.execute("SELECT count(*) FROM pg_class WHERE relname = 'cards'").fetchone()
            return found == (1,) and bool(connection.execute("SELECT FROM products").rowcount)

    await until(followed, "the replica has the catalogue")
    async with start_shop(settings) as shop:
        order = (await shop.order()).json()
        assert (await shop.see(order))["status"] == "reserved"
        await shop.drain()
        assert (await shop.see(order))["status"] == "pending"
        await shop.cashier.open_checkouts()
        assert "pay_url" in await shop.see(order)
        await shop.callback(order, await shop.pay(order))
        await shop.drain()
        with psycopg.connect(replica.url()) as late:
            assert late.execute("SELECT count(*) FROM orders").fetchone() == (0,)
        assert (await shop.see(order))["status"] == "delivered"

        async def replica_answers() -> bool:  # the primary does for some seconds, when it was slow to
            async with shop.parts.database.read() as connection:
                row = await (await connection.execute("SELECT pg_is_in_recovery() AS replica")).fetchone()
            return row == {"replica": True}

        await until(replica_answers, "the replica is asked")
        assert shop.parts.database.usage()[("replica", "idle")] >= 1


async def test_without_its_replica_the_primary_answers(migrated_database_url: str) -> None:
    """A replica that is away costs a moment once; then it is left alone for a while."""
    nowhere = "postgresql://tidegate@127.0.0.1:1/tidegate"
    async with opened(migrated_database_url, nowhere) as database:
        for _ in range(3):
            async with database.read() as connection:
                row = await (await connection.execute("SELECT pg_is_in_recovery() AS replica")).fetchone()
            assert row == {"replica": False}
        assert database.waits()["replica"][2] == 1
