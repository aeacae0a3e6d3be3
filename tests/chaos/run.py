"""One schedule: start the stack, sell, break, heal, drain, audit, judge."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import psycopg

from ops.audit import command
from ops.audit.ledgers import read_sandbox
from ops.errors import OpsError
from tests.chaos import catalog, journal, judge
from tests.chaos.buyers import Shopper
from tests.chaos.faults import Injector
from tests.chaos.forger import Forger
from tests.chaos.journal import Journal
from tests.chaos.schedule import Schedule
from tests.chaos.world import World, running

CLIENTS = 32
DRAIN = 120.0  # seconds until everything must have come to an end
_LOOK = 3.0  # seconds between two audits of the running sale


@dataclass
class Outcome:
    """What a run came to.

    Attributes:
        schedule: what was done to the stack.
        counts: operations by name and end, and orders by their last state.
        done: faults that hit, by (kind, target).
        missed: faults whose target did not run.
        looks: audits of the running sale.
        drained: seconds from healing to a clean audit.
        violations: everything that is wrong.
    """

    schedule: Schedule
    counts: Counter[str] = field(default_factory=Counter)
    done: Mapping[tuple[str, str], int] = field(default_factory=dict)
    missed: int = 0
    looks: int = 0
    drained: float = 0.0
    violations: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        c = self.counts
        return (
            f"seed {self.schedule.seed}: {self.schedule.seconds:.0f} s, {sum(self.done.values())} faults"
            f"{f' ({self.missed} missed)' if self.missed else ''}, "
            f"orders {c['order ok']} ok {c['order unknown']} unknown {c['order fail']} refused, "
            f"paid {c['pay ok']} ok {c['pay unknown']} unknown; delivered {c['delivered']} "
            f"refunded {c['refunded']} expired {c['expired']} dead {c['dead']}; {self.looks} audits while "
            f"running, drained in {self.drained:.0f} s, {len(self.violations)} violations"
        )

    def document(self) -> dict[str, Any]:
        """The same for a file."""
        return {
            "seed": self.schedule.seed,
            "seconds": self.schedule.seconds,
            "wired": self.schedule.wired,
            "faults": [str(fault) for fault in self.schedule.faults],
            "done": {" ".join(what): n for what, n in sorted(self.done.items())},
            "missed": self.missed,
            "counts": dict(sorted(self.counts.items())),
            "looks": self.looks,
            "drained": round(self.drained, 1),
            "violations": self.violations,
        }


async def run(schedule: Schedule, folder: Path) -> Outcome:
    """Run one schedule in an empty folder, which keeps the journals and every process's log."""
    outcome = Outcome(schedule)
    async with running(folder, wired=schedule.wired) as world:
        clients = folder / "clients"
        clients.mkdir()
        forging = Journal(clients / "forger.jsonl")
        forger = Forger(world.stack.url, world.secret, Random(f"{schedule.seed} forger"), forging)
        journals = [Journal(clients / f"{number:02d}.jsonl") for number in range(CLIENTS)]
        shoppers = [
            Shopper(
                world.stack.url,
                world.stack.sandbox_url,
                Random(f"{schedule.seed} {number}"),
                own,
                forger,
            )
            for number, own in enumerate(journals)
        ]
        injector = Injector(world, forger.storm)
        await _sale(schedule, shoppers, injector, world, outcome)
        outcome.done, outcome.missed = injector.done, len(injector.missed)
        await _drain(world, [order.order_id for one in shoppers for order in one.placed], outcome)
        await asyncio.gather(*(one.look_again() for one in shoppers))
        for one in shoppers:
            one.close()
        for each in (*journals, forging):
            each.close()
        operations = list(journal.read(sorted(clients.iterdir())))
        outcome.counts.update(f"{each.op} {each.end}" for each in operations)
        facts = await asyncio.to_thread(_facts, world)
        outcome.counts.update(order.state for order in facts.orders.values())
        outcome.counts["dead"] = len(facts.dead)
        outcome.violations += judge.judge(judge.see(operations), facts)
    (folder / "outcome.json").write_text(json.dumps(outcome.document(), indent=2), encoding="utf-8")
    return outcome


async def _sale(
    schedule: Schedule, shoppers: list[Shopper], injector: Injector, world: World, outcome: Outcome
) -> None:
    stop = asyncio.Event()
    selling = [asyncio.create_task(one.run()) for one in shoppers]
    watching = asyncio.create_task(_watch(world, stop, outcome))
    breaking = asyncio.create_task(injector.run(schedule))
    try:
        await asyncio.wait(
            [*selling, watching, breaking], timeout=schedule.seconds, return_when=asyncio.FIRST_EXCEPTION
        )
        await breaking
    finally:
        stop.set()
        for one in shoppers:
            one.leave()
        injector.heal()
        # Who waits for an answer gets it, or knows nothing.
        await asyncio.gather(*selling, watching)


async def _watch(world: World, stop: asyncio.Event, outcome: Outcome) -> None:
    """What must hold at every moment is looked at while the sale goes on."""
    while not stop.is_set():
        with contextlib.suppress(OpsError):  # the database is down just now
            found = await asyncio.to_thread(command.look_running, world.environment)
            outcome.looks += 1
            outcome.violations += [
                f"while running: {name}: {what}" for name, whats in found.items() for what in whats
            ]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), _LOOK)


async def _drain(world: World, accepted: list[str], outcome: Outcome) -> None:
    began = time.monotonic()
    violations: list[str] = []
    while True:
        try:
            found = await asyncio.to_thread(command.look, world.environment, frozenset(accepted))
            open_orders = await asyncio.to_thread(_open_orders, world)
            violations = [f"audit: {name}: {what}" for name, whats in found.items() for what in whats]
            violations += [f"order {order_id} is still open" for order_id in open_orders]
        except (OpsError, psycopg.Error) as error:
            violations = [f"the stack did not come back: {error}"]
        outcome.drained = time.monotonic() - began
        if not violations or outcome.drained > DRAIN:
            break
        await asyncio.sleep(0.5)
    outcome.violations += violations


def _open_orders(world: World) -> list[str]:
    with psycopg.connect(world.environment["TIDEGATE_DATABASE_URL"], connect_timeout=5) as connection:
        rows = connection.execute(
            "SELECT id::text FROM orders WHERE state NOT IN ('delivered', 'expired', 'refunded')"
        ).fetchall()
    return [order_id for (order_id,) in rows]


def _facts(world: World) -> judge.Facts:
    with psycopg.connect(world.environment["TIDEGATE_DATABASE_URL"], connect_timeout=5) as connection:
        orders = connection.execute("SELECT id::text, user_id, sku, quantity, state FROM orders").fetchall()
        dead = connection.execute(
            "SELECT d.order_id::text FROM dead_letters d WHERE d.stream LIKE '%orders'"
            " AND d.order_id IS NOT NULL"
        ).fetchall()
        recorded = connection.execute(
            "SELECT payment_id FROM payments WHERE outcome = 'succeeded'"
        ).fetchall()
    captures = read_sandbox(world.environment["TIDEGATE_SANDBOX_URL"], world.secret)
    return judge.Facts(
        orders={row[0]: judge.Order(*row[1:]) for row in orders},
        dead=frozenset(row[0] for row in dead),
        captures={
            each.payment_id: judge.Capture(each.order_id, each.amount_cents, each.refunded_cents)
            for each in captures
        },
        recorded=frozenset(row[0] for row in recorded),
        keys=catalog.keys(),
        caps={product.sku: product.cap for product in catalog.PRODUCTS},
    )
