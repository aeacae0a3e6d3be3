"""When people come to a flash sale: few before it opens, a wall at its opening, fewer and fewer after it."""

from __future__ import annotations

from random import Random

OPENS = 0.25  # of the time, at which the sale opens
WALL = 0.15  # of the time, in which the crowd arrives
BEFORE, AT_ONCE = 0.12, 0.63  # of the people: early ones, and the wall; the rest trickles in


def arrivals(people: int, seconds: float, seed: int = 0) -> list[float]:
    """When each of so many people comes, in order.

    The plan does not wait for answers: a slow shop meets the same crowd (open-loop).

    Args:
        people: how many, 1 or more.
        seconds: from the first to the last, at most.
        seed: another crowd of the same shape.

    Returns:
        Seconds from the beginning, ascending, each within 0 and `seconds`.
    """
    random = Random(seed)  # noqa: S311 - no secret
    return sorted(_moment(random) * seconds for _ in range(people))


def _moment(random: Random) -> float:
    """When one comes, as a share of the time."""
    who = random.random()
    if who < BEFORE:
        return random.uniform(0.0, OPENS)
    if who < BEFORE + AT_ONCE:
        return OPENS + WALL * _early(random)
    return OPENS + WALL + (1.0 - OPENS - WALL) * _early(random)


def _early(random: Random) -> float:
    """Between 0 and 1, densest at 0."""
    share = random.random()
    return share * share
