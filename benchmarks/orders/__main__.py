"""Orders a minute, paid and delivered: `python -m benchmarks.orders`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

import uvloop

from benchmarks import machine
from benchmarks.orders import sale
from benchmarks.orders.mailbox import Mailbox
from benchmarks.orders.ours import Tidegate


def _told(outcome: sale.Outcome) -> str:
    took = outcome.took()
    half, most = sale.percentile(took, 0.5), sale.percentile(took, 0.99)
    lines = [
        f"{outcome.per_minute:,.0f} orders a minute",
        f"{len(outcome.bought):,} accepted, {len(outcome.delivered):,} delivered",
        f"order to key p50 {half:.2f} s, p99 {most:.2f} s",
        f"answers {dict(sorted(outcome.answers.items()))}",
    ]
    orders = max(1, len(outcome.delivered))
    total = sum(outcome.cpu.values())
    lines.append(
        f"CPU {total / outcome.seconds:.2f} cores; µs an order: "
        + ", ".join(
            f"{name} {value / orders * 1e6:,.0f}"
            for name, value in sorted(outcome.cpu.items(), key=lambda each: -each[1])
        )
    )
    return "\n".join(lines)


async def _ours(folder: Path, given: argparse.Namespace) -> sale.Outcome:
    mailbox = Mailbox(given.mail)
    port = await mailbox.open()
    users = int(given.seconds * 500)
    with Tidegate(
        folder,
        cards=users,
        environment={"TIDEGATE_SMTP_URL": f"smtp://127.0.0.1:{port}"} if given.mail else {},
    ) as shop:
        outcome = await sale.hold(shop, at_once=given.buyers, seconds=given.seconds, users=users)
        answered = folder / "answered"
        answered.write_text("".join(f"{each.order_id}\n" for each in outcome.bought), encoding="utf-8")
        print(_told(outcome), flush=True)
        audit = await asyncio.to_thread(shop.audit, answered, 60)
        print(audit.stdout.splitlines()[-1], audit.stderr[-500:])
        if audit.returncode:
            print(audit.stdout)
        keys = [key for each in outcome.delivered for key in each.cards]
        print(f"keys {len(keys)}, different {len(set(keys))}; mails {mailbox.taken}")
    mailbox.close()
    return outcome


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.orders", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--buyers", type=int, default=400)
    parser.add_argument("--mail", type=float, default=0.1)
    given = parser.parse_args()
    print(json.dumps(machine.describe()))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        folder.chmod(0o711)
        uvloop.run(_ours(folder / "tidegate", given))
    return 0


if __name__ == "__main__":
    sys.exit(main())
