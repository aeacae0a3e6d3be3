"""How many buyers still reach a shop that has said "sold out" once: `python -m benchmarks.sold_out`."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from benchmarks import machine
from benchmarks.processes import Command, Process, accepts, free_port

HELD = 60  # seconds; the longest that a gateway holds an answer
BODY = b'{"sku": "card"}'
GONE = (
    b"HTTP/1.1 410 Gone\r\nTidegate-Shut: sku=card; for=%d\r\nContent-Type: application/json\r\n"
    b"Content-Length: 19\r\n\r\n" % HELD
) + b'{"title":"no more"}'
CONFIG = """\
listen: {{port: {port}, workers: {workers}}}
admin: {{port: {admin}}}
upstreams: {{shop: {{servers: ["http://127.0.0.1:{shop}"]}}}}
routes: [{{match: /api/orders, methods: [POST], upstream: shop, shut: {{sku: body}}}}]
"""


class Shop:
    """Says that it is sold out, and counts who asks."""

    def __init__(self) -> None:
        self.asked = 0
        self.lines: set[asyncio.Task[None] | None] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of the gateway's."""
        self.lines.add(asyncio.current_task())
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    int(line[15:])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length:")
                )
                await reader.readexactly(length)
                self.asked += 1
                writer.write(GONE)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


async def _buy(port: int, turns: Iterator[int], answers: Counter[int]) -> None:
    """Buyers one after the other over one connection, each with an Idempotency-Key of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for turn in turns:
        writer.write(
            b"POST /api/orders HTTP/1.1\r\nHost: shop.test\r\nContent-Type: application/json\r\n"
            b"Idempotency-Key: buyer-%d\r\nContent-Length: %d\r\n\r\n%b" % (turn, len(BODY), BODY)
        )
        head = await reader.readuntil(b"\r\n\r\n")
        answers[int(head[9:12])] += 1
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length))
    writer.close()


async def _measure(workers: int, buyers: int, connections: int) -> int:
    """Offer the buyers; returns the exit code."""
    shop = Shop()
    server = await asyncio.start_server(shop.serve, "127.0.0.1", 0, backlog=4096)
    port, answers = free_port(), Counter[int]()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        config = folder / "gateway.yaml"
        config.write_text(
            CONFIG.format(
                port=port, admin=free_port(), workers=workers, shop=server.sockets[0].getsockname()[1]
            ),
            encoding="utf-8",
        )
        command = Command([sys.executable, "-m", "gateway", "serve", "--config", str(config)], {})
        with Process(command, core=machine.PEER_CORE, folder=folder, name="tidegate") as gateway:
            await asyncio.to_thread(gateway.wait_until, lambda: accepts(port))
            await _buy(port, iter(range(-1, 0)), answers)  # the one who is told, and whose answer is held
            first, began, spent = shop.asked, time.monotonic(), gateway.cpu_seconds()
            turns = iter(range(buyers))
            async with asyncio.timeout(HELD - 5):  # beyond it the gateway may rightly ask anew
                await asyncio.gather(*(_buy(port, turns, answers) for _ in range(connections)))
            seconds, cpu = time.monotonic() - began, gateway.cpu_seconds() - spent
        await asyncio.gather(*filter(None, shop.lines))
    server.close()
    reached = shop.asked - first
    print(json.dumps(machine.describe()))
    print(
        f"{buyers:,} buyers after one Tidegate-Shut, {workers} workers, {connections} connections: "
        f"{reached} reached the shop (at most {workers * 2}); answers {dict(answers)}; "
        f"{seconds:.1f} s, {cpu / buyers * 1e6:.0f} µs of CPU each"
    )
    return 0 if reached <= workers * 2 and answers == {410: buyers + 1} else 1


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sold_out", description=__doc__)
    parser.add_argument("--buyers", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--connections", type=int, default=64)
    given = parser.parse_args()
    return asyncio.run(_measure(given.workers, given.buyers, given.connections))


if __name__ == "__main__":
    sys.exit(main())
