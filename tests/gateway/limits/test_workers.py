"""Limits that the workers of one host count together, without Redis: real processes on one table."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.exchange import ALGORITHMS
from gateway.state.counters import WAYS, SharedCounters, shared_memory
from gateway.state.limits_local import LocalLimits
from tests.clock import Clock
from tests.gateway.limits.reference import Reference, hit_of, judge, told

CLOCK = 1_760_000_000.0  # one moment: what passes is the capacity, however long the test takes

WORKER = """
import sys, time
from gateway.exchange import Terms
from gateway.state import shared_lock
from gateway.state.counters import SharedCounters
from gateway.state.limits_local import LocalLimits

shared_lock.PATIENCE = 30.0  # a busy machine may take the processor from whoever has the lock
counters = SharedCounters(int(sys.argv[1]))
limits = LocalLimits(counters, workers=4, clock=lambda: float(sys.argv[2]))
hits = [(Terms("global", 1000, 60.0, sys.argv[3]), ""), (Terms("user", 10, 60.0, sys.argv[3]), "")]
print("ready", flush=True)
sys.stdin.readline()
passed = 0
for n in range(int(sys.argv[4])):
    verdict = limits.judge([hits[0], (hits[1][0], f"u:{n % 150}")])
    passed += all(charge[0] for charge in verdict)
    assert not any(charge[5] for charge in verdict), "judged alone"
print(passed, flush=True)
"""

HOLD = """
import signal, sys
from gateway.state.counters import SharedCounters

lock = SharedCounters(int(sys.argv[1])).lock
assert lock.attempt(lock.address) == 0
print("ready", flush=True)
"""
HOLDER = HOLD + "sys.stdin.readline()"

# The same as a fork, which its parent kills as soon as somebody says a word: it must not read that itself.
FORKED_HOLDER = f"""
import os, signal, sys

if pid := os.fork():
    sys.stdin.readline()
    os.kill(pid, signal.SIGKILL)
    os.wait()
    sys.exit()
{HOLD}
signal.pause()"""


@pytest.fixture
def memory() -> Iterator[int]:
    """Memory for counters that processes share."""
    fd = shared_memory()
    assert fd >= 0
    yield fd
    os.close(fd)


def spawn(script: str, fd: int, *words: object) -> subprocess.Popen[str]:
    """A process that has the counters, once it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(fd), *map(str, words)],
        pass_fds=[fd],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_four_workers_admit_exactly_the_capacity(memory: int, algorithm: str) -> None:
    """150 users of 10 each, 1000 in all, asked for by four processes at once: 1000 pass."""
    workers = [spawn(WORKER, memory, CLOCK, algorithm, 1500) for _ in range(4)]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    assert sum(int(worker.communicate(timeout=60)[0]) for worker in workers) == 1000
    limits = LocalLimits(SharedCounters(memory), clock=lambda: CLOCK)
    left = [told(limits.judge([hit_of("user", f"u:{n}", 10, 60.0, algorithm)]))[0] for n in range(150)]
    assert sum(10 - charge.remaining - charge.allowed for charge in left) == 1000


@pytest.mark.parametrize("script", [HOLDER, FORKED_HOLDER], ids=["started", "forked"])
def test_a_worker_killed_while_it_counts(memory: int, script: str) -> None:
    """Whoever dies holding the lock leaves it to the next, and what was counted stays."""
    limits = LocalLimits(SharedCounters(memory), workers=2, clock=lambda: CLOCK)
    hit = hit_of("user", "u", 3, 60.0)
    limits.try_take([hit])
    holder = spawn(script, memory)
    if script is HOLDER:
        holder.kill()
        holder.wait()
    else:
        holder.communicate("now\n", timeout=60)
    (charge,) = told(limits.try_take([hit]))
    assert charge.remaining == 1
    assert not charge.fallback
    assert limits.up


