"""Four workers of two hosts, whose clocks are 20 s apart, before one Redis: who passes is who may."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from itertools import product
from typing import Any

import pytest

from gateway.exchange import ALGORITHMS, Terms
from tests.gateway.limits.reference import Reference, judge

WINDOW = 0.4  # seconds
WINDOWS = 4  # in which each worker has met Redis, however long they or it stood still between them
USERS = 6

# A worker of a host whose clocks are wrong by argv[2] seconds. It asks in waves of random sizes for random
# users and costs, and writes down what Redis judged, and when by Redis's own clock.
WORKER = """
import asyncio, json, random, sys, time

wrong, wall, steady = float(sys.argv[2]), time.time, time.monotonic
time.time, time.monotonic = lambda: wall() + wrong, lambda: steady() + wrong

from gateway.exchange import Terms
from gateway.state.limits import SharedLimits
from gateway.state.limits_batch import Batch

seed, specs, users, windows = int(sys.argv[3]), json.loads(sys.argv[4]), int(sys.argv[5]), int(sys.argv[6])
rng, judged, seen_in, settle = random.Random(seed), [], set(), Batch.settle

def seen(batch, reply):
    waiting, told = batch.waiting, iter(reply[2:])
    seen_in.add(reply[1] // terms[0].microseconds)
    judged.append((reply[1], [[(numbers[id(hit[0])], hit[1], next(told), next(told), next(told), next(told))
                               for hit in hits] for hits, _ in waiting]))
    return settle(batch, reply)

Batch.settle = seen
terms = [Terms(*spec[:4], cost=spec[4]) for spec in specs]
numbers = {id(one): number for number, one in enumerate(terms)}

async def main():
    limits = SharedLimits(sys.argv[1], timeout=5.0, prefix="test", workers=2)
    await limits.start()
    while not limits.up:  # the first attempt may come too late on a busy machine
        await asyncio.sleep(0.01)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    passed = 0

    async def one():
        cost = rng.randrange(2)
        hits = [(terms[0 + cost], ""), (terms[2 + cost], f"u:{rng.randrange(users)}")]
        verdict = limits.try_take(hits) or await limits.take(hits)
        assert not any(charge and charge[5] for charge in verdict), "judged locally"
        return all(charge is None or charge[0] for charge in verdict) and None not in verdict

    while len(seen_in) < windows:
        passed += sum(await asyncio.gather(*(one() for _ in range(rng.randrange(1, 40)))))
        await asyncio.sleep(0)
    await limits.aclose()
    with open(1, "w") as out:  # with a buffer, whatever stdout has: a pipe may take a part of it only
        json.dump({"passed": passed, "judged": judged}, out)

asyncio.run(main())
"""


def run(url: str, terms: list[Terms], seed: int) -> list[dict[str, Any]]:
    """What each of the workers saw."""
    specs = json.dumps([[one.limit, one.capacity, one.window, one.algorithm, one.cost] for one in terms])
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, url, str(wrong), str(seed + n), specs, str(USERS), str(WINDOWS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n, wrong in enumerate((10.0, 10.0, -10.0, -10.0))
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        told = [worker.communicate(timeout=90)[0] for worker in workers]
    finally:
        for worker in workers:  # those that have ended mind no more
            worker.kill()
            worker.wait()
    return [json.loads(one) for one in told]


@pytest.mark.parametrize(("everyone", "user"), list(product(ALGORITHMS, ALGORITHMS)))
def test_over_hosts_who_passes_is_who_may(limits_url: str, everyone: str, user: str) -> None:
    """Every verdict of every worker is the reference's, and no interval holds more than may be in it.

    A limit for all and one for each user, of each pair of algorithms, requests of one token and of three.
    """
    terms = [
        *(Terms("all", 60, WINDOW, everyone, cost=cost) for cost in (1, 3)),
        *(Terms("user", 14, WINDOW, user, cost=cost) for cost in (1, 3)),
    ]
    seen = run(limits_url, terms, seed=ALGORITHMS.index(everyone) * 10 + ALGORITHMS.index(user))
    calls = sorted(call for worker in seen for call in worker["judged"])
    assert len({now for now, _ in calls}) == len(calls)  # Redis judges one call after the other

    references: dict[tuple[str, str], Reference] = {}
    taken: dict[tuple[str, str], list[tuple[int, int]]] = {}  # when, how many tokens
    passed = 0
    for now, requests in calls:
        for request in requests:
            limits, hits = [], [(terms[number], key) for number, key, *_ in request]
            for hit in hits:
                # One count for all costs, judged by the terms of the request at hand.
                reference = references.setdefault((hit[0].limit, hit[1]), Reference(hit))
                reference.hit = hit
                limits.append(reference)
            expected = judge(now, limits)
            assert [(bool(allowed), left) for _, _, allowed, left, *_ in request] == expected
            if all(allowed for allowed, _ in expected):
                passed += 1
                for one, key in hits:
                    taken.setdefault((one.limit, key), []).append((now, one.cost))
    assert passed == sum(worker["passed"] for worker in seen)
    assert passed > 60  # more than one window's worth
    for (limit, _), charges in taken.items():
        one = terms[0 if limit == "all" else 2]
        assert over(charges, one) <= 0


def over(charges: list[tuple[int, int]], terms: Terms) -> Fraction:
    """By how many tokens the fullest interval is beyond its bound (see gateway/state/algorithms.py)."""
    capacity, window = terms.capacity, terms.microseconds
    worst = Fraction(-capacity)
    if terms.algorithm == "fixed-window":
        for index in {now // window for now, _ in charges}:
            tokens = sum(cost for now, cost in charges if now // window == index)
            worst = max(worst, Fraction(tokens - capacity))
        return worst
    for first, (begin, _) in enumerate(charges):
        tokens = 0
        for now, cost in charges[first:]:
            if now - begin > window:
                break
            tokens += cost
            worst = max(worst, tokens - capacity * (1 + Fraction(now - begin, window)))
    return worst


def test_the_measure_of_excess() -> None:
    """One token too many is seen, in a window or in a moment."""
    for algorithm in ALGORITHMS:
        terms = Terms("all", 3, 1.0, algorithm)
        assert over([(5_000_000, 3)], terms) == 0
        assert over([(5_000_000, 3), (5_000_000, 1)], terms) == 1
    assert over([(0, 3), (500_000, 3)], Terms("all", 3, 1.0, "token-bucket")) > 1
