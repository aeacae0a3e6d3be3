"""One priority's way to an upstream's slots: a queue in which users take turns.

How long one waits in it is CoDel's idea (Nichols and Jacobson, RFC 8289) in the form of Maurer's "Fail at
Scale" (ACM Queue, 2015): a queue that is soon empty again absorbs a burst, so be patient; one that has stood
for an interval is overload, so give up at once, and serve the newest first, whose client still waits.

The critical wait longer, and in the order of coming: each slot that others give back is theirs, so only a
queue of theirs that stands long is overload. When the limit is cut far below what is in flight, none is given
out until that has ended; they were not who filled it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from gateway.config import Priority
from gateway.errors import Overloaded
from gateway.policies.fair_queue import FairQueue

if TYPE_CHECKING:
    from gateway.policies.slots import Slots

RETRY_AFTER: Final = 1.0  # seconds; slots turn over many times in one
# Intervals that the critical wait, while others hold slots or their queue has stood no longer.
LONGER: Final = 10
_MORE: Final = 16  # queues of them that may wait while others hold slots
_SHARE: Final = 0.1  # of the newest gap between two slots given


class Lane:
    """One priority's way to the slots.

    Attributes:
        priority: whose.
        in_flight: slots it holds.
        entered: requests that got a slot at once, since the slots' `pressure` was last asked.
        waiting: requests that wait for one.
        refused: requests that went without, ever.
    """

    __slots__ = (
        *(
            "_floor",
            "_gap",
            "_granted_at",
            "_room",
            "_room_at_last",
            "_share",
            "_slots",
            "_stood_since",
            "_waiters",
        ),
        *("entered", "floor_share", "in_flight", "priority", "refused"),
    )

    def __init__(self, slots: Slots, priority: Priority, share: float, floor: float) -> None:
        self.priority = priority
        self.in_flight = 0
        self.entered = 0
        self.refused = 0
        self.floor_share = floor
        self._slots = slots
        self._share = share
        self._waiters: FairQueue[asyncio.Future[bool]] = FairQueue()
        # How far apart slots are given to who waits; patience is no shorter (RFC 8289, section 4.3).
        self._gap = self._granted_at = 0.0
        self._stood_since = 0.0  # when the queue was last empty, if it isn't now
        self.resize(slots.limit, slots.limit)

    def resize(self, limit: int, open_now: int) -> None:
        """The upstream has so many slots from now on; so many of them are open to all."""
        self._room_at_last = max(1, int(limit * self._share))
        first = self.priority == "critical"
        self._room = self._room_at_last if first else max(1, int(open_now * self._share))
        self._floor = round(limit * self.floor_share)

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return len(self._waiters)

    @property
    def has_room(self) -> bool:
        """Whether the next one gets a slot at once."""
        held = self._slots.in_flight
        return held < self._room or (self.in_flight < self._floor and held < self._slots.limit)

    @property
    def starves(self) -> bool:
        """Whether it holds less than its floor."""
        return self.in_flight < self._floor

    # ---- a request comes and goes ------------------------------------------------------------

    def try_enter(self) -> bool:
        """Take a slot; False when none is free for this priority."""
        slots = self._slots
        held = slots.in_flight
        if held >= self._room and (self.in_flight >= self._floor or held >= slots.limit):
            return False
        slots.in_flight = held + 1
        self.entered += 1
        self.in_flight += 1
        return True

    def leave(self) -> None:
        """Give back a slot; exactly once for each one taken."""
        slots = self._slots
        slots.in_flight -= 1
        self.in_flight -= 1
        if slots.waiting:
            slots.hand_out()

    async def wait(self, user: str) -> None:
        """Take a slot as soon as one is free. Whoever is cancelled here holds none.

        Args:
            user: who asks; users take turns.

        Raises:
            Overloaded: none became free in time, or too many wait already.
        """
        slots, waiters = self._slots, self._waiters
        now = slots.clock()
        if not waiters:
            self._stood_since = now
        standing = now - self._stood_since
        slots.found_full()
        if len(waiters) >= self._queue_bound(standing):
            loser = waiters.push_out(user, newest=self._late(standing))
            if loser is None:
                raise self._refusal(slots.settings.target)
            self._turn_away(loser)
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[bool] = loop.create_future()
        waiters.add(user, waiter)
        slots.waiting += 1
        # Giving up costs most for the critical, and a queue of theirs is soon over: they come first.
        patience = slots.settings.interval
        if self.priority != "critical":
            patience = min(patience, max(slots.patience(standing), 2 * self._gap))
        timer = loop.call_later(patience, self._give_up, waiter, 1)
        try:
            granted = await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.result():
                self.leave()  # cancelled between getting the slot and waking up: pass it on
            raise
        finally:
            timer.cancel()
            if waiters.remove(waiter):
                slots.waiting -= 1
        waited = slots.clock() - now
        if not granted:
            raise self._refusal(waited)
        slots.waited(self.priority, waited)

    # ---- inside ------------------------------------------------------------------------------

    def grant(self) -> None:
        """Give a slot to one who waits: the first who came, or the last while the queue stands."""
        now, most = self._slots.clock(), self._slots.settings.interval
        self._gap += _SHARE * (min(now - self._granted_at, most) - self._gap)
        self._granted_at = now
        self._admit(self._waiters.take(newest=self._late(now - self._stood_since)))

    def _admit(self, waiter: asyncio.Future[bool]) -> None:
        slots = self._slots
        slots.waiting -= 1
        if not waiter.done():
            slots.in_flight += 1
            self.in_flight += 1
            waiter.set_result(True)

    @property
    def _comes_first(self) -> bool:
        """Whether it is critical, and others hold slots that will be its own."""
        return self.priority == "critical" and self._slots.in_flight > self.in_flight

    def _late(self, standing: float) -> bool:
        """Whether a queue that has stood for so many seconds is overload."""
        interval = self._slots.settings.interval
        return standing >= (LONGER * interval if self.priority == "critical" else interval)

    def _queue_bound(self, standing: float) -> int:
        slots = self._slots
        if self.priority != "critical":
            return slots.queue_bound(standing)
        if self._comes_first:
            return _MORE * slots.settings.size
        return slots.queue_bound(standing) if self._late(standing) else slots.settings.size

    def _give_up(self, waiter: asyncio.Future[bool], intervals: int) -> None:
        """Patience is over: for good, unless a slot is still to be hoped for."""
        slots = self._slots
        if waiter.done():
            return
        # A slow start makes one wait until it has shown whether the limit holds; it refuses nobody.
        admissible = slots.in_flight < self._room_at_last
        patient = self._comes_first or (
            self.priority == "critical" and not self._late(slots.clock() - self._stood_since)
        )
        longest = LONGER if patient or admissible else 0
        if intervals < longest:
            asyncio.get_running_loop().call_later(
                slots.settings.interval, self._give_up, waiter, intervals + 1
            )
        elif self._waiters.remove(waiter):
            if admissible:
                self._admit(waiter)
            else:
                self._turn_away(waiter)

    def _turn_away(self, waiter: asyncio.Future[bool]) -> None:
        self._slots.waiting -= 1
        if not waiter.done():
            waiter.set_result(False)

    def _refusal(self, waited: float) -> Overloaded:
        self.refused += 1
        self._slots.waited(self.priority, waited)
        return Overloaded(
            f"no slot is free for {self.priority} requests; try again shortly", retry_after=RETRY_AFTER
        )
