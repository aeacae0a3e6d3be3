"""How tests wait for a condition: never for a time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

import pytest

PATIENCE = 60.0  # seconds; a condition that comes takes none of it, and a machine may stand still for some


def wait_until(
    condition: Callable[[], Any], *, within: float = PATIENCE, what: str = "", every: float = 0.02
) -> Any:
    """Wait for a condition (truthy), return its value, fail after `within` seconds."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {within:g} s: {what or condition}")
        time.sleep(every)
    return value


async def until(
    condition: Callable[[], Any],
    why: str | Callable[[], Any] = "",
    *,
    within: float = PATIENCE,
    every: float = 0.02,
) -> Any:
    """The same without blocking the loop; the condition may be a coroutine function.

    Args:
        condition: waited for; its value is returned.
        why: said when it fails; a callable is asked then.
        within: seconds until it does.
        every: seconds between two looks.
    """
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"not within {within:g} s: {why() if callable(why) else why or condition}")
        await asyncio.sleep(every)
