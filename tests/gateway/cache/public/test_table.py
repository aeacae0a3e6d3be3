"""The cases of the public cache tests (http-tests/cache-tests, of July 2026), each with our verdict.

The suite says of itself that passing all is no aim: some cases ask for what is required, others what a
cache might do. Required ones that touch what we do come out as asked. Where one is optional and we do
otherwise, the table says why and holds us to it; what we don't do at all is named, not run.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator
from email.utils import formatdate
from time import gmtime, strftime
from typing import Any

import pytest

from gateway.errors import GatewayError, UpstreamError
from gateway.exchange import Exchange, Headers, Reply
from gateway.upstream.response import ResponseReader
from tests.gateway.cache.public import table_conditions, table_freshness, table_keeping, table_requests
from tests.gateway.cache.public.cases import Ask

LINES = [
    *table_freshness.TABLE,
    *table_keeping.TABLE,
    *table_conditions.TABLE,
    *table_requests.TABLE,
]
TABLE = {case.name: case for case in LINES}
RUN = [name for name, case in TABLE.items() if case.asks]


def test_every_case_stands_there_once() -> None:
    """As many as the suite has; how many we take, take otherwise, and leave."""
    assert [name for name, count in Counter(case.name for case in LINES).items() if count > 1] == []
    kinds = Counter("left" if not case.asks else "otherwise" if case.why else "as asked" for case in LINES)
    assert kinds == {"as asked": 231, "otherwise": 91, "left": 48}
    assert all(case.why for case in LINES if not case.asks)


@pytest.mark.parametrize("name", RUN)
async def test_case(bench: Any, request_for: Any, name: str) -> None:
    """Each request is answered by whom the table says, and as it says."""
    run = Run(bench(ttl="10000d"), request_for)
    for number, ask in enumerate(TABLE[name].asks):
        await run.ask(number, ask)


class Run:
    """One case: a cache, and an upstream that answers what the case says, in bytes as a server would."""

    def __init__(self, cache: Any, request_for: Any) -> None:
        self.cache = cache
        self.request_for = request_for
        self.began = cache.store.wall()
        self.before: Ask = Ask()  # the last one to which the upstream was to say something
        self.number = 0
        self.got: list[Headers] = []  # the fields of each request that reached the upstream

    async def ask(self, number: int, ask: Ask) -> None:
        if number:
            self.cache.clock.advance(ask.pause)
        self.number = number
        self.cache.answer = self._answers(ask)
        reached = len(self.got)
        exchange: Exchange = self.request_for(ask.method, target=ask.target)
        exchange.headers = self._fields(ask.send)
        try:
            reply = await self.cache(exchange)
            status, headers = reply.status, reply.headers
            body = reply.body + (b"".join([c async for c in reply.stream]) if reply.stream else b"")
        except GatewayError as error:
            status, headers, body = error.status, [], b""
        calls = self.got[reached:]

        assert status == (ask.gets or ask.status)
        if ask.by:
            validated = ask.by in {"etag", "date"}
            assert bool(calls) is (ask.by != "cache")
            if validated:
                field = b"if-none-match" if ask.by == "etag" else b"if-modified-since"
                assert value(calls[0], field) == value(self._fields(self.before.says), _VALIDATOR[ask.by])
        for line in ask.has:
            _holds(headers, *self._fields((line,))[0])
        for gone in ask.lacks:
            assert value(headers, gone.lower().encode()) is None
        for line in ask.told:
            name, told = self._fields((line,))[0]
            assert value(calls[0], name) == (told or None)
        if ask.body is not None and status == 200:
            assert body == ask.body.encode()
        if ask.says:
            self.before = ask

    def _answers(self, ask: Ask) -> Any:
        async def answer(exchange: Exchange) -> Reply:
            self.got.append(list(exchange.headers))
            self.cache.clock.advance(ask.delay)
            if ask.breaks:
                raise UpstreamError("the upstream broke off")
            given = value(exchange.headers, b"if-none-match"), value(exchange.headers, b"if-modified-since")
            holds = ask.by in {"etag", "date"} and given != (None, None)
            return self._read(ask, 304 if holds else ask.status, exchange.method)

        return answer

    def _read(self, ask: Ask, status: int, method: str) -> Reply:
        """What a server's bytes come to behind the connection."""
        fields = self._fields(ask.says)
        if value(fields, b"date") is None:
            fields.append((b"date", formatdate(self.cache.store.wall(), usegmt=True).encode()))
        body = b"%d" % self.number if ask.body is None else ask.body.encode()
        if status in {204, 304}:
            body = b""
        elif value(fields, b"content-length") is None:
            fields.append((b"content-length", b"%d" % len(body)))
        head = b"".join(b"%b: %b\r\n" % field for field in fields)
        hints = "".join(f"HTTP/1.1 103 Early Hints\r\n{line}\r\n\r\n" for line in ask.hints).encode()
        reader = ResponseReader()
        reader.begin(head_only=method == "HEAD")
        reader.feed(
            hints + b"HTTP/1.1 %d Said\r\n%b\r\n" % (status, head) + (b"" if method == "HEAD" else body)
        )
        assert reader.complete
        return Reply(reader.status, reader.headers, stream=_flowing(reader.take()))

    def _fields(self, lines: tuple[str, ...]) -> Headers:
        """`Name: value` lines as fields, their dates filled in."""
        fields = []
        for line in lines:
            name, _, said = line.partition(": ")
            if found := re.fullmatch(r"@(850:)?(-?\d+)", said):
                at = self.began + int(found[2])
                said = (
                    strftime("%A, %d-%b-%y %H:%M:%S GMT", gmtime(at))
                    if found[1]
                    else formatdate(at, usegmt=True)
                )
            fields.append((name.lower().encode(), said.encode("latin-1")))
        return fields


_VALIDATOR = {"etag": b"etag", "date": b"last-modified"}


async def _flowing(body: bytes) -> AsyncIterator[bytes]:
    yield body


def value(headers: Headers, name: bytes) -> bytes | None:
    """A field's value, its lines joined; None when it is not there."""
    lines = [value for key, value in headers if key == name]
    return b", ".join(lines) if lines else None


def _holds(headers: Headers, name: bytes, wanted: bytes) -> None:
    found = value(headers, name)
    if wanted.startswith(b">"):
        assert found is not None
        assert int(found) > int(wanted[1:])
    else:
        assert found == wanted
