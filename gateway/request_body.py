"""The body of a request as it arrives."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from gateway.errors import BadRequest, PayloadTooLarge
from gateway.exchange import ClientGone, Exchange

AHEAD = 64 << 10  # bytes of a body that are read before anything is held for its request


async def pieces(exchange: Exchange) -> AsyncGenerator[bytes, None]:
    """A request's body as it arrives, what was read of it ahead first; read once, unless it is `whole`.

    Raises:
        ClientGone: the client left before the end.
        PayloadTooLarge: more than `max_body` bytes came.
    """
    if exchange.whole:
        yield exchange.whole
    while exchange.receive is not None:
        message = await exchange.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        piece: bytes = message.get("body", b"")
        exchange.body_seen += len(piece)
        if exchange.body_seen > exchange.max_body:
            raise PayloadTooLarge(f"the body is larger than {exchange.max_body} bytes")
        if not message.get("more_body", False):
            exchange.receive = None
        if piece:
            yield piece


async def peek(exchange: Exchange) -> bytes:
    """All of the body, which can then be read again; only for one that is announced to be small.

    Raises:
        BadRequest: it is shorter or longer than announced.
        ClientGone, PayloadTooLarge: as `pieces`.
    """
    if exchange.whole is None:
        whole = b"".join([piece async for piece in pieces(exchange)])
        if len(whole) != exchange.content_length:
            raise mismatch(exchange)
        exchange.whole = whole
    return exchange.whole


async def read_ahead(exchange: Exchange) -> None:
    """All of a small body, and of one that does not say how long it is, enough to know that it is none.

    Raises:
        BadRequest, ClientGone, PayloadTooLarge: as `peek`.
    """
    length = exchange.content_length
    if length is not None:
        if length <= AHEAD:
            await peek(exchange)
        return
    read: list[bytes] = []
    size = 0
    async with aclosing(pieces(exchange)) as coming:
        async for piece in coming:
            read.append(piece)
            size += len(piece)
            if size > AHEAD:
                break
    exchange.whole = b"".join(read)
    if exchange.receive is None:
        exchange.content_length = size  # then the upstream can be told, too


def mismatch(exchange: Exchange) -> BadRequest:
    """What to say of a body that is not as long as announced."""
    return BadRequest(f"the body is not the {exchange.content_length} bytes that Content-Length announced")
