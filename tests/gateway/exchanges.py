"""A request as policies meet it."""

from __future__ import annotations

from typing import Any

from gateway.exchange import Exchange


def plain(address: str = "192.0.2.7", **other: Any) -> Exchange:
    """A GET for /x from this address; anything `other` as `Exchange` takes it."""
    fields: dict[str, Any] = {
        "method": "GET",
        "target": b"/x",
        "path": "/x",
        "headers": [],
        "host": b"shop.test",
        "receive": None,
        "started": 0.0,
    }
    return Exchange(address=address, **fields | other)
