"""Who lives, as the workers of all hosts learn it from Redis."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from gateway.state.limits_link import ALIVE

KEYS = ("{test}:limit-workers", "{test}:limit-workers-settled")
LIFE = 5_000  # milliseconds
NOON = 1_760_000_000_000  # milliseconds
ON_TEST_TIME = ALIVE.replace("redis.call('TIME')", "cjson.decode(ARGV[6])")


def say(
    url: str, who: str, now: int, *, since: int = 0, life: int = LIFE, settled: bool = False
) -> list[int]:
    """What a worker is told at a moment, when it says that it lives: alive, present, settled, now."""
    with redis.Redis.from_url(url) as client:
        clock = f"[{now // 1000},{now % 1000 * 1000}]"
        said: Any = client.eval(ON_TEST_TIME, 2, *KEYS, "7", who, life, since, 1 + settled, clock)  # type: ignore[arg-type]  # redis-py wants text
    assert said[0] == b"7"
    return list(said[1:])


def test_the_test_moves_the_scripts_clock() -> None:
    """The replacement above still finds its place in the script."""
    assert "TIME" not in ON_TEST_TIME


def test_who_is_silent_is_dead_and_who_leaves_is_gone(limits_url: str) -> None:
    """Each is counted for as long as it said, and among those who said something since a moment."""
    assert say(limits_url, "a", NOON) == [1, 1, 0, NOON]
    assert say(limits_url, "b", NOON + 4_000, since=NOON + 1, settled=True) == [2, 1, 1, NOON + 4_000]
    assert say(limits_url, "c", NOON + 5_000, since=NOON + 4_000)[:3] == [2, 1, 0]
    assert say(limits_url, "b", NOON + 5_001, since=NOON, life=0)[:1] == [1]


@pytest.mark.parametrize("back", [1_000, 3_600_000])
def test_a_clock_that_is_set_back_makes_nobody_present(limits_url: str, back: int) -> None:
    """Who spoke before that is not taken for one who spoke since, and the dead don't live on till then."""
    for who in "abc":
        say(limits_url, who, NOON, settled=True)
    then = NOON - back
    assert say(limits_url, "d", then, since=then - 1) == [1, 1, 0, then]
    assert say(limits_url, "a", then + 1, since=then - 1, settled=True) == [2, 2, 1, then + 1]
