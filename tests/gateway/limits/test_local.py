"""Limits of one worker."""

from __future__ import annotations

from gateway.state.counters import OwnCounters
from gateway.state.limits_local import LocalLimits
from tests.gateway.limits.reference import hit_of, told


def test_a_refusal_charges_nothing() -> None:
    """When one limit refuses, the others keep their tokens."""
    limits = LocalLimits(clock=lambda: 0.0)
    ip, user = hit_of("ip", "a", 1, 60.0), hit_of("user", "u", 1, 60.0)
    limits.try_take([ip])

    assert [charge.allowed for charge in told(limits.try_take([user, ip]))] == [True, False]

    (charge,) = told(limits.try_take([user]))
    assert charge.allowed


def test_a_worker_admits_its_share() -> None:
    """Capacity ÷ workers, and at least one."""
    limits = LocalLimits(workers=4, clock=lambda: 0.0)
    assert sum(limits.judge([hit_of("a", "", 20, 60.0)])[0][0] for _ in range(20)) == 5
    assert sum(limits.judge([hit_of("b", "", 2, 60.0)])[0][0] for _ in range(20)) == 1


def test_a_shadow_limit_never_refuses_and_stays_as_if_enforced() -> None:
    """A full shadow limit is reported; the enforced one beside it goes on."""
    limits = LocalLimits(clock=lambda: 0.0)
    shadow, real = hit_of("shadow", "", 1, 60.0, shadow=True), hit_of("real", "", 3, 60.0)
    verdicts = [[charge.allowed for charge in told(limits.try_take([shadow, real]))] for _ in range(4)]
    assert verdicts == [[True, True], [False, True], [False, True], [False, False]]


def test_a_million_keys_cost_bounded_memory() -> None:
    """The longest unused counters go; those in use stay."""
    limits = LocalLimits(OwnCounters(1000), clock=lambda: 0.0)
    busy = hit_of("limit", "busy", 1_000_000, 60.0)
    for n in range(20_000):
        limits.try_take([busy, hit_of("limit", f"u:{n}", 1, 60.0)])
    assert len(limits) <= 1000
    (charge,) = told(limits.try_take([busy]))
    assert charge.remaining == 1_000_000 - 20_001
