"""In how many workers, and on which hosts, a change holds."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Effect:
    """In how many workers a change holds.

    Attributes:
        each: process id of each worker, and the seconds until it confirmed; None when it has not.
        seconds: until the last of those confirmed, or until patience ended.
        hosts: the same as each, of other hosts by name.
    """

    each: tuple[tuple[int, float | None], ...]
    seconds: float
    hosts: tuple[tuple[str, float | None], ...] = ()

    @property
    def applied(self) -> int:
        """Workers that have confirmed."""
        return sum(seconds is not None for _, seconds in self.each)

    @property
    def workers(self) -> int:
        """Workers that there are."""
        return len(self.each)

    def after(self, seconds: float) -> Effect:
        """The same, of what began so much earlier."""
        each = tuple((pid, None if took is None else took + seconds) for pid, took in self.each)
        return replace(self, each=each, seconds=self.seconds + seconds)
