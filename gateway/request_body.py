"""The body of a request as it arrives."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from gateway.errors import PayloadTooLarge
from gateway.exchange import ClientGone, Exchange


async def pieces(exchange: Exchange) -> AsyncGenerator[bytes, None]:
    """A request's body as it arrives; read at most once, unless it is `whole`.

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
        if piece:
            yield piece
        if not message.get("more_body", False):
            return


async def peek(exchange: Exchange) -> bytes:
    """All of the body, which can then be read again; only for one that is announced to be small.

    Raises:
        ClientGone, PayloadTooLarge: as `pieces`.
    """
    if exchange.whole is None:
        exchange.whole = b"".join([piece async for piece in pieces(exchange)])
        exchange.receive = None
    return exchange.whole
