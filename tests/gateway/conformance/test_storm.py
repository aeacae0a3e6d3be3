"""Clients that leave at random moments, in thousands: nothing of them stays.

TIDEGATE_STORM sets how many (default 2,000); 20,000 is the rehearsal before a release.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from typing import Any

import pytest

from tests.gateway.conformance.conftest import Stand
from tests.gateway.conformance.wire import Client, Message

pytestmark = pytest.mark.asyncio(loop_scope="module")
CLIENTS = int(os.environ.get("TIDEGATE_STORM", "2000"))
AT_ONCE = 100
REQUESTS = (
    b"GET /quick HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /limited HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /quick HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /quick HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000,
    b"POST /never HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"GET /quick HTTP/1.1\r\nHost: a\r\n\r\n" * 3 + b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n",
    b"NONSENSE\r\n\r\n",
)


async def _never(_: Message, __: asyncio.StreamWriter) -> None:
    """Give no answer; the connection then waits for its end."""


async def _long(_: Message, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(200):
        writer.write(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
        await writer.drain()
    writer.write(b"0\r\n\r\n")


async def _leave(stand: Stand, dice: random.Random) -> None:
    """Come, send some or all of a request, take some or nothing of the answer, and go, politely or not."""
    client = await stand.client(receive_buffer=dice.choice([0, 4096]))
    request = dice.choice(REQUESTS)
    client.send(request if dice.random() < 0.7 else request[: dice.randrange(len(request))])
    how = dice.random()
    if how < 0.3:
        await asyncio.sleep(0)
    elif how < 0.6:
        await _patience(client.reader.read(dice.choice([1, 100_000])), dice)
    if dice.random() < 0.3 and not client.writer.is_closing():
        client.end()
        await _patience(client.reader.read(1), dice)
    if dice.random() < 0.5:
        client.reset()
    else:
        client.writer.close()


async def _patience(reading: Any, dice: random.Random) -> None:
    with contextlib.suppress(TimeoutError, ConnectionError):
        await asyncio.wait_for(reading, dice.random() * 0.05)


async def test_a_storm_of_leavers_leaves_nothing(stand: Stand, until: Any, seed: int) -> None:
    """No slot, no connection, no file descriptor, no memory to speak of; and all are served as before."""
    stand.upstream.scripts |= {b"/never": _never, b"/long": _long}
    (worker,) = stand.gateway.workers()
    descriptors = worker.num_fds()
    dice = random.Random(seed)
    places = asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        async with places:
            await _leave(stand, dice)

    await asyncio.gather(*(one() for _ in range(CLIENTS)))

    async def clean() -> bool:
        return (
            await stand.in_flight() == 0
            and stand.connections() == 0
            and not stand.upstream.connections  # none is held for a client that has gone
            and worker.num_fds() <= descriptors
        )

    await until(clean, lambda: (stand.connections(), len(stand.upstream.connections), worker.num_fds()))
    assert await stand.gateway.metric("tidegate_requests_total", code="500") == 0
    answers = [await stand.gateway.fresh("/quick") for _ in range(20)]
    assert {answer.status_code for answer in answers} == {200}
    assert stand.upstream.violations == []


async def test_in_the_middle_of_a_header(stand: Stand) -> None:
    """Hundreds that leave before their first line ends are never asked about at the upstream."""
    stand.upstream.seen.clear()

    async def one() -> Client:
        client = await stand.client()
        client.send(b"GET / HT")
        client.reset()
        return client

    await asyncio.gather(*(one() for _ in range(300)))
    assert (await stand.gateway.fresh("/")).status_code == 200
    assert [message.target for message in stand.upstream.seen] == [b"/"]
