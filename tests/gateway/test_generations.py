"""What is remembered, and what is forgotten."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.generations import Generations


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
