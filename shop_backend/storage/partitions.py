"""The partitions of `orders` and `order_events`: each bounded in rows, made before they are needed.

An order's id begins with the number of its partition (stock/order_ids.py), counted up in Redis by the script
that takes the order. So rows are bounded by construction, and a look-up by id reads one partition.
"""

from __future__ import annotations

from psycopg import errors, sql

from shop_backend.sections import DatabaseSettings
from shop_backend.storage.database import Connection, Database, own_cards

TABLES = {"orders": "id", "order_events": "order_id"}  # and the column that holds an order's id
EVENTS_AT_MOST = 5  # rows of order_events for one order: the longest path of states (history.STEPS)
_BEFORE = 65_536  # ids with this number or a higher one are of orders_before (migration 0004)
_LOCK = 7203004  # advisory: partitions are made by one at a time


def orders_in_each(settings: DatabaseSettings) -> int:
    """Orders in one partition, so that no table has more than `partition_rows` rows."""
    return max(1, settings.partition_rows // EVENTS_AT_MOST)


def lowest_id(number: int) -> str:
    """Where a partition begins: below every order id in it, above all of the one before."""
    return f"{number:08x}-0000-0000-0000-000000000000"


class Partitions:
    """Makes what is missing; remembers what is there, so that asking again costs nothing."""

    def __init__(self, database: Database, settings: DatabaseSettings) -> None:
        self._database = database
        self._ahead = settings.partitions_ahead
        self._made = -1  # the highest number known to be there, with all below it

    async def ensure(self, number: int) -> int:
        """Make every partition up to `number`, and those ahead of it.

        Returns:
            How many were made.

        Raises:
            Unavailable: the database gave no connection.
            psycopg.Error: it refused; after a lock timeout, call again.
        """
        if number <= self._made - self._ahead:
            return 0
        made = 0
        for each in range(max(0, await self._highest() + 1), number + self._ahead + 1):
            async with self._database.primary() as connection:
                made += await _make(connection, each)
            self._made = each
        self._made = max(self._made, number + self._ahead)
        return made

    async def cover(self, number: int) -> None:
        """Make sure that a row of partition `number` can be written; free when it is known to be there."""
        if self._made < number < _BEFORE:
            await self.ensure(number)

    async def _highest(self) -> int:
        """The highest number there is; -1 for none."""
        async with self._database.primary() as connection:
            cursor = await connection.execute(
                "SELECT max(substring(c.relname FROM '_p([0-9]+)$')::int) AS number FROM pg_inherits i"
                " JOIN pg_class c ON c.oid = i.inhrelid"
                " WHERE i.inhparent = 'order_events'::regclass AND c.relname ~ '^order_events_p[0-9]+$'"
            )
            row = await cursor.fetchone()
        return -1 if row is None or row["number"] is None else int(row["number"])


async def _make(connection: Connection, number: int) -> int:
    """One partition of every table, in the caller's transaction; 0 when another process was quicker.

    The table is made first and attached then: unlike CREATE TABLE ... PARTITION OF, that lets readers and
    writers of the parent go on.
    """
    # Attaching locks every table that refers to orders, one after the other: beside transactions that hold
    # some of these and want others that is a deadlock. They have to end first, and new ones wait.
    await own_cards(connection)
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    made = 0
    for table in TABLES:
        name = f"{table}_p{number:05d}"
        cursor = await connection.execute("SELECT to_regclass(%s) AS there", (name,))
        row = await cursor.fetchone()
        if row is not None and row["there"] is not None:
            continue
        try:
            await connection.execute(
                sql.SQL("CREATE TABLE {} (LIKE {} INCLUDING ALL)").format(
                    sql.Identifier(name), sql.Identifier(table)
                )
            )
            await connection.execute(
                sql.SQL("ALTER TABLE {} ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
                    sql.Identifier(table), sql.Identifier(name), lowest_id(number), lowest_id(number + 1)
                )
            )
        except errors.InvalidObjectDefinition as error:
            raise RuntimeError(f"partition {number} of {table} overlaps orders_before: {error}") from error
        made = 1
    return made
