"""Callers that leave in the middle of a call: `python -m benchmarks.cancellations`.

redis-py once handed a cancelled call's reply to the next caller (redis-py#2665). Here every caller has a
limit of its own, of a capacity that nobody else has, so that a reply that went to another shows.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import machine
from benchmarks.proxy import stopped_by_signals
from benchmarks.redis_server import RedisServer, until_shared
from gateway.exchange import Terms
from gateway.state.limits import SharedLimits

WAVE = 200  # callers at once
LEAVE = 0.7  # share of the callers
LONGEST = 0.002  # seconds until a caller leaves; a call takes about one millisecond
FIRST = 10  # the smallest capacity


@dataclass(slots=True)
class Found:
    """What became of the callers.

    Attributes:
        calls: all of them.
        cancelled: those that left, `in_flight` of them after their call had gone out.
        in_flight: see above; Redis has charged these.
        served: those that stayed and were told by Redis.
        swapped: those that were told what was another's.
        alone: those that were judged without Redis.
        connections: opened to Redis by the store, beyond its first.
        seconds: how long it took.
    """

    calls: int = 0
    cancelled: int = 0
    in_flight: int = 0
    served: int = 0
    swapped: int = 0
    alone: int = 0
    connections: int = 0
    seconds: float = 0.0

    @property
    def well(self) -> bool:
        """No reply swapped, no connection lost, nobody left without an answer."""
        return (
            self.swapped == self.alone == self.connections == 0 and self.served + self.cancelled == self.calls
        )


async def offer(server: RedisServer, cancelled: int, seed: int) -> Found:
    """Call until so many callers have left."""
    found, rng, began = Found(), random.Random(seed), time.monotonic()
    limits = SharedLimits(server.url, timeout=5.0, prefix="cancel", workers=1)
    await limits.start()
    await until_shared(limits)
    connected = server.info("stats")["total_connections_received"]

    async def call(number: int) -> None:
        capacity = FIRST + number
        verdict = await limits.take([(Terms("user", capacity, 3600.0), f"u:{number}")])
        (charge,) = verdict
        if charge is None or charge[5]:
            found.alone += 1
        elif charge[:3] != (True, capacity - 1, capacity):
            found.swapped += 1
        else:
            found.served += 1

    async def leave(caller: asyncio.Task[None]) -> None:
        # Some before the call goes out, most while it is out, some when the answer is there already.
        if rng.random() < 0.5:
            for _ in range(rng.randrange(6)):
                await asyncio.sleep(0)
        else:
            await asyncio.sleep(rng.uniform(0, LONGEST))
        caller.cancel()

    while found.cancelled < cancelled:
        callers = [asyncio.create_task(call(found.calls + n)) for n in range(WAVE)]
        leaving = [asyncio.create_task(leave(one)) for one in callers if rng.random() < LEAVE]
        for result in await asyncio.gather(*callers, return_exceptions=True):
            if isinstance(result, asyncio.CancelledError):
                found.cancelled += 1
            elif result is not None:
                raise result
        await asyncio.gather(*leaving)
        found.calls += WAVE
    # Each charged call has left its counter, those of callers that left among them.
    found.in_flight = server.keys() - 1 - found.served
    found.connections = server.info("stats")["total_connections_received"] - connected - 2  # ours, for INFO
    await limits.aclose()
    found.seconds = time.monotonic() - began
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cancellations", description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000, help="that are cancelled (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(%(default)s)")
    given = parser.parse_args(arguments)
    with stopped_by_signals(), tempfile.TemporaryDirectory() as place, RedisServer(Path(place)) as server:
        found = asyncio.run(offer(server, given.calls, given.seed))
    print(json.dumps(machine.describe() | {"load": machine.load_average()}))
    print(json.dumps(asdict(found)))
    print(
        f"{found.calls:,} calls, {found.cancelled:,} cancelled, {found.in_flight:,} of them with the call "
        f"out; {found.served:,} served; replies swapped {found.swapped}, judged without Redis {found.alone}, "
        f"connections lost {found.connections}; {found.seconds:.0f} s"
    )
    return 0 if found.well else 1


if __name__ == "__main__":
    sys.exit(main())
