"""What became of the checks of one limit, and of whom."""

from __future__ import annotations

from gateway.busiest import Busiest


class LimitTally:
    """Plain numbers, read when metrics are due; the policy adds to them.

    Attributes:
        allowed: requests that passed.
        denied: those that were refused.
        shadow: those that would have been, were the limit enforced.
        fallback: those judged while the shared store was away.
        near: admitted with 80 % of the quota used, or more.
        busiest: keys that are at the limit, or near it.
    """

    __slots__ = ("allowed", "busiest", "denied", "fallback", "near", "shadow")

    def __init__(self) -> None:
        self.allowed = 0
        self.denied = 0
        self.shadow = 0
        self.fallback = 0
        self.near = 0
        self.busiest = Busiest()
