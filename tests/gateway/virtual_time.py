"""An event loop whose time passes at once: whenever everything waits, it is the next timer's turn."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Passes the time that others would sleep."""

    passed = 0.0  # seconds

    def select(self, timeout: float | None = None) -> list[Any]:
        """What is ready now; `timeout` seconds later by the loop's clock."""
        if timeout is None:
            raise RuntimeError("everything waits, and no timer runs: this would hang")
        self.passed += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """For tests of minutes that must not take minutes; sockets work, but their peers are not waited for."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Seconds since it began."""
        return self._virtual.passed


def run(main: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run` in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
