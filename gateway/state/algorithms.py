"""The algorithms of limits over a state of plain numbers; the same as in lua/take.lua.

A state is eight whole numbers. The first and the last belong to whoever keeps it, the second says when the
quota is whole again, the others are the algorithm's own, 0 at the beginning. Times are whole microseconds, as
in Redis.

- **sliding window**: the weighted pair of fixed windows of Cloudflare's "How we built rate limiting capable
  of scaling to millions of domains" (2017): the window before counts for as much of it as still overlaps the
  last `window`. Two things are stricter or kinder here: the weighted part is never rounded down, so that a
  burst across a boundary gains nothing; and the window before weighs nothing once its last hit is more than
  a window old, so that "1/minute" is one a minute and not one every two.
- **fixed window**: windows aligned to the clock.
- **token bucket**: the generic cell rate algorithm in its continuous-state leaky bucket form (ITU-T I.371,
  A.1): a debt of `window` per token taken, in token·microseconds, that drains by `capacity` a microsecond. It
  stays exact where a theoretical arrival time would need fractions of a microsecond.

How much they admit, C being the capacity and W the window:

- fixed window: at most C in each window, hence up to 2 C within a moment around a boundary.
- token bucket: in any interval of length T at most C (1 + T/W): the bucket, and what drains meanwhile.
- sliding window: at most C in each aligned window, and **at most C (1 + T/W) in any interval of T ≤ W**.
  Proof. Let the interval reach from window k into window k+1, up to offset e there; e ≤ T. Of the b ≤ C
  tokens of window k, b₁ are in the interval. The last admission in window k+1 before e was at some d < e.
  If the window before weighed nothing then, its last hit's offset is at most d, while the interval, being no
  longer than W, begins in it after d: b₁ = 0, and the total is at most C. Otherwise what window k+1 had
  admitted, that one included, was at most C - b (W - d)/W ≤ C - b (W - e)/W, and the total is at most
  b₁ + C - b + b e/W ≤ C + b e/W ≤ C (1 + T/W). For T = W and hits of window k that came evenly,
  b₁ = b (W - e)/W, it is C: the excess is how much later than evenly they came, and all that is estimated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from gateway.exchange import ALGORITHMS

State = tuple[int, ...]  # eight; were that said, mypyc would make each anew wherever it goes
Taken = tuple[State, int]  # the state then, tokens left
Look = tuple[
    int, int, int
]  # tokens left, microseconds until whole, microseconds until the request's tokens are there

NEW: State = (0,) * 8

_HALF: Final = 62  # bits of a debt that go into one number; the largest rates need more than fit in 64
_LOW: Final = (1 << _HALF) - 1


# ---- sliding window: where it began, hits in it, in the one before, offsets of the last hit of each -


def _sliding_admit(state: State, now: int, quota: int, window: int, cost: int) -> Taken | None:
    begin, current, before, last, before_last = state[2], state[3], state[4], state[5], state[6]
    elapsed = now - begin
    if not 0 <= elapsed < window:
        adjacent = window <= elapsed < 2 * window
        elapsed = now % window
        if now > begin:
            before, before_last = (current, last) if adjacent else (0, 0)
            current = last = 0
        begin = now - elapsed
    room = float(quota - current - cost)
    if elapsed < before_last:
        room -= before * (window - elapsed) / window
    if room < 0:
        return None
    if elapsed > last:
        last = elapsed
    until = begin + window + last
    return (state[0], until, begin, current + cost, before, last, before_last, state[7]), int(room)


def _slid(state: State, now: int, window: int) -> tuple[int, int, int, int, int]:
    """Since the window of now began, hits in it and in the one before, offsets of the last hit of each."""
    begin, current, before, last, before_last = state[2], state[3], state[4], state[5], state[6]
    elapsed = now % window
    if now - elapsed > begin:
        before, before_last = (current, last) if now - elapsed == begin + window else (0, 0)
        current = last = 0
    return elapsed, current, before, last, before_last


def _sliding_look(state: State, now: int, quota: int, window: int, cost: int) -> Look:
    elapsed, current, before, last, before_last = _slid(state, now, window)
    weight = before * (window - elapsed) / window if elapsed < before_last else 0.0
    left = quota - current - weight
    reset = window - elapsed + last if current else max(0, before_last - elapsed) if before else 0
    if left >= cost:
        return int(left), reset, 0
    free = quota - current - cost
    if free >= 0:  # the window before is in the way
        wait = min(before_last, math.ceil(window - free * window / before)) - elapsed
    else:
        slid_out = math.ceil(window - (quota - cost) * window / current)
        wait = window - elapsed + min(last, slid_out)
    return max(0, int(left)), reset, max(1, wait)


def _sliding_fill(state: State, now: int, quota: int, window: int, tokens: int) -> State:
    elapsed, current, before, last, before_last = _slid(state, now, window)
    if tokens <= current + (before * (window - elapsed) / window if elapsed < before_last else 0):
        return state
    begin, last, before_last = now - elapsed, elapsed, window
    current = max(current, tokens * elapsed // window)
    before = min(quota, (tokens - current) * window // (window - elapsed))
    return state[0], begin + window + last, begin, current, before, last, before_last, state[7]


# ---- fixed window: where it began, hits in it -----------------------------------------------------------


def _fixed_admit(state: State, now: int, quota: int, window: int, cost: int) -> Taken | None:
    begin = now - now % window
    current = (state[3] if begin <= state[2] else 0) + cost
    if current > quota:
        return None
    return (state[0], begin + window, begin, current, 0, 0, 0, state[7]), quota - current


def _fixed_look(state: State, now: int, quota: int, window: int, cost: int) -> Look:
    elapsed = now % window
    current = state[3] if now - elapsed <= state[2] else 0
    left, reset = quota - current, window - elapsed
    return max(0, left), reset if current else 0, 0 if left >= cost else reset


def _fixed_fill(state: State, now: int, _: int, window: int, tokens: int) -> State:
    begin = now - now % window
    current = state[3] if begin <= state[2] else 0
    return state[0], begin + window, begin, max(current, tokens), 0, 0, 0, state[7]


# ---- token bucket: the debt's upper and lower bits, and when it was reckoned ------------------


def _debt(state: State, now: int, quota: int) -> int:
    return max(0, (state[2] << _HALF) + state[3] - max(0, now - state[4]) * quota)


def _bucket_admit(state: State, now: int, quota: int, window: int, cost: int) -> Taken | None:
    debt = _debt(state, now, quota) + cost * window
    left = quota * window - debt
    if left < 0:
        return None
    return (state[0], now - -debt // quota, debt >> _HALF, debt & _LOW, now, 0, 0, state[7]), left // window


def _bucket_look(state: State, now: int, quota: int, window: int, cost: int) -> Look:
    debt = _debt(state, now, quota)
    left, reset = (quota * window - debt) // window, -(-debt // quota)
    short = debt + cost * window - quota * window
    return max(0, left), reset, max(1, -(-short // quota)) if short > 0 else 0


def _bucket_fill(state: State, now: int, quota: int, window: int, tokens: int) -> State:
    debt = max(_debt(state, now, quota), tokens * window)
    return state[0], now - -debt // quota, debt >> _HALF, debt & _LOW, now, 0, 0, state[7]


# (state, now, quota, window, cost): charges, or None when there is no room; looks, and changes nothing.
ADMIT: tuple[Callable[[State, int, int, int, int], Taken | None], ...] = (
    _sliding_admit,
    _fixed_admit,
    _bucket_admit,
)
LOOK: tuple[Callable[[State, int, int, int, int], Look], ...] = (_sliding_look, _fixed_look, _bucket_look)
# (state, now, quota, window, tokens): at least so many were taken, evenly over the last window.
FILL: tuple[Callable[[State, int, int, int, int], State], ...] = (_sliding_fill, _fixed_fill, _bucket_fill)
assert len(ADMIT) == len(LOOK) == len(FILL) == len(ALGORITHMS)  # noqa: S101 - numbered alike
