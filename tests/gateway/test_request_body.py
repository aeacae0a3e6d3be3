"""Bodies of requests that are read ahead, in part or whole, and read again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest, PayloadTooLarge
from gateway.exchange import Exchange
from gateway.request_body import AHEAD, pieces, read_ahead
from tests.gateway.exchanges import plain

_SIZES = st.lists(st.sampled_from([0, 1, 5, AHEAD // 2, AHEAD - 1, AHEAD, AHEAD + 1]), max_size=5)


def _posted(sent: list[bytes], announced: int | None) -> Exchange:
    left = [*sent] or [b""]

    async def receive() -> dict[str, Any]:
        assert left, "asked again after its end"
        piece = left.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(left)}

    return plain(method="POST", receive=receive, has_body=True, content_length=announced)


@given(_SIZES, st.booleans())
async def test_what_was_read_ahead_is_read_again(sizes: list[int], announced: bool) -> None:
    """However a body comes, it is read as it was sent; a small one is whole, of others little is held."""
    sent = [bytes([65 + place]) * size for place, size in enumerate(sizes)]
    body = b"".join(sent)
    exchange = _posted(sent, len(body) if announced else None)

    await read_ahead(exchange)

    if exchange.receive is None:
        assert (exchange.whole, exchange.content_length) == (body, len(body))
    else:
        assert len(body) > AHEAD
        assert len(exchange.whole or b"") <= AHEAD + max(sizes)
    assert (len(body) <= AHEAD) <= (exchange.receive is None)
    assert b"".join([piece async for piece in pieces(exchange)]) == body
    assert exchange.body_seen == len(body)


@pytest.mark.parametrize("announced", [4, 6])
async def test_a_body_of_another_length_is_refused(announced: int) -> None:
    """The upstream would take what follows for a request, or wait for more."""
    with pytest.raises(BadRequest):
        await read_ahead(_posted([b"he", b"llo"], announced))


async def test_a_body_too_large_is_refused_before_it_is_read() -> None:
    """One that does not say how long it is, too."""
    exchange = _posted([b"x" * 10] * 10, None)
    exchange.max_body = 50
    with pytest.raises(PayloadTooLarge):
        await read_ahead(exchange)
    assert exchange.body_seen == 60
