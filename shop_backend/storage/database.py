"""Connection pools to PostgreSQL: the primary decides, the replica answers what may be a moment old."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests

from shop_backend.config import DatabaseSettings
from shop_backend.errors import SetupError, Unavailable

_log = logging.getLogger(__name__)

CARDS_LOCK = 7203001  # advisory: shared by whoever moves cards, alone for loading the stock

Connection = AsyncConnection[DictRow]
Pool = AsyncConnectionPool[Connection]


class Database:
    """Pools to the primary and, when there is one, to the replica.

    A broken connection is noticed when it is borrowed and replaced, so that a restart of
    PostgreSQL costs waiting callers some time and nothing else.
    """

    def __init__(self, url: str, settings: DatabaseSettings, *, replica_url: str | None = None) -> None:
        self._settings = settings
        self._url = url
        self._primary = self._pool(url, "primary")
        self._replica = self._pool(replica_url, "replica") if replica_url else None

    def _pool(self, url: str, name: str) -> Pool:
        s = self._settings
        options = (
            f"-c statement_timeout={int(s.statement_timeout * 1000)}"
            f" -c lock_timeout={int(s.lock_timeout * 1000)}"
            f" -c idle_in_transaction_session_timeout={int(s.statement_timeout * 2000)}"
        )
        return AsyncConnectionPool(
            url,
            connection_class=AsyncConnection[DictRow],
            kwargs={"row_factory": dict_row, "options": options, "application_name": "tidegate-shop"},
            min_size=min(s.min_size, s.max_size),
            max_size=s.max_size,
            timeout=s.acquire_timeout,
            max_waiting=s.max_size * 50,  # a longer queue only makes everybody late
            reconnect_timeout=5.0,
            check=AsyncConnectionPool.check_connection,
            name=name,
            open=False,
        )

    async def open(self) -> None:
        """Connect, waiting for the server for up to `startup_timeout` seconds.

        Raises:
            SetupError: it did not answer in time.
        """
        deadline = time.monotonic() + self._settings.startup_timeout
        while True:
            try:
                # Once outside the pool: the pool says only that it timed out, not why.
                probe = await psycopg.AsyncConnection.connect(self._url, connect_timeout=5)
                await probe.close()
                break
            except psycopg.OperationalError as error:
                reason = str(error).strip().splitlines()[0] if str(error).strip() else "no answer"
                if time.monotonic() > deadline:
                    raise SetupError(
                        f"PostgreSQL does not answer ({reason}); check TIDEGATE_DATABASE_URL"
                    ) from error
                _log.info("waiting for PostgreSQL: %s", reason)
                await asyncio.sleep(0.5)
        await self._primary.open()
        if self._replica:
            await self._replica.open()

    async def close(self) -> None:
        """Give every connection back."""
        await self._primary.close()
        if self._replica:
            await self._replica.close()

    @contextlib.asynccontextmanager
    async def primary(self) -> AsyncIterator[Connection]:
        """A connection in a transaction: committed at the end, rolled back on an error.

        Raises:
            Unavailable: no connection came free in time.
        """
        async with self._borrow(self._primary) as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[Connection]:
        """A connection for reading what may be a moment old; nothing about stock or a buyer's own writes.

        Raises:
            Unavailable: no connection came free in time.
        """
        async with self._borrow(self._replica or self._primary) as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def _borrow(self, pool: Pool) -> AsyncIterator[Connection]:
        try:
            connection = await pool.getconn()
        except (PoolTimeout, TooManyRequests) as error:
            raise Unavailable("the database is busy; try again", retry_after=2) from error
        try:
            async with connection.transaction():
                yield connection
        finally:
            # Shielded: a cancelled caller must not leave its connection outside the pool.
            await asyncio.shield(pool.putconn(connection))

    def usage(self) -> dict[tuple[str, str], int]:
        """Connections and waiting callers by (role, state)."""
        found: dict[tuple[str, str], int] = {}
        for role, pool in (("primary", self._primary), ("replica", self._replica)):
            if pool is not None:
                stats: dict[str, Any] = pool.get_stats()
                idle = stats.get("pool_available", 0)
                found[role, "idle"] = idle
                found[role, "used"] = stats.get("pool_size", 0) - idle
                found[role, "waiting"] = stats.get("requests_waiting", 0)
        return found

    def ceilings(self) -> dict[str, int]:
        """How many connections each role's pool may grow to."""
        pools = (("primary", self._primary), ("replica", self._replica))
        return {role: pool.max_size for role, pool in pools if pool is not None}


async def share_cards(connection: Connection) -> None:
    """Until this transaction ends, nobody loads the stock into Redis."""
    await connection.execute("SELECT pg_advisory_xact_lock_shared(%s)", (CARDS_LOCK,))


async def own_cards(connection: Connection) -> None:
    """Until this transaction ends, nobody moves cards; waits for those who do."""
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (CARDS_LOCK,))


def is_outage(error: BaseException) -> bool:
    """Whether an error says that the database is away or crowded, not that the work was wrong."""
    return isinstance(
        error,
        Unavailable | psycopg.OperationalError | psycopg.InterfaceError | PoolTimeout | TooManyRequests,
    )
