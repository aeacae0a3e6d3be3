"""The probes of a half-open circuit: few, each on a permit of its own that runs out."""

from __future__ import annotations


class Probes:
    """Permits and verdicts of one half-open spell after the other.

    A permit's ticket is below 0 and never given twice, so one of an earlier spell says nothing.

    Attributes:
        judged: probes of this spell that have a verdict; `failed` and `slow` are how many had that.

    Args:
        most: probes of one spell.
        lease: seconds after which the permit of one that hangs is given to another.
        left: of these, so many are never under way at once with the rest: they are somebody else's.
    """

    __slots__ = ("_answered", "_last", "_lease", "_left", "_most", "_permits", "failed", "judged", "slow")

    def __init__(self, most: int, lease: float, *, left: int = 0) -> None:
        self._most = most
        self._left = left
        self._lease = lease
        self._last = 0
        self._permits: dict[int, float] = {}  # a ticket, and when its lease runs out
        self._answered: dict[int, bool] = {}  # those whose header has come, and whether it was slow
        self.judged = self.failed = self.slow = 0

    def restart(self) -> None:
        """Another spell: permits of before are void."""
        self._permits.clear()
        self._answered.clear()
        self.judged = self.failed = self.slow = 0

    def permit(self, now: float, *, alone: bool = False) -> int | None:
        """A ticket, or None when as many are under way or judged as there may be.

        Args:
            now: seconds.
            alone: let none through while another is under way.
        """
        under_way = len(self._permits)
        if under_way + self.judged >= self._most or under_way >= (1 if alone else self._most - self._left):
            return None
        self._last -= 1
        self._permits[self._last] = now + self._lease
        return self._last

    def __contains__(self, ticket: int) -> bool:
        return ticket in self._permits

    def answered(self, ticket: int, *, slow: bool) -> None:
        """Its header has come."""
        if ticket in self._permits:
            self._answered[ticket] = slow

    def release(self, ticket: int) -> None:
        """It came to nothing: its permit is free."""
        if self._permits.pop(ticket, None) is not None:
            self._answered.pop(ticket, None)

    def judge(self, ticket: int, *, failed: bool, slow: bool) -> None:
        """It has a verdict."""
        self.release(ticket)
        self.judged += 1
        self.failed += failed
        self.slow += slow

    def overdue(self, now: float) -> list[tuple[int, bool | None]]:
        """Those whose lease has run out, each with whether its header was slow, or None when none came."""
        late = [ticket for ticket, ends in self._permits.items() if now >= ends]
        return [(ticket, self._answered.get(ticket)) for ticket in late]
