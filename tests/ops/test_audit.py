"""The auditor is audited: each violation is seeded by hand, and it must name it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace

import psycopg
import pytest

from ops.audit import command
from ops.audit.evidence import open_snapshot
from ops.audit.ledgers import Capture
from tests.ops.audit_world import DEAD, EXPIRED, PENDING, STRANGER, World, sql_violations


def test_a_shop_in_order_is_clean(world: World) -> None:
    """No false alarm."""
    assert world.broken() == set()


SQL_VIOLATIONS = sql_violations()


@pytest.mark.parametrize("name", SQL_VIOLATIONS)
def test_a_violation_in_sql_is_named(world: World, name: str) -> None:
    """Broken by hand in SQL, named by its invariant."""
    world.sql(SQL_VIOLATIONS[name])

    assert name.split()[0] in world.broken()


OTHER_VIOLATIONS: dict[str, Callable[[World], object]] = {
    "I2 stock given away twice": lambda w: w.set("{stock}:sku:card", "free", 3),
    "I2 negative stock": lambda w: w.set("{stock}:sku:card", "free", -1),
    "I2 Redis lost its data": lambda w: _flush(w),
    "I2 stock of what is not sold": lambda w: w.sells("ghost"),
    "I2 a hold that nobody will end": lambda w: w.unlist(PENDING),
    "I6 a capture we never recorded": lambda w: w.captures.append(Capture("pay9", PENDING, 500, 0)),
    "I6 a capture of another amount": lambda w: w.captures.__setitem__(
        0, replace(w.captures[0], amount_cents=1)
    ),
    "I6 a refund that never reached the buyer": lambda w: w.captures.__setitem__(
        1, replace(w.captures[1], refunded_cents=0)
    ),
    "I6 a refund we never asked for": lambda w: w.captures.__setitem__(
        0, replace(w.captures[0], refunded_cents=1000)
    ),
    "I6 a capture that stands there twice": lambda w: w.captures.append(w.captures[0]),
    "I6 more given back than was taken": lambda w: w.captures.__setitem__(
        1, replace(w.captures[1], refunded_cents=1000)
    ),
    "I6 a capture of another order": lambda w: w.captures.__setitem__(
        0, replace(w.captures[0], order_id=PENDING)
    ),
    "I7 a hold whose order never arrived": lambda w: w.hold(STRANGER, "held", "zoe"),
    "I7 a client's answered order is unknown": lambda w: setattr(w, "answered", frozenset({STRANGER})),
    "I7 an order nobody reserved": lambda w: _forget(w, EXPIRED),
    "I8 an expired order whose stock Redis keeps": lambda w: w.hold(EXPIRED, "held", "bob"),
    "I9 holds beyond the cap": lambda w: w.hold(STRANGER, "held", "ann"),
    "I10 an entry nobody took": lambda w: _add(w, "orders"),
    "I10 an entry never acknowledged": lambda w: _claim(w, "callbacks"),
    "I10 a dead letter that keeps its hold": lambda w: w.hold(DEAD, "held", "mal"),
}


def _flush(world: World) -> None:
    with world.redis() as client:
        client.flushall()


def _forget(world: World, order_id: str) -> None:
    world.answered = world.answered - {order_id}
    with world.redis() as client:
        client.delete(f"{{stock}}:hold:{order_id[15:]}")


def _add(world: World, stream: str) -> None:
    with world.redis() as client:
        client.xadd(f"{{stock}}:{stream}", {"a": "b"})


def _claim(world: World, stream: str) -> None:
    _add(world, stream)
    with world.redis() as client:
        client.xreadgroup("shop", "worker", {f"{{stock}}:{stream}": ">"})
        client.xtrim(f"{{stock}}:{stream}", maxlen=0)


@pytest.mark.parametrize("name", OTHER_VIOLATIONS)
def test_a_violation_elsewhere_is_named(world: World, name: str) -> None:
    """Broken by hand in Redis, at the provider or in a client's log, named by its invariant."""
    OTHER_VIOLATIONS[name](world)

    assert name.split()[0] in world.broken()


def test_every_invariant_has_a_seeded_violation() -> None:
    """No check goes untested."""
    seeded = {name.split()[0] for name in (*SQL_VIOLATIONS, *OTHER_VIOLATIONS)}

    assert seeded == set(command.CHECKS) == {f"I{n}" for n in range(1, 13)}


def test_the_snapshot_can_not_write(world: World) -> None:
    """An audit changes nothing."""
    with (
        contextlib.closing(open_snapshot(world.database_url)) as connection,
        pytest.raises(psycopg.errors.ReadOnlySqlTransaction),
    ):
        connection.execute("DELETE FROM outbox")


RUNNING_VIOLATIONS = [name for name in SQL_VIOLATIONS if name.split()[0] in command.RUNNING]


@pytest.mark.parametrize("name", RUNNING_VIOLATIONS)
def test_a_violation_is_named_while_a_sale_goes_on(world: World, name: str) -> None:
    """By one snapshot of the database, without Redis and provider."""
    world.sql(SQL_VIOLATIONS[name])

    found = command.look_running({"TIDEGATE_DATABASE_URL": world.database_url})

    assert found[name.split()[0]]
