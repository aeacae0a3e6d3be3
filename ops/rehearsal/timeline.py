"""The rehearsal second by second: how requests ended, how long they took, where the ladder stood."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ops.rehearsal.notes import Note, percentile
from ops.rehearsal.watch import Glance

KINDS = ("good", "degraded", "refused", "limited", "shed", "failed", "lost")  # from well to sick
_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)  # seconds between two marks of an axis
_MARKS = 8  # on an axis, at most
_WIDTH = 60  # of a line of bars
_BARS = " ▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Second:
    """One second.

    Attributes:
        number: counted from the first arrival.
        kinds: requests that ended in it, by how.
        p95: seconds that 95 of 100 of them took at most.
        step: rung of the ladder.
        pressure: 1 is full.
    """

    number: int
    kinds: Counter[str]
    p95: float
    step: int
    pressure: float

    @property
    def requests(self) -> int:
        """How many ended."""
        return sum(self.kinds.values())


def seconds(requests: Sequence[Note], glances: Sequence[Glance]) -> list[Second]:
    """Every second from the first to the last, those too in which nothing ended."""
    by_second: dict[int, list[Note]] = {}
    for note in requests:
        by_second.setdefault(int(note.at + note.took), []).append(note)
    last = max(by_second, default=-1)
    found = []
    for number in range(last + 1):
        notes = by_second.get(number, [])
        seen = [glance for glance in glances if glance.at < number + 1]
        found.append(
            Second(
                number,
                Counter(note.kind for note in notes),
                percentile((note.took for note in notes), 0.95),
                seen[-1].step if seen else 0,
                seen[-1].pressure if seen else 0.0,
            )
        )
    return found


def marks(count: int) -> list[int]:
    """Which of so many seconds an axis names: round ones, from 0, a few."""
    step = next((step for step in _STEPS if count <= step * _MARKS), -(-count // _MARKS))
    return list(range(0, count, step))


def axis(count: int, width: int = _WIDTH) -> str:
    """The first and the last second below `bars` of so many values, as wide as they are."""
    if not count:
        return ""
    group = -(-count // width)
    first, last, wide = "0 s", f"{count - 1} s", -(-count // group)
    if wide <= len(first) + len(last):
        return first.ljust(wide)[:wide]
    return first + last.rjust(wide - len(first))


def bars(values: Sequence[float], width: int = _WIDTH) -> str:
    """Values as one line of bars, the highest full; of more than `width` the highest of each group."""
    if not values:
        return ""
    group = -(-len(values) // width)
    tops = [max(values[start : start + group]) for start in range(0, len(values), group)]
    highest = max(tops)
    return "".join(
        _BARS[-(-int(top * 1000) * 8 // max(1, int(highest * 1000)))] if top else " " for top in tops
    )
