"""A thousand buyers for a hundred keys, through the gate; and again while processes are killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

BUYERS, KEYS = 1000, 100


async def _sale(stack: Any, buyer: Callable[..., Any], victims: tuple[str, ...] = ()) -> list[Any]:
    orders: asyncio.Queue[str] = asyncio.Queue()
    crowd = [
        buyer(stack.url, stack.sandbox_url, "flash-100", accepted=orders.put_nowait, repeats=True)
        for _ in range(BUYERS)
    ]
    sale = asyncio.gather(*(one.buy() for one in crowd))
    for victim in victims:
        for _ in range(20):  # in the middle: some orders are accepted, and more are on their way
            await orders.get()
        os.kill(stack.service_pid(victim), signal.SIGKILL)
    await sale
    return crowd


def _judge(stack: Any, crowd: list[Any], folder: Path) -> None:
    outcomes = Counter(one.outcome for one in crowd)
    assert outcomes == {"delivered": KEYS, "sold out": BUYERS - KEYS}, outcomes
    keys = [key for one in crowd for key in one.cards]
    assert len(keys) == len(set(keys)) == KEYS
    answered = folder / "answered"
    answered.write_text("".join(f"{one.order_id}\n" for one in crowd if one.order_id))
    done = stack.tidegate("audit", "--wait", "40", "--answered", str(answered))
    assert done.returncode == 0, done.stdout + done.stderr


def _told_by_the_gate(stack: Any) -> float:
    """Orders that the gateway answered itself, since the shop had said "sold out"."""
    lines = httpx.get(f"{stack.admin_url}/metrics").text.splitlines()
    told = [
        line
        for line in lines
        if line.startswith("tidegate_requests_total{")
        and 'route="/api/orders"' in line
        and 'outcome="cached"' in line
    ]
    return sum(float(line.rpartition(" ")[2]) for line in told)


@pytest.mark.timeout(300)
async def test_exactly_as_many_are_sold_as_there_are(
    start_stack: Callable[..., Any], buyer: Callable[..., Any], tmp_path: Path
) -> None:
    """A hundred get a key each, nine hundred are told, some by the gate alone; every invariant holds."""
    stack = start_stack()
    crowd = await _sale(stack, buyer)
    _judge(stack, crowd, tmp_path)
    assert _told_by_the_gate(stack) > 0
    stack.stop()


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_sale_survives_the_death_of_its_processes(
    start_stack: Callable[..., Any], buyer: Callable[..., Any], tmp_path: Path
) -> None:
    """Shop and worker are SIGKILLed in mid-sale and restarted: nothing is lost or sold twice."""
    stack = start_stack()
    crowd = await _sale(stack, buyer, victims=("shop", "worker"))
    _judge(stack, crowd, tmp_path)
    assert "shop killed by SIGKILL; starting it again" in (stack.data_dir / "console.log").read_text()
    stack.stop()
