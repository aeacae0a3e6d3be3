"""What came before and may come again, remembered in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Generations(Generic[K, V]):
    """A cache in two generations: when the new one is full, the old one, unused since, is dropped.

    What is in use costs one look-up in a dictionary, where a strict order of use would cost each a write.

    Attributes:
        get: the value of a key, if it is in the new generation; `find` when it is not.

    Args:
        half: keys of a generation, so half of what is kept at most.
    """

    __slots__ = ("_half", "_new", "_old", "get")

    def __init__(self, half: int) -> None:
        self._half = half
        self._new: dict[K, V] = {}
        self._old: dict[K, V] = {}
        self.get: Callable[[K], V | None] = self._new.get

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    def find(self, key: K) -> V | None:
        """The value of a key that `get` did not have; from now on it has."""
        value = self._old.get(key)
        if value is not None:
            self.add(key, value)
        return value

    def add(self, key: K, value: V) -> None:
        """Remember it."""
        if len(self._new) >= self._half:
            self._old = self._new.copy()
            self._new.clear()  # the same dictionary, since `get` is bound to it
        self._new[key] = value


class Seen:
    """Which keys came before, as far as their marks tell: of two with one mark, the first stands for both.

    Most of what comes once never comes again: only what comes a second time is worth a place in memory.

    Args:
        places: of marks; a power of two. A key takes the place of another whose hash ends alike.
    """

    __slots__ = ("_marks",)

    def __init__(self, places: int) -> None:
        self._marks = [-1] * places

    def again(self, key: bytes) -> bool:
        """Whether it came before; from now on it has."""
        marks = self._marks
        mark = hash(key) & 0x3FFFFFFF
        place = mark & len(marks) - 1
        if marks[place] == mark:
            return True
        marks[place] = mark
        return False
