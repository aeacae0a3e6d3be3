"""What is remembered, and what is forgotten."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.generations import Generations, Seen


@given(half=st.integers(1, 5), keys=st.lists(st.integers(0, 12), max_size=80))
def test_what_was_used_of_late_is_there(half: int, keys: list[int]) -> None:
    """The last `half` keys used are known, nothing is ever wrong, and no more than two halves are kept."""
    known: Generations[int, str] = Generations(half)
    get = known.get
    used: list[int] = []
    for key in keys:
        found = get(key) or known.find(key)
        assert found in {None, str(key)}
        assert found is not None or key not in used[-half:]
        if found is None:
            known.add(key, str(key))
        used = [one for one in used if one != key] + [key]
        assert len(known) <= 2 * half
        assert get(key) == str(key)


def test_what_came_before_is_told() -> None:
    """Each key once no, then yes, while no other takes its place; never yes for what cannot have come."""
    seen = Seen(1024)
    keys = list({hash(key) & 1023: key for key in (b"%d" % number for number in range(100))}.values())
    first = [seen.again(key) for key in keys]
    assert not any(first)
    assert all(seen.again(key) for key in keys)


@given(keys=st.lists(st.integers(0, 300), max_size=300))
def test_few_places_forget(keys: list[int]) -> None:
    """With a single place the last key is known, and no other."""
    seen = Seen(1)
    last: int | None = None
    for key in keys:
        assert seen.again(b"%d" % key) == (key == last)
        last = key
