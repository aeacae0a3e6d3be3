"""Connection pools to PostgreSQL: the primary decides, the replica answers what may be a moment old."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests

from shop_backend import deadline
from shop_backend.errors import SetupError, Unavailable
from shop_backend.sections import DatabaseSettings

_log = logging.getLogger(__name__)

CARDS_LOCK = 7203001  # advisory: shared by whoever moves cards, alone for loading the stock

_TRUSTED_FOR = 1.0  # seconds after its last use in which a connection is not asked whether it still works
_REPLICA_PATIENCE = 0.5  # seconds of waiting for a connection to the replica; then the primary answers
_REPLICA_AWAY_FOR = 5.0  # seconds in which a replica that is away or far behind is left alone
_LAG_EVERY = 1.0  # seconds between two looks at how far it is behind

Connection = AsyncConnection[DictRow]


class PooledConnection(AsyncConnection[DictRow]):
    """A connection that knows when it was last given back, by the monotonic clock."""

    returned_at = float("-inf")


Pool = AsyncConnectionPool[PooledConnection]


async def _works(connection: PooledConnection) -> None:
    """Asking costs a round trip; one that served a moment ago is believed."""
    if time.monotonic() - connection.returned_at > _TRUSTED_FOR:
        await AsyncConnectionPool.check_connection(connection)


class Database:
    """Pools to the primary and, when there is one, to the replica.

    Whoever borrows a connection for a request has it until the request's deadline: waiting for one ends then,
    and a statement that runs is cancelled. The server's own `statement_timeout` holds for everybody.

    A connection that broke while it was idle is noticed when it is borrowed and replaced, so that a restart
    of PostgreSQL costs waiting callers some time and those in mid-work an error they are told to repeat.
    """

    def __init__(self, url: str, settings: DatabaseSettings, *, replica_url: str | None = None) -> None:
        self._settings = settings
        self._url = url
        self._primary = self._pool(url, "primary")
        self._replica = self._pool(replica_url, "replica") if replica_url else None
        self._replica_away_until = float("-inf")  # monotonic
        self._lag_asked_at = float("-inf")
        self.replica_lag = 0.0  # seconds, as last seen

    def _pool(self, url: str, name: str) -> Pool:
        s = self._settings
        options = (
            f"-c statement_timeout={int(s.statement_timeout * 1000)}"
            f" -c lock_timeout={int(s.lock_timeout * 1000)}"
            f" -c idle_in_transaction_session_timeout={int(s.statement_timeout * 2000)}"
        )
        return AsyncConnectionPool(
            url,
            connection_class=PooledConnection,
            kwargs={
                "row_factory": dict_row,
                "options": options,
                "application_name": "tidegate-shop",
                "autocommit": True,  # transactions are begun where they are meant; a single read needs none
            },
            min_size=min(s.min_size, s.max_size),
            max_size=s.max_size,
            timeout=s.acquire_timeout,
            max_waiting=s.max_size * 50,  # a longer queue only makes everybody late
            max_idle=s.idle_for,
            reconnect_timeout=5.0,
            check=_works,
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
            TooLate: nobody waits for the answer any more.
        """
        async with self._borrow(self._primary) as connection, connection.transaction():
            yield connection

    @contextlib.asynccontextmanager
    async def latest(self) -> AsyncIterator[Connection]:
        """A connection for single statements that must see the last write; each is its own transaction.

        Raises:
            Unavailable, TooLate: as `primary`.
        """
        async with self._borrow(self._primary) as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[Connection]:
        """A connection for reading what may be a moment old; nothing about stock or a buyer's own writes.

        The replica's; the primary's while that is away or more than `max_replica_lag` behind.

        Raises:
            Unavailable, TooLate: as `primary`.
        """
        async with deadline.bounded("database"):
            replica = self._replica
            if replica is not None and time.monotonic() >= self._replica_away_until:
                try:
                    lent = await replica.getconn(_REPLICA_PATIENCE)
                except (PoolTimeout, TooManyRequests):
                    self._leave_replica("gives no connection")
                else:
                    async with self._returned(replica, lent):
                        if await self._is_near(lent):
                            yield lent
                            return
            async with self._lent(self._primary) as connection:
                yield connection

    async def _is_near(self, connection: Connection) -> bool:
        """Whether the replica follows closely enough; looked at now and then."""
        now = time.monotonic()
        if now - self._lag_asked_at >= _LAG_EVERY:
            self._lag_asked_at = now
            cursor = await connection.execute(
                # A replica that has replayed all it received is not behind, however long nothing was written.
                "SELECT CASE WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN 0 ELSE"
                " coalesce(extract(epoch FROM now() - pg_last_xact_replay_timestamp()), 0) END::float8 AS lag"
            )
            row = await cursor.fetchone()
            self.replica_lag = max(0.0, row["lag"]) if row else 0.0
            if self.replica_lag > self._settings.max_replica_lag:
                self._leave_replica(f"is {self.replica_lag:.0f} s behind")
                return False
        return True

    def _leave_replica(self, why: str) -> None:
        self._replica_away_until = time.monotonic() + _REPLICA_AWAY_FOR
        _log.warning("the replica %s; the primary answers for %g s", why, _REPLICA_AWAY_FOR)

    @contextlib.asynccontextmanager
    async def _borrow(self, pool: Pool) -> AsyncIterator[Connection]:
        async with deadline.bounded("database"), self._lent(pool) as connection:
            yield connection

    @contextlib.asynccontextmanager
    async def _lent(self, pool: Pool) -> AsyncIterator[Connection]:
        try:
            connection = await pool.getconn()
        except (PoolTimeout, TooManyRequests) as error:
            raise Unavailable("the database is busy; try again", retry_after=2) from error
        async with self._returned(pool, connection):
            yield connection

    @contextlib.asynccontextmanager
    async def _returned(self, pool: Pool, connection: PooledConnection) -> AsyncIterator[None]:
        try:
            yield
        finally:
            connection.returned_at = time.monotonic()
            # Shielded: a cancelled caller must not leave its connection outside the pool.
            await asyncio.shield(pool.putconn(connection))

    def usage(self) -> dict[tuple[str, str], int]:
        """Connections and waiting callers by (role, state)."""
        found: dict[tuple[str, str], int] = {}
        for role, pool in self._pools():
            stats = pool.get_stats()
            idle = stats.get("pool_available", 0)
            found[role, "idle"] = idle
            found[role, "used"] = stats.get("pool_size", 0) - idle
            found[role, "waiting"] = stats.get("requests_waiting", 0)
        return found

    def ceilings(self) -> dict[str, int]:
        """How many connections each role's pool may grow to."""
        return {role: pool.max_size for role, pool in self._pools()}

    def waits(self) -> dict[str, tuple[int, float, int]]:
        """By role since the start: callers that waited, seconds they waited, callers that got nothing."""
        return {
            role: (
                stats.get("requests_queued", 0),
                stats.get("requests_wait_ms", 0) / 1000,
                stats.get("requests_errors", 0),
            )
            for role, pool in self._pools()
            if (stats := pool.get_stats()) is not None
        }

    def _pools(self) -> list[tuple[str, Pool]]:
        pools = (("primary", self._primary), ("replica", self._replica))
        return [(role, pool) for role, pool in pools if pool is not None]


async def share_cards(connection: Connection) -> None:
    """Until this transaction ends, nobody loads the stock into Redis, or attaches a partition.

    First of all in every transaction that writes to several tables about an order.
    """
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
