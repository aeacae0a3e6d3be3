"""The stock as it is at this moment, from the durable Redis itself."""

from __future__ import annotations

from typing import Any

import redis

from ops.errors import Unreachable

Stock = dict[str, tuple[int, int]]  # SKU → cards free, cards held by unpaid orders
PAGE = 1000  # holds asked for at once


def read(url: str, timeout: float = 2.0) -> Stock:
    """Count every SKU's free and held cards, but for those that no shelf shows and whose sale is over.

    Args:
        url: the durable Redis.
        timeout: seconds for one of its answers.

    Raises:
        Unreachable: it does not answer.
    """
    try:
        with redis.Redis.from_url(url, decode_responses=True, socket_timeout=timeout) as client:
            return _count(client)
    except (redis.RedisError, OSError, ValueError) as error:
        raise Unreachable(f"the durable Redis does not answer: {error}") from error


def tags(client: redis.Redis) -> list[str]:
    """What the keys of each shard begin with; the mark beside the epoch says how many shards there are."""
    mark: Any = client.get("{stock}:epoch")
    shards = int((mark or "").partition("/")[2] or 1)
    return ["{stock}", *(f"{{stock:{shard}}}" for shard in range(1, shards))]


def _count(client: redis.Redis) -> Stock:
    found: Stock = {}
    seconds, micros = client.time()
    for tag in tags(client):
        skus: list[str] = sorted(map(str, client.smembers(f"{tag}:skus")))
        with client.pipeline(transaction=False) as pipe:
            for sku in skus:
                pipe.hmget(f"{tag}:sku:{sku}", "free", "listed", "ends_ms")
            rows = pipe.execute()
        held = dict.fromkeys(skus, 0)
        orders: Any = client.zrange(f"{tag}:holds", 0, -1)
        for start in range(0, len(orders), PAGE):
            with client.pipeline(transaction=False) as pipe:
                for order in orders[start : start + PAGE]:
                    # A hold is named by the end of its order's id: shop_backend/stock/order_ids.py.
                    pipe.hmget(f"{tag}:hold:{order[15:]}", "sku", "quantity")
                for sku, quantity in pipe.execute():
                    if sku in held:
                        held[sku] += int(quantity or 0)
        for sku, (free, listed, ends_ms) in zip(skus, rows, strict=True):
            if listed != "0" or not 0 < int(ends_ms or 0) <= seconds * 1000 + micros / 1000:
                found[sku] = (int(free or 0), held[sku])
    return dict(sorted(found.items()))
