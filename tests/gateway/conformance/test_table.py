"""The tables of raw requests, each line against a running gateway before an upstream that counts.

They hold every case that Http11Probe (MDA2AV/Http11Probe) and h1spec (uNetworking/h1spec) name, judged by
RFC 9110 and 9112 anew; a stand-alone server would answer some of them otherwise than a gateway should.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter

import pytest

from tests.gateway.conformance import table_framing, table_head
from tests.gateway.conformance.cases import Case, Passed, Refused, Waits
from tests.gateway.conformance.conftest import Stand
from tests.waiting import PATIENCE

TABLE = {case.name: case for case in [*table_head.TABLE, *table_framing.TABLE]}
DATE = re.compile(rb"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT")
NEXT = b"GET /next HTTP/1.1\r\nHost: shop.example\r\n\r\n"


def test_no_line_is_written_twice() -> None:
    """Two lines of one name would hide one of them."""
    names = Counter(case.name for case in [*table_head.TABLE, *table_framing.TABLE])
    assert [name for name, count in names.items() if count > 1] == []


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", TABLE)
async def test_line(stand: Stand, name: str) -> None:
    """A request gets its verdict, and leaves neither the connection nor the upstream out of step."""
    case = TABLE[name]
    stand.upstream.seen.clear()
    async with asyncio.timeout(PATIENCE), await stand.client() as client:
        if isinstance(case.verdict, Refused):
            client.send(case.request + NEXT)  # what follows a refusal must not be taken for a request
            answer = await client.answer(case.request.split(b" ")[0])
            assert answer is not None
            assert answer.status == case.verdict.status, answer.body
            assert answer.closes
            assert answer.values(b"content-type") == [b"application/problem+json"]
            assert await client.rest() == b""
            assert stand.upstream.seen == []
        elif isinstance(case.verdict, Waits):
            client.send(case.request)
            client.end()
            rest = await client.rest()
            assert rest in {b"", b"(reset)"} or rest.split(b" ")[1] in {b"100", b"400"}, rest
            assert stand.upstream.seen == []
        else:
            await _passes(stand, case, case.verdict)
    assert stand.upstream.violations == []


async def _passes(stand: Stand, case: Case, verdict: Passed) -> None:
    async with await stand.client() as client:
        client.send(case.request)
        for _ in verdict.bodies:
            answer = await client.answer(case.request.lstrip().split(b" ")[0])
            assert answer is not None
            assert answer.status == verdict.status, answer.body
            (date,) = answer.values(b"date")
            assert DATE.fullmatch(date)
            assert answer.values(b"content-type") == [b"text/plain"]
        if verdict.close:
            assert (await client.rest())[:12] in {b"", b"HTTP/1.1 400"}
        else:
            client.send(NEXT)
            after = await client.answer()
            assert after is not None
            assert after.body == b"GET /next "
    seen = stand.upstream.seen
    assert [message.body for message in seen] == [*verdict.bodies, *([] if verdict.close else [b""])]
    first = seen[0]
    assert verdict.target in {None, first.target}
    names = {field_name.lower() for field_name, _ in first.fields}
    assert not names & set(verdict.absent)
    for field in verdict.fields:
        assert field in [(field_name.lower(), value) for field_name, value in first.fields]
