"""Refuse early what cannot be served in time, the least important first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gateway.config import Priority
from gateway.errors import Overloaded
from gateway.exchange import Exchange, Handler, Reply

# Share of the slots that a priority may fill, so that those above it find room.
OPTIONAL_SHARE = 0.60
NORMAL_SHARE = 0.85
CRITICAL_SHARE = 1.00
RETRY_AFTER = 1.0  # seconds; slots turn over many times in one


class Gate(Protocol):
    """Who decides how many requests an upstream holds at once."""

    def try_enter(self, priority: Priority) -> bool:
        """Take a slot; False when none is free for this priority."""
        ...

    def leave(self) -> None:
        """Give back a slot; exactly once for each one taken."""
        ...


class Slots:
    """A gate of fixed width, for one upstream and worker.

    Attributes:
        limit: requests that may be in flight at once.
        in_flight: requests that are.
    """

    __slots__ = ("_room", "in_flight", "limit")

    def __init__(self, limit: int) -> None:
        """Open a gate.

        Raises:
            ValueError: a limit below 1 would refuse everything.
        """
        if limit < 1:
            raise ValueError(f"a gate needs at least 1 slot, not {limit}")
        self.limit = limit
        self.in_flight = 0
        self._room: dict[Priority, int] = {
            "optional": max(1, int(limit * OPTIONAL_SHARE)),
            "normal": max(1, int(limit * NORMAL_SHARE)),
            "critical": max(1, int(limit * CRITICAL_SHARE)),
        }

    def try_enter(self, priority: Priority) -> bool:
        """Take a slot; False when none is free for this priority."""
        if self.in_flight >= self._room[priority]:
            return False
        self.in_flight += 1
        return True

    def leave(self) -> None:
        """Give back a slot."""
        self.in_flight -= 1


@dataclass(frozen=True, slots=True)
class LoadShed:
    """Refuse a request when no slot is free for its priority."""

    gate: Gate
    priority: Priority

    async def __call__(self, exchange: Exchange, proceed: Handler) -> Reply:
        """Handle one exchange.

        Raises:
            Overloaded: no slot is free.
        """
        if not self.gate.try_enter(self.priority):
            raise Overloaded(
                f"no slot is free for {self.priority} requests; try again shortly", retry_after=RETRY_AFTER
            )
        exchange.defer(self.gate.leave)  # after the last body byte or a disconnect
        return await proceed(exchange)