def test_a_worker_stopped_while_it_counts(memory: int) -> None:
    """Others judge their own part meanwhile, without waiting for it again; then together as before."""
    limits = LocalLimits(SharedCounters(memory), workers=2, clock=lambda: CLOCK)
    hit = hit_of("user", "u", 10, 60.0)
    limits.try_take([hit])
    holder = spawn(HOLDER, memory)
    os.kill(holder.pid, signal.SIGSTOP)
    alone = [told(limits.try_take([hit]))[0] for _ in range(20)]
    assert all(charge.fallback for charge in alone)
    assert sum(charge.allowed for charge in alone) == 5
    assert not limits.up
    holder.kill()
    holder.wait()
    (charge,) = told(limits.judge([hit]))
    assert charge.remaining == 8
    assert limits.up


def test_a_new_worker_goes_on_counting(memory: int) -> None:
    """Counters are the host's: a worker that takes another's place finds them."""
    hit = hit_of("user", "u", 3, 60.0)
    for left in (2, 1, 0):
        limits = LocalLimits(SharedCounters(memory), workers=2, clock=lambda: CLOCK)
        assert told(limits.try_take([hit]))[0].remaining == left


amounts = st.lists(
    st.tuples(st.integers(0, 3_000_000), st.integers(0, 5), st.integers(0, 1)), min_size=1, max_size=60
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(algorithm=st.sampled_from(ALGORITHMS), schedule=amounts)
def test_two_workers_and_the_reference_agree(memory: int, algorithm: str, schedule: list[Any]) -> None:
    """Request by request, from either worker, the verdict is that of exact arithmetic on one counter."""
    clock = Clock(CLOCK)
    workers = [LocalLimits(SharedCounters(memory), workers=2, clock=clock) for _ in range(2)]
    name = os.urandom(8).hex()  # counters of its own for each example
    hits = [hit_of(name, f"u:{n}", 3, 1.0, algorithm) for n in range(6)]
    references = [Reference(hit) for hit in hits]
    for pause, user, worker in schedule:
        clock.now += pause / 1e6
        (charge,) = told(workers[worker].judge([hits[user]]))
        assert [(charge.allowed, charge.remaining)] == judge(round(clock.now * 1e6), [references[user]])


def test_the_largest_rate_fits(memory: int) -> None:
    """Figures beyond 64 bits survive the table, exactly."""
    limits = LocalLimits(SharedCounters(memory), clock=lambda: CLOCK)
    hit = hit_of("limit", "k", 10**9, 31 * 86400.0, "token-bucket", cost=10**9 - 5)
    limits.judge([hit])
    (charge,) = told(limits.judge([hit_of("limit", "k", 10**9, 31 * 86400.0, "token-bucket")]))
    assert charge.remaining == 4


def test_a_full_table_forgets_what_is_whole_soonest() -> None:
    """Memory is bounded: who is limited for longest is forgotten last, and what is whole takes no place."""
    fd = shared_memory(WAYS)  # one bucket
    clock = Clock(CLOCK)
    counters = SharedCounters(fd)
    limits = LocalLimits(counters, clock=clock)
    day = hit_of("day", "u", 1, 86400.0)
    limits.judge([day])
    for n in range(50):
        limits.judge([hit_of("minute", f"u:{n}", 1, 60.0)])
    assert len(counters) == WAYS
    assert not told(limits.judge([day]))[0].allowed
    clock.now += 200
    assert told(limits.judge([hit_of("minute", "new", 1, 60.0)]))[0].allowed
    assert not told(limits.judge([day]))[0].allowed
    os.close(fd)


# ---- a whole gateway -------------------------------------------------------------------------


async def test_a_gateway_without_redis_is_exact_over_its_workers(start_gateway: Any, until: Any) -> None:
    """Wherever connections land, exactly the limit passes; also when a worker is killed on the way."""
    gateway = await start_gateway(
        listen={"port": 0, "workers": 2, "drain": "30s"},
        limits={"all": {"rate": "30/day", "per": "global", "algorithm": "fixed-window"}},
        routes=[{"match": "/**", "upstream": "shop", "limits": ["all"]}],
    )
    codes = [(await gateway.fresh()).status_code for _ in range(20)]
    assert codes == [200] * 20
    gateway.workers()[0].kill()

    async def both() -> bool:
        return await gateway.metric("tidegate_worker_restarts_total") == 1 and (
            await gateway.metric("tidegate_workers") == 2
        )

    await until(both)
    codes = [(await gateway.fresh()).status_code for _ in range(20)]
    assert codes == [200] * 10 + [429] * 10
