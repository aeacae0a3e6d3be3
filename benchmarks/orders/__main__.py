"""Orders a minute, paid and delivered, beside the design that broke: `python -m benchmarks.orders`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import uvloop

from benchmarks import machine
from benchmarks.orders import curves, sale
from benchmarks.orders.mailbox import Mailbox
from benchmarks.orders.ours import Tidegate, short_folder
from benchmarks.orders.synchronous import Synchronous
from benchmarks.report import percentile

_USERS = 600  # a second; more than any shop here serves
_SETTLE = 60.0  # seconds for streams and mails after the sale


def _told(outcome: sale.Outcome) -> str:
    took = outcome.took()
    half, most = percentile(took, 0.5), percentile(took, 0.99)
    orders = max(1, len(outcome.delivered))
    spent = sorted(outcome.cpu.items(), key=lambda each: -each[1])
    return "\n".join(
        (
            f"  {outcome.per_minute:,.0f} orders a minute, delivered",
            f"  {len(outcome.bought):,} accepted, {len(outcome.delivered):,} delivered by the end",
            f"  from order to key: p50 {half:.2f} s, p99 {most:.2f} s",
            f"  answers: {', '.join(f'{what} × {n:,}' for what, n in sorted(outcome.answers.items()))}",
            f"  {sum(outcome.cpu.values()) / outcome.seconds:.2f} cores; CPU µs an order delivered: "
            + ", ".join(f"{name} {value / orders * 1e6:,.0f}" for name, value in spent),
        )
    )


async def _ours(folder: Path, given: argparse.Namespace, mailbox: Mailbox, port: int) -> dict[str, Any]:
    users = int(given.seconds * _USERS)
    mails = {"TIDEGATE_SMTP_URL": f"smtp://127.0.0.1:{port}"}
    # As many mails at once as the mail server's slowness asks for; all else is as `tidegate up` has it.
    settings = {"outbox": {"at_once": 64}}
    with Tidegate(folder, cards=users, shop=settings, environment=mails) as shop:
        outcome = await sale.hold(shop, at_once=given.buyers, seconds=given.seconds, users=users)
        print(f"tidegate\n{_told(outcome)}", flush=True)
        answered = folder / "answered"
        answered.write_text("".join(f"{each.order_id}\n" for each in outcome.bought), encoding="utf-8")
        audit = await asyncio.to_thread(shop.audit, answered, _SETTLE)
        keys = [key for each in outcome.delivered for key in each.cards]
        clean = audit.returncode == 0 and len(keys) == len(set(keys)) == len(outcome.delivered)
        print(f"  tidegate audit: {audit.stdout.splitlines()[-1] if audit.stdout else audit.stderr[-500:]}")
        if audit.returncode:
            print(audit.stdout)
        print(
            f"  keys seen {len(keys):,}, different {len(set(keys)):,}; mails taken {mailbox.taken:,}",
            flush=True,
        )
        return {**_figures(outcome), "clean": clean}


async def _theirs(folder: Path, given: argparse.Namespace, mailbox: Mailbox, port: int) -> dict[str, Any]:
    users = int(given.seconds * _USERS)
    with Synchronous(folder, cards=users, smtp_port=port) as shop:
        outcome = await sale.hold(shop, at_once=given.buyers, seconds=given.seconds, users=users)
        print(f"check-then-update, synchronous callbacks\n{_told(outcome)}", flush=True)
        received = await asyncio.to_thread(shop.callbacks)
        books = await asyncio.to_thread(shop.books)
        paid = sum(each.paid is not None for each in outcome.bought)
        print(
            f"  {books['orders']:,} orders in SQL, its stock fell by {books['stock_fell']:,};"
            f" {books['twice']:,} cards sold more than once\n"
            f"  {paid:,} paid, {sum(received.values()):,} callbacks received;"
            f" {paid - len(outcome.delivered):,} paid without a key when the buyer gave up\n"
            f"  mails taken {mailbox.taken:,}",
            flush=True,
        )
        storm = [received.get(int(outcome.began) + n, 0) for n in range(len(outcome.curve()) or 1)]
        return {**_figures(outcome), "books": books, "paid": paid, "callbacks": storm}


def _figures(outcome: sale.Outcome) -> dict[str, Any]:
    return {
        "per_minute": outcome.per_minute,
        "accepted": len(outcome.bought),
        "delivered": len(outcome.delivered),
        "p50": percentile(outcome.took(), 0.5),
        "p99": percentile(outcome.took(), 0.99),
        "cpu": outcome.cpu,
        "delivered_curve": outcome.curve(),
        "paid_curve": outcome.paid_curve(),
    }


async def _measure(given: argparse.Namespace) -> int:
    print(json.dumps(machine.describe()))
    print(f"load average {machine.load_average():.2f} before")
    results: dict[str, Mapping[str, Any]] = {}
    with short_folder() as folder:
        for name, run in (("tidegate", _ours), ("synchronous", _theirs)):
            if given.only in (None, name):
                mailbox = Mailbox(given.mail)
                port = await mailbox.open()
                results[name] = await run(folder / name, given, mailbox, port)
                mailbox.close()
    if len(results) == 2:
        ratio = results["tidegate"]["per_minute"] / max(1.0, results["synchronous"]["per_minute"])
        print(f"ratio {ratio:.1f}")
    print(f"load average {machine.load_average():.2f} after")
    _keep(given, results)
    return 0 if results.get("tidegate", {"clean": True})["clean"] else 1


def _keep(given: argparse.Namespace, results: Mapping[str, Mapping[str, Any]]) -> None:
    if given.json:
        told = {"machine": machine.describe(), **results}
        given.json.write_text(json.dumps(told, indent=1), encoding="utf-8")
    if given.png:
        curves.draw(
            given.png,
            {name: result["delivered_curve"] for name, result in results.items()},
            {
                name: curves.waiting(result["paid_curve"], result["delivered_curve"])
                for name, result in results.items()
            },
        )


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.orders", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long orders are taken")
    parser.add_argument("--buyers", type=int, default=250, help="at once")
    parser.add_argument("--mail", type=float, default=0.2, help="seconds the mail server takes for a mail")
    parser.add_argument("--only", choices=("tidegate", "synchronous"))
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--png", type=Path, help="draw both curves there (extra bench)")
    return uvloop.run(_measure(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
