"""Users take turns, however much one of them asks for."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.policies.fair_queue import FairQueue

Ticket = tuple[str, int]


def test_each_user_has_a_turn_before_any_has_two() -> None:
    """The first who came first; or the newest, who waits still."""
    for newest, expected in ((False, ["a1", "b4", "c5", "a2", "a3"]), (True, ["c5", "b4", "a3", "a2", "a1"])):
        queue: FairQueue[str] = FairQueue()
        for ticket in ("a1", "a2", "a3", "b4", "c5"):
            queue.add(ticket[0], ticket)
        assert [queue.take(newest=newest) for _ in range(5)] == expected
        assert len(queue) == 0


def test_nobody_is_taken_from_an_empty_queue() -> None:
    """A mistake of the caller's."""
    with pytest.raises(IndexError):
        FairQueue[str]().take()


def test_one_who_has_left_is_not_taken() -> None:
    """And leaves once."""
    queue: FairQueue[str] = FairQueue()
    queue.add("a", "a1")
    assert queue.remove("a1")
    assert not queue.remove("a1")
    assert len(queue) == 0


def test_a_turn_is_remembered_while_nobody_of_the_user_waits() -> None:
    """Who was served a moment ago comes after one who was not, also when the latter comes later."""
    queue: FairQueue[str] = FairQueue()
    queue.add("a", "a1")
    assert queue.take() == "a1"
    queue.add("a", "a2")
    queue.add("b", "b1")
    assert queue.take() == "b1"


def test_a_place_is_taken_from_who_holds_most() -> None:
    """His last; and nobody's by one who would come last himself."""
    queue: FairQueue[str] = FairQueue()
    for ticket in ("a1", "a2", "a3"):
        queue.add("a", ticket)
    assert queue.push_out("a") is None
    assert queue.push_out("b") == "a3"
    assert queue.push_out("b", newest=True) == "a1"
    assert queue.push_out("b") is None  # one place of a's is left: as good as one of b's
    assert FairQueue[str]().push_out("a") is None


EVENTS = st.lists(st.tuples(st.sampled_from(["come", "take", "leave"]), st.integers(0, 9)), max_size=200)


@given(EVENTS, st.integers(1, 6), st.booleans())
def test_everybody_is_taken_pushed_out_or_leaves_once(
    events: list[tuple[str, int]], places: int, newest: bool
) -> None:
    """In any order; and there are never more than there are places."""
    queue: FairQueue[Ticket] = FairQueue()
    inside: set[Ticket] = set()
    for number, (kind, user) in enumerate(events):
        if kind == "come":
            if len(queue) >= places:
                loser = queue.push_out(str(user), newest=newest)
                if loser is None:
                    continue
                inside.remove(loser)
            queue.add(str(user), (str(user), number))
            inside.add((str(user), number))
        elif kind == "take" and inside:
            inside.remove(queue.take(newest=newest))
        elif kind == "leave" and inside:
            gone = sorted(inside)[user % len(inside)]
            assert queue.remove(gone)
            inside.remove(gone)
        assert len(queue) == len(inside) <= places


@settings(max_examples=30, deadline=None)
@given(
    users=st.integers(5, 40),
    times=st.integers(2, 50),
    places=st.integers(4, 32),
    crowd=st.integers(3, 12),
    seed=st.integers(0, 9),
    newest=st.booleans(),
)
def test_the_greedy_get_no_more_than_their_share(
    users: int, times: int, places: int, crowd: int, seed: int, newest: bool
) -> None:
    """While it is full: one asks up to 50 times as often as any other; `crowd` come for each that is served.

    All want more than their share, so shares are equal; what the short memory of few places costs is little.
    """
    rng, served = random.Random(seed), Counter[str]()
    queue: FairQueue[Ticket] = FairQueue()
    names = [f"{seed}:{n}" for n in range(users)]
    weights = [float(times)] + [1.0] * (users - 1)
    number = 0
    for _ in range(30 * users):
        for who in rng.choices(names, weights, k=max(crowd, 3 * (users + times) // users)):
            number += 1
            if len(queue) >= places:
                loser = queue.push_out(who, newest=newest)
                if loser is None:
                    continue
            queue.add(who, (who, number))
        if len(queue) >= places:
            served[queue.take(newest=newest)[0]] += 1
    share = sum(served.values()) / users
    assert served[names[0]] <= 2 * share + 5
