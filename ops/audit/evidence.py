"""What the auditor looks at: one SQL snapshot, the stock in Redis, and the provider's own ledger."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import psycopg
import redis
from psycopg.rows import dict_row

from ops.errors import Unreachable
from ops.stock import tags

GROUP = "shop"
PAGE = 1000  # payments fetched at once
Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Hold:
    """A reservation as Redis has it; `state` ∈ held confirmed released expired."""

    order_id: str
    sku: str
    user: str
    quantity: int
    state: str


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
class Capture:
    """Money the provider took, and gave back; amounts in cents."""

    payment_id: str
    order_id: str
    amount_cents: int
    refunded_cents: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that the checks may look at.

    Attributes:
        sql: a connection inside one read-only snapshot.
        stock: the durable Redis.
        captures: the provider's successes.
        answered: order ids that clients say were answered 202.
    """

    sql: psycopg.Connection[Row]
    stock: Stock
    captures: Sequence[Capture]
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
        holds={hold.order_id: hold for tag in shards for hold in _holds(client, f"{tag}:hold:")},
        streams=(*orders, _stream(client, "callbacks", "{stock}:callbacks")),
    )


def _holds(client: redis.Redis, prefix: str) -> Iterator[Hold]:
    names: list[str] = list(client.scan_iter(match=f"{prefix}*", count=1000))
    for start in range(0, len(names), PAGE):
        with client.pipeline(transaction=False) as pipe:
            for name in names[start : start + PAGE]:
                pipe.hmget(name, "id", "sku", "user", "quantity", "state")
            for order_id, sku, user, quantity, state in pipe.execute():
                if sku is not None:  # else it ran out between the two calls
                    yield Hold(order_id or "", sku, user or "", int(quantity or 0), state or "")


def _stream(client: redis.Redis, name: str, key: str) -> StreamState:
    length: Any = client.xlen(key)
    groups: Any = client.xinfo_groups(key) if client.exists(key) else []
    mine = next((group for group in groups if group["name"] == GROUP), None)
    if mine is None:
        return StreamState(name, int(length), 0, int(length))
    return StreamState(name, int(length), int(mine["pending"]), mine.get("lag"))


def read_captures(url: str, secret: str | None, timeout: float = 10.0) -> list[Capture]:
    """Read the provider's ledger to its end.

    Raises:
        Unreachable: it does not answer as expected.
    """
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    captures: list[Capture] = []
    connection = kind(parts.hostname or "", parts.port, timeout=timeout)
    try:
        since = 0
        while True:
            connection.request("GET", f"{parts.path}/payments?since={since}&limit={PAGE}", headers=headers)
            answer = connection.getresponse()
            raw = answer.read()
            if answer.status != http.HTTPStatus.OK:
                raise Unreachable(f"the provider at {url} answered {answer.status} when asked for its ledger")
            document = json.loads(raw)
            captures += [_capture(row) for row in document["payments"] if row["outcome"] == "succeeded"]
            if not document["payments"]:
                return captures
            since = int(document["next"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise Unreachable(
            f"the provider at {url} does not answer: {error or type(error).__name__}"
        ) from error
    finally:
        connection.close()


def _capture(row: Row) -> Capture:
    return Capture(
        str(row["id"]), str(row["order_id"]), int(row["amount_cents"]), int(row["refunded_cents"] or 0)
    )
