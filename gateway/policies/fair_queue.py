"""Who waits for a slot, fair between users: nobody gets a second turn while others wait for their first.

Users are hashed into buckets and the buckets take turns: stochastic fair queueing (McKenney, "Stochastic
fairness queueing", INFOCOM 1990). A queue of a few places is a poor memory, though: under overload most of
those who ask are not in it at any moment, and a greedy user always is. So each bucket keeps the number of its
next turn when it has nobody waiting too, as start-time fair queueing does (Goyal, Vin and Cheng, SIGCOMM
1996), and may make up for a few turns that it missed. Where there is no place left, one whose turn comes
sooner takes that of the one who would come last, as FQ-CoDel drops from the fattest flow (RFC 8290, 4.1.3).
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")
BUCKETS = 4096  # users who share one take turns as one; their hashes differ from process to process
_OWED = 4  # turns that one who missed them may still have


class FairQueue(Generic[T]):
    """Items that wait, each for a user. An item waits once at most."""

    __slots__ = ("_bucket_of", "_oldest", "_turns", "_waiting")

    def __init__(self) -> None:
        self._oldest = 0  # a bucket's next turn is this at the least; _OWED before the latest that was served
        self._turns = [0] * BUCKETS  # the next of each bucket
        self._waiting: dict[int, list[T]] = {}  # by bucket, those first that began to wait first
        self._bucket_of: dict[T, int] = {}

    def __len__(self) -> int:
        return len(self._bucket_of)

    def add(self, user: str, item: T) -> None:
        """Wait."""
        bucket = hash(user) % BUCKETS
        self._bucket_of[item] = bucket
        waiting = self._waiting.get(bucket)
        if waiting is None:
            self._waiting[bucket] = [item]
        else:
            waiting.append(item)

    def remove(self, item: T) -> bool:
        """Wait no more; False when it did not."""
        bucket = self._bucket_of.pop(item, None)
        if bucket is None:
            return False
        waiting = self._waiting[bucket]
        waiting.remove(item)
        if not waiting:
            del self._waiting[bucket]
        return True

    def take(self, *, newest: bool = False) -> T:
        """Whose turn it is: of those who come first in the turns, the one who waits longest, or the newest.

        Raises:
            IndexError: nobody waits.
        """
        turns, oldest = self._turns, self._oldest
        chosen, first = -1, 0
        for bucket in self._waiting:
            turn = max(turns[bucket], oldest)
            if chosen < 0 or turn < first or (newest and turn == first):
                chosen, first = bucket, turn
        if chosen < 0:
            raise IndexError("nobody waits")
        self._oldest = max(oldest, first - _OWED)
        turns[chosen] = first + 1
        item = self._waiting[chosen][-1 if newest else 0]
        self.remove(item)
        return item

    def push_out(self, user: str, *, newest: bool = False) -> T | None:
        """Who must leave so that this user may wait; None when the user would come last itself.

        Args:
            user: who wants a place.
            newest: the newest are served first, so the oldest of a bucket comes last.
        """
        turns, oldest = self._turns, self._oldest
        chosen, last = -1, 0
        for bucket, waiting in self._waiting.items():
            turn = max(turns[bucket], oldest) + len(waiting)
            if turn > last or chosen < 0:
                chosen, last = bucket, turn
        own = hash(user) % BUCKETS
        if chosen < 0 or max(turns[own], oldest) + len(self._waiting.get(own, ())) + 1 >= last:
            return None
        item = self._waiting[chosen][0 if newest else -1]
        self.remove(item)
        return item
