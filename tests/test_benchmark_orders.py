"""The sale that is measured: what is counted, how answers are read, what the mail server says."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import aiosmtplib
import pytest

from benchmarks.orders import curves
from benchmarks.orders.buyers import Bought
from benchmarks.orders.mailbox import Mailbox
from benchmarks.orders.sale import Outcome
from benchmarks.orders.wire import Broken, Line


def test_a_sale_is_counted_after_its_warm_up_and_while_buyers_come() -> None:
    """Keys seen too early or after the end are no part of the rate; curves hold every second."""
    moments = [1.0, 6.0, 6.5, 14.9, 15.1, None]
    bought = [Bought(str(n), 0.0, 0.1, paid=0.5, delivered=moment) for n, moment in enumerate(moments)]
    outcome = Outcome(15.0, 0.0, bought, Counter())
    assert outcome.per_minute == 3 * 60 / 10
    assert len(outcome.delivered) == 5
    assert (sum(outcome.curve()), len(outcome.curve())) == (5, 16)
    waiting = curves.waiting(outcome.paid_curve(), outcome.curve())
    assert (waiting[0], waiting[1], waiting[-1]) == (6, 5, 1)


@pytest.mark.parametrize(
    "pieces",
    [
        [b"HTTP/1.1 503 Busy\r\nContent-Length: 3\r\nRetry-After: 7\r\n\r\nabc"],
        [b"HTTP/1.1 503 Bu", b"sy\r\nretry-after: 7\r\ncontent-length:3\r", b"\n\r", b"\na", b"bc"],
    ],
)
async def test_answers_are_read_however_they_come(pieces: Sequence[bytes]) -> None:
    """Whole or in pieces; the connection serves again, and a cut one is told and opened anew."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        line = Line(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        for _ in range(2):
            answer = await line.ask("GET", "/")
            assert (answer.status, answer.body, answer.pause()) == (503, b"abc", 7.0)
        with pytest.raises(Broken):
            await line.ask("GET", "/")
        assert (await line.ask("GET", "/")).status == 503
        line.close()


async def test_the_mail_server_takes_mails() -> None:
    """As both designs send them; each is counted."""
    mailbox = Mailbox(0.0)
    port = await mailbox.open()
    client = aiosmtplib.SMTP(hostname="127.0.0.1", port=port)
    await client.connect()
    for _ in range(3):
        await client.sendmail("a@shop.example", "b@shop.example", b"Subject: x\r\n\r\n.dots\r\n")
    await client.quit()
    mailbox.close()
    assert mailbox.taken == 3
