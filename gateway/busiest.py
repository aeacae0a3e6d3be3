"""The keys seen most often, in a memory that does not grow with how many there are.

Space-Saving (Metwally, Agrawal and El Abbadi, "Efficient Computation of Frequent and Top-k Elements in Data
Streams", ICDT 2005): a key that is not among those kept takes the place of the least, and its count as an
error. So a count is never too small, too large by its error at most, and whoever made more than one in
`size` of all sightings is kept.
"""

from __future__ import annotations

from collections import Counter

SIZE = 64  # keys kept; whoever has 1.6 % of all sightings is among them
TOGETHER = 1024  # sightings counted at once: each key among them is looked up, or takes a place, once


class Busiest:
    """Counts sightings of keys.

    Args:
        size: how many keys are kept.
        together: how many sightings are counted at once.
    """

    __slots__ = ("_counts", "_errors", "_floor", "_least", "_size", "_together", "_uncounted")

    def __init__(self, size: int = SIZE, together: int = TOGETHER) -> None:
        self._size = size
        self._together = together
        self._counts: dict[str, int] = {}
        self._errors: dict[str, int] = {}
        self._floor = 0  # the smallest count when last looked
        self._least: list[str] = []  # and those that had it
        self._uncounted: list[str] = []

    def __len__(self) -> int:
        self._settle()
        return len(self._counts)

    def see(self, key: str) -> None:
        """Count one sighting."""
        self._uncounted.append(key)
        if len(self._uncounted) >= self._together:
            self._settle()

    def top(self, most: int) -> list[tuple[str, int, int]]:
        """Those seen most: key, count, and by how much that may be too large."""
        self._settle()
        best = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))[:most]
        return [(key, count, self._errors.get(key, 0)) for key, count in best]

    def halve(self) -> None:
        """Let what is long ago weigh less.

        Counts are rounded up and errors down, lest nothing be left of a count but its error.
        """
        self._settle()
        self._counts = {key: (count + 1) // 2 for key, count in self._counts.items() if count > 1}
        self._errors = {key: error // 2 for key, error in self._errors.items() if key in self._counts}
        self._least = []

    def _settle(self) -> None:
        uncounted, self._uncounted = self._uncounted, []
        counts = self._counts
        for key, times in Counter(uncounted).items():
            seen = counts.get(key)
            if seen is not None:
                counts[key] = seen + times
            elif len(counts) < self._size:
                counts[key] = times
            else:
                self._replace(key, times)

    def _replace(self, key: str, times: int) -> None:
        counts = self._counts
        gone = self._least.pop() if self._least else ""
        while counts.get(gone) != self._floor:  # seen again since
            if not self._least:
                # Looked for once for all that have it, so a flood of strangers costs little each.
                self._floor = min(counts.values())
                self._least = [one for one, count in counts.items() if count == self._floor]
            gone = self._least.pop()
        least = self._floor
        del counts[gone]
        self._errors.pop(gone, None)
        counts[key] = least + times
        self._errors[key] = least
