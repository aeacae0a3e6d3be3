"""What the auditor looks at: one SQL snapshot, the stock in Redis, and the providers' own ledgers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import psycopg
import redis
from psycopg.rows import dict_row

from ops.audit.ledgers import Books
from ops.errors import Unreachable
from ops.stock import tags

GROUP = "shop"
PAGE = 1000  # holds asked for at once
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Hold:
    """A reservation as Redis has it; `state` ∈ held confirmed released expired.

    `due`: whether it stands in the list by which open holds are ended.
    """

    order_id: str
    sku: str
    user: str
    quantity: int
    state: str
    due: bool


@dataclass(frozen=True, slots=True)
class StreamState:
    """One stream: entries in it, delivered but unacknowledged, and not yet delivered (None: unknown)."""

    name: str
    length: int
    pending: int
    lag: int | None


@dataclass(frozen=True, slots=True)
class Stock:
    """The durable Redis at one moment.

    Attributes:
        epoch: the loading of the stock that counts there; None when nothing is loaded.
        free: SKU → units that may still be reserved.
        holds: every hold remembered, by order id.
        streams: the state of each stream.
    """

    epoch: int | None
    free: dict[str, int]
    holds: dict[str, Hold]
    streams: tuple[StreamState, ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that the checks may look at.

    Attributes:
        sql: a connection inside one read-only snapshot.
        stock: the durable Redis.
        books: what the payment providers say.
        answered: order ids that clients say were answered 202.
    """

    sql: psycopg.Connection[Row]
    stock: Stock
    books: Books = field(default_factory=Books)
    answered: frozenset[str] = field(default_factory=frozenset)

    def rows(self, query: str, *parameters: object) -> list[Row]:
        """Every row of a query."""
        return self.sql.execute(query, parameters).fetchall()


def open_snapshot(url: str) -> psycopg.Connection[Row]:
    """A connection whose every query sees the same moment; its statements can't write.

    Raises:
        Unreachable: the database does not answer.
    """
    try:
        connection = psycopg.connect(url, row_factory=dict_row, connect_timeout=5)
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        connection.execute("SELECT 1")  # the snapshot is taken by the first statement
    except psycopg.Error as error:
        raise Unreachable(f"the database does not answer: {' '.join(str(error).split())}") from error
    return connection


def read_stock(url: str) -> Stock:
    """Read the durable Redis.

    Raises:
        Unreachable: it does not answer.
    """
    try:
        with redis.Redis.from_url(url, decode_responses=True, socket_timeout=10.0) as client:
            return _stock(client)
    except (redis.RedisError, OSError) as error:
        raise Unreachable(f"the durable Redis does not answer: {error}") from error


def _stock(client: redis.Redis) -> Stock:
    shards = tags(client)
    epoch: Any = client.get("{stock}:epoch")
    free: dict[str, int] = {}
    for tag in shards:
        skus: Any = sorted(client.smembers(f"{tag}:skus"))
        free |= {sku: int(client.hget(f"{tag}:sku:{sku}", "free") or 0) for sku in skus}
    orders = [_stream(client, "orders", f"{tag}:orders") for tag in shards]
    return Stock(
        epoch=None if epoch is None else int(epoch.partition("/")[0]),
        free=free,
        holds={hold.order_id: hold for tag in shards for hold in _holds(client, tag)},
        streams=(*orders, _stream(client, "callbacks", "{stock}:callbacks")),
    )


def _holds(client: redis.Redis, tag: str) -> Iterator[Hold]:
    names: list[str] = list(client.scan_iter(match=f"{tag}:hold:*", count=1000))
    listed: Any = client.zrange(f"{tag}:holds", 0, -1)
    due = frozenset(listed)
    for start in range(0, len(names), PAGE):
        with client.pipeline(transaction=False) as pipe:
            for name in names[start : start + PAGE]:
                pipe.hmget(name, "id", "sku", "user", "quantity", "state")
            for order_id, sku, user, quantity, state in pipe.execute():
                if sku is not None:  # else it ran out between the two calls
                    yield Hold(
                        order_id or "", sku, user or "", int(quantity or 0), state or "", order_id in due
                    )


def _stream(client: redis.Redis, name: str, key: str) -> StreamState:
    length: Any = client.xlen(key)
    groups: Any = client.xinfo_groups(key) if client.exists(key) else []
    mine = next((group for group in groups if group["name"] == GROUP), None)
    if mine is None:
        return StreamState(name, int(length), 0, int(length))
    return StreamState(name, int(length), int(mine["pending"]), mine.get("lag"))
