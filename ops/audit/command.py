"""`tidegate audit`: gather the evidence, run every check, say what is wrong."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import click
import psycopg

from ops import stores
from ops.audit import cards, messages, money, orders
from ops.audit.evidence import Evidence, Stock, open_snapshot, read_stock
from ops.audit.ledgers import read_books
from ops.errors import OpsError, Unreachable

Check = Callable[[Evidence], Iterator[str]]
CHECKS: Mapping[str, Check] = {
    "I1": cards.i1,
    "I2": cards.i2,
    "I3": cards.i3,
    "I4": cards.i4,
    "I5": money.i5,
    "I6": money.i6,
    "I7": orders.i7,
    "I8": cards.i8,
    "I9": cards.i9,
    "I10": orders.i10,
    "I11": messages.i11,
    "I12": orders.i12,
}
# What every committed transaction leaves true: no stream, mail or provider has to come to rest for it.
RUNNING = ("I1", "I3", "I4", "I5", "I8", "I12")
PAUSE = 0.5  # seconds between two looks while things drain


def violations(evidence: Evidence, names: Iterable[str] = tuple(CHECKS)) -> dict[str, list[str]]:
    """What each invariant finds; an empty list where it holds.

    Raises:
        Unreachable: the database broke off.
    """
    try:
        return {name: list(CHECKS[name](evidence)) for name in names}
    except psycopg.Error as error:
        raise Unreachable(f"the database does not answer: {' '.join(str(error).split())}") from error


def look(environment: Mapping[str, str], answered: frozenset[str] = frozenset()) -> dict[str, list[str]]:
    """Gather fresh evidence and check it.

    Raises:
        OpsError: a store or the provider is not named or does not answer.
    """
    missing = [
        name for name in ("TIDEGATE_DATABASE_URL", "TIDEGATE_STOCK_REDIS_URL") if not environment.get(name)
    ]
    if missing:
        raise OpsError(f"set {', '.join(missing)}, or name the stack's folder with --data")
    books = read_books(environment)
    with contextlib.closing(open_snapshot(environment["TIDEGATE_DATABASE_URL"])) as connection:
        stock = read_stock(environment["TIDEGATE_STOCK_REDIS_URL"])
        return violations(Evidence(connection, stock, books, answered))


def look_running(environment: Mapping[str, str]) -> dict[str, list[str]]:
    """Check what holds at every moment, on one snapshot of the database; a sale may go on.

    Raises:
        OpsError: the database is not named or does not answer.
    """
    if not environment.get("TIDEGATE_DATABASE_URL"):
        raise OpsError("set TIDEGATE_DATABASE_URL, or name the stack's folder with --data")
    with contextlib.closing(open_snapshot(environment["TIDEGATE_DATABASE_URL"])) as connection:
        return violations(Evidence(connection, Stock(None, {}, {}, ())), RUNNING)


def settle(environment: Mapping[str, str], wait: float, answered: frozenset[str]) -> dict[str, list[str]]:
    """Look again and again until nothing is wrong or `wait` seconds are over.

    Streams, mails and callbacks in flight look like violations until they have arrived, and so does a
    sale between the moments at which SQL and Redis are read; a real violation stays.
    """
    deadline = time.monotonic() + wait
    while True:
        found = look(environment, answered)
        if not any(found.values()) or time.monotonic() + PAUSE > deadline:
            return found
        time.sleep(PAUSE)


def read_answered(file: Path) -> frozenset[str]:
    """Order ids, one a line."""
    return frozenset(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())


def run(data: Path, *, as_json: bool, wait: float, answered: Path | None, running: bool = False) -> int:
    """Audit the stack of `data` and print the outcome.

    Args:
        data: folder of the stack; the environment's URLs win.
        as_json: one document instead of text.
        wait: seconds to let things settle.
        answered: file of order ids that were answered 202.
        running: check only what holds at every moment, at once.

    Returns:
        0 when every invariant holds, else 1.

    Raises:
        OpsError: a store or the provider is not named or does not answer.
    """
    environment = stores.client_environment(data, os.environ)
    if running:
        found = look_running(environment)
    else:
        found = settle(environment, wait, frozenset() if answered is None else read_answered(answered))
    clean = not any(found.values())
    if as_json:
        click.echo(json.dumps({"clean": clean, "violations": found}, indent=2))
        return 0 if clean else 1
    for name, seen in found.items():
        title = (CHECKS[name].__doc__ or "").strip()
        click.echo(f"{name:>3} {'holds' if not seen else 'VIOLATED'}  {title}")
        for what in seen:
            click.echo(f"      {name}: {what}")
    click.echo(_sum(found))
    return 0 if clean else 1


def _sum(found: Mapping[str, list[str]]) -> str:
    if count := sum(map(len, found.values())):
        return "1 violation" if count == 1 else f"{count} violations"
    if len(found) < len(CHECKS):
        return f"these {len(found)} of {len(CHECKS)} invariants hold; the others can be told at rest only"
    return "every invariant holds"
