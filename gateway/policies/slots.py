"""The slots of one upstream in one worker: who gets one at once, who waits for one, and who goes without.

A priority is let in while the upstream is less full than its share, so that those above it find room; and
while it holds less than its floor, so that it never starves. When there is no room a few may wait for a
moment, each priority in a queue of its own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from gateway.config import Concurrency, Priority
from gateway.exchange import Clock
from gateway.policies.concurrency import AdaptiveLimit
from gateway.policies.lane import Lane

_USUAL = 0.3  # share of the newest look in what is usual
_STANDING = 4  # a queue that stands may be a quarter as long as the slots are many


class Slots:
    """What one upstream may hold at once, and the three ways to it.

    Attributes:
        settings: of the queue.
        limit: requests that may be in flight at once.
        limiter: who finds the limit; None where it is fixed.
        in_flight: requests that are.
        waiting: requests that wait for a slot.
        uploads: requests with a slot whose body their clients are still sending.
        lanes: one for each priority.
        fullness: share of the slots taken, when `pressure` was last asked: then and usually of late.
        queue_delay: seconds that a request waited for its slot on average, when `pressure` was last asked.
        critical_wait: share of the critical requests that found no slot at once, when it was last asked.

    Args:
        settings: limits, shares, floors and queue.
        clock: seconds, monotonic.
    """

    def __init__(self, settings: Concurrency, clock: Clock = time.monotonic) -> None:
        self.settings = settings.queue
        self.clock = clock
        self.limiter = AdaptiveLimit(settings, clock) if settings.min < settings.max else None
        self.limit = settings.start
        self.in_flight = 0
        self.waiting = 0
        self.uploads = 0
        shares, floors = settings.shares, settings.floors
        self.lanes: Mapping[Priority, Lane] = {
            "critical": Lane(self, "critical", 1.0, 0.0),
            "normal": Lane(self, "normal", shares.normal, floors.normal),
            "optional": Lane(self, "optional", shares.optional, floors.optional),
        }
        self._ways = tuple(self.lanes.values())  # from the most important down
        self._delays = 0.0  # seconds waited since then, for a slot or in vain, by those above optional
        self._delayed = 0  # and by how many
        self._critical_delayed = 0  # and by how many of the critical
        self.fullness = self._usual = 0.0
        self.queue_delay = 0.0
        self.critical_wait = 0.0
        if self.limiter is not None:
            self.limiter.on_change(self._resize)
            self._resize()

    # ---- what others see ---------------------------------------------------------------------

    @property
    def refused(self) -> int:
        """Requests that went without a slot, ever."""
        return sum(lane.refused for lane in self._ways)

    def pressure(self) -> float:
        """How pressed the upstream is, 0 to 1, since this was last asked.

        It is full when its slots are taken, or when requests waited as long as the queue's target on average.
        A moment in which many are taken is chance, unless many were before: at a third of its capacity an
        upstream of few slots is half full in one look of ten, and a ladder would never come down.
        The optional's waiting does not count: they wait by design where others find room.
        """
        entered = sum(lane.entered for lane in self._ways)
        critical = self.lanes["critical"].entered + self._critical_delayed
        self.queue_delay = self._delays / max(1, entered + self._delayed)
        self.critical_wait = self._critical_delayed / max(1, critical)
        self._delays, self._delayed, self._critical_delayed = 0.0, 0, 0
        for lane in self._ways:
            lane.entered = 0
        now = self.in_flight / self.limit
        self._usual += _USUAL * (now - self._usual)
        self.fullness = min(now, self._usual)
        return min(1.0, max(self.fullness, self.queue_delay / self.settings.target))

    # ---- for those whose body is still to come ------------------------------------------------

    def try_upload(self) -> bool:
        """Let one send its body while it holds a slot: at most half are held so, for it may be slow."""
        if self.uploads >= max(1, self.limit // 2):
            return False
        self.uploads += 1
        return True

    def uploaded(self) -> None:
        """One has sent its body, or is gone."""
        self.uploads -= 1

    # ---- for the lanes -----------------------------------------------------------------------

    def patience(self, standing: float) -> float:
        """Seconds that one who comes now may wait, in a queue that has stood for so many."""
        return self.settings.target if standing >= self.settings.interval else self.settings.interval

    def queue_bound(self, standing: float) -> int:
        """How many of one priority may wait."""
        slots = self.limit if standing < self.settings.interval else math.ceil(self.limit / _STANDING)
        if self.limiter is None or not self.settings.size:
            return min(self.settings.size, slots)
        # Who waits for a slow start would not else.
        return min(self.settings.size, slots) + self.limit - self.limiter.open

    def found_full(self) -> None:
        """Somebody found no slot."""
        if self.limiter is not None:
            self.limiter.hold_back()

    def waited(self, priority: Priority, seconds: float) -> None:
        """Somebody waited so long, for a slot or in vain."""
        if priority != "optional":
            self._delays += seconds
            self._delayed += 1
            self._critical_delayed += priority == "critical"

    def hand_out(self) -> None:
        """Give what is free to those who wait: first to those below their floor, then from the top down."""
        while self.waiting and self.in_flight < self.limit:
            lane = self._next()
            if lane is None:
                return
            lane.grant()

    def _next(self) -> Lane | None:
        for lane in reversed(self._ways):
            if lane.waiting and lane.starves:
                return lane
        for lane in self._ways:
            if lane.waiting and lane.has_room:
                return lane
        return None

    def _resize(self) -> None:
        assert self.limiter is not None  # noqa: S101 - it is who calls
        self.limit = self.limiter.limit
        # A slow start makes one wait. Where nobody may wait there can be none.
        open_now = self.limiter.open if self.settings.size else self.limit
        for lane in self._ways:
            lane.resize(self.limit, open_now)
        if self.waiting:
            self.hand_out()
