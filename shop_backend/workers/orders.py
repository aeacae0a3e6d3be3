"""From intents to orders: rows and held cards for a whole batch in one transaction."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from shop_backend import history
from shop_backend.delivery import CardsBusy, CardsMissing, lock_available
from shop_backend.sections import WorkerSettings
from shop_backend.stock import keys
from shop_backend.stock.ledger import StockLedger
from shop_backend.stock.order_ids import partition_of
from shop_backend.storage.database import Connection, Database, is_outage, own_cards, share_cards
from shop_backend.storage.partitions import Partitions
from shop_backend.workers.carts import Line
from shop_backend.workers.entries import Entry, Hopeless, Parked

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Intent:
    order_id: str
    user: str
    sku: str
    quantity: int
    email: str
    unit_cents: int
    currency: str
    expires_ms: int
    at_ms: int
    round: int
    epoch: int
    language: str
    phone: str
    body: str


class OrderHandler:
    """Writes orders.

    Args:
        partitions: where the rows go.
        provider: the name of who takes the money.
        shard: whose stream is read.
        written: called with what was ordered after it was written.
    """

    def __init__(
        self,
        database: Database,
        stock: StockLedger,
        partitions: Partitions,
        settings: WorkerSettings,
        *,
        provider: str,
        shard: int = 0,
        written: Callable[[Sequence[Line]], None] = lambda _: None,
    ) -> None:
        self.stream = keys.on(shard, keys.ORDERS)
        self._database = database
        self._stock = stock
        self._partitions = partitions
        self._settings = settings
        self._provider = provider
        self._written = written

    async def handle(self, entries: Sequence[Entry]) -> Mapping[str, Exception]:
        """Write the batch at once; when one spoils it, each by itself."""
        failures: dict[str, Exception] = {}
        intents: dict[str, _Intent] = {}
        for entry in entries:
            try:
                intents[entry.id] = _read(entry)
            except (KeyError, ValueError) as error:
                failures[entry.id] = Hopeless(f"malformed intent: {error!r}")
        spoilt = await self._write(list(intents.values()))
        if spoilt is not None:
            for entry_id, intent in intents.items():
                single = spoilt if len(intents) == 1 else await self._write([intent])
                if single is not None:
                    failures[entry_id] = single
        return failures

    def order_of(self, entry: Entry) -> str | None:
        """The intent's order."""
        try:
            return str(uuid.UUID(entry.fields.get("order_id", "")))
        except ValueError:
            return None

    async def give_up(self, connection: Connection, entry: Entry) -> bool:
        """Alone with the cards, so that no other worker can write the order at this moment."""
        await own_cards(connection)
        order_id = self.order_of(entry)
        if order_id is None:
            return True
        cursor = await connection.execute("SELECT 1 FROM orders WHERE id = %s", (order_id,))
        return await cursor.fetchone() is None

    async def gave_up(self, entry: Entry) -> None:
        """Give the hold's stock back."""
        try:
            intent = _read(entry)
        except (KeyError, ValueError):
            return  # the sweeper finds the hold, if there is one
        await self._stock.release(intent.order_id, intent.sku, intent.round, state="released")

    # ---- inside ------------------------------------------------------------------------------

    async def _write(self, intents: list[_Intent]) -> Exception | None:
        if not intents:
            return None
        try:
            for number in {partition_of(intent.order_id) for intent in intents}:
                await self._partitions.cover(number)
            async with self._database.primary() as connection:
                await share_cards(connection)
                new, stale = await self._insert(connection, intents)
                await self._hold(connection, new)
        except CardsBusy as error:
            return Parked(str(error))
        except Exception as error:
            if is_outage(error):
                raise
            return error
        history.count(["pending"] * len(new))
        if new:
            self._written([(intent.user, intent.sku, intent.quantity) for intent in new])
        for intent in stale:
            await self._stock.release(intent.order_id, intent.sku, intent.round, state="expired")
        return None

    async def _insert(
        self, connection: Connection, intents: list[_Intent]
    ) -> tuple[list[_Intent], list[_Intent]]:
        """Rows for those that have none. Returns them, and those whose order is of long ago."""
        ids = [intent.order_id for intent in intents]
        cursor = await connection.execute(
            "SELECT (SELECT epoch FROM stock_epoch) AS epoch,"
            # Its own stream's only: a callback that was given up says nothing against its order.
            # The lock waits for a replay under way, which queues the intent before it commits.
            " array(SELECT order_id::text FROM dead_letters WHERE order_id = ANY(%s::uuid[])"
            " AND stream = %s AND replayed_at IS NULL FOR SHARE) AS dead",
            (ids, self.stream),
        )
        row = await cursor.fetchone()
        epoch, dead = (row["epoch"], set(row["dead"])) if row else (0, set())
        cursor = await connection.execute(
            "SELECT id::text, round FROM orders WHERE id = ANY(%s::uuid[])", (ids,)
        )
        known = {each["id"]: each["round"] for each in await cursor.fetchall()}
        new: dict[str, _Intent] = {}
        stale = []
        for intent in intents:
            if intent.order_id in known:
                # Redis forgot the first hold (stock.remember) and took another for the same order.
                if known[intent.order_id] != intent.round:
                    stale.append(intent)
            elif intent.order_id in dead:
                stale.append(intent)
            elif intent.epoch != epoch:
                # This hold is not in Redis any more: its cards may be promised to someone else.
                raise Hopeless(f"taken under stock epoch {intent.epoch}, now it is {epoch}")
            else:
                new[intent.order_id] = intent
        rows = [
            (
                intent.order_id,
                intent.user,
                intent.sku,
                intent.quantity,
                intent.unit_cents * intent.quantity,
                intent.currency,
                intent.email,
                intent.round,
                self._provider,
                intent.at_ms / 1000,
                intent.expires_ms / 1000,
                intent.at_ms / 1000 + self._settings.poll_after,
                intent.language,
                intent.phone,
                intent.body,
            )
            # In one order for all, so that two who write the same orders don't block each other.
            for intent in sorted(new.values(), key=lambda each: each.order_id)
        ]
        if rows:
            columns = [list(column) for column in zip(*rows, strict=True)]
            await connection.execute(
                "INSERT INTO orders (id, user_id, sku, quantity, amount_cents, currency, email, state,"
                " round, provider, created_at, expires_at, next_poll_at, language, phone, body)"
                " SELECT a, b, c, d, e, f, g, 'pending', h, i, to_timestamp(j), to_timestamp(k),"
                " to_timestamp(l), m, n, o FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::int[],"
                " %s::bigint[], %s::text[], %s::text[], %s::bigint[], %s::text[], %s::float8[], %s::float8[],"
                " %s::float8[], %s::text[], %s::text[], %s::text[])"
                " AS t (a, b, c, d, e, f, g, h, i, j, k, l, m, n, o)",
                columns,
            )
            await connection.execute(
                "INSERT INTO order_events (order_id, from_state, to_state, reason)"
                " SELECT unnest(%s::uuid[]), NULL, 'pending', 'ordered'",
                (columns[0],),
            )
        return list(new.values()), stale

    async def _hold(self, connection: Connection, intents: list[_Intent]) -> None:
        """Cards for every order of the batch."""
        by_sku: dict[str, list[_Intent]] = {}
        for intent in intents:
            by_sku.setdefault(intent.sku, []).append(intent)
        for sku, wanting in sorted(by_sku.items()):
            needed = sum(intent.quantity for intent in wanting)
            try:
                cards = await lock_available(connection, sku, needed)
            except CardsMissing as error:
                raise RuntimeError(f"{needed} cards of {sku} needed, {error}") from error
            owners = [intent.order_id for intent in wanting for _ in range(intent.quantity)]
            cursor = await connection.execute(
                "UPDATE cards SET state = 'held', order_id = t.owner"
                " FROM unnest(%s::bigint[], %s::uuid[]) AS t (card, owner)"
                " WHERE cards.id = t.card AND cards.state = 'available'",
                (cards, owners),
            )
            if cursor.rowcount != needed:
                raise RuntimeError(f"{cursor.rowcount} cards of {sku} held, not {needed}")


def _read(entry: Entry) -> _Intent:
    f = entry.fields
    return _Intent(
        str(uuid.UUID(f["order_id"])),
        f["user"],
        f["sku"],
        int(f["quantity"]),
        f["email"],
        int(f["unit_cents"]),
        f["currency"],
        int(f["expires_ms"]),
        int(f["at_ms"]),
        int(f["round"]),
        int(f["epoch"].partition("/")[0]),
        # Entries queued by a shop of before these were asked for, and letters of then, have none.
        f.get("language", "en"),
        f.get("phone", ""),
        f.get("body", ""),
    )
