"""Names of the keys on the durable Redis; docs/data.md says what they hold.

A script's keys must share a slot of Redis Cluster, so all keys of one SKU carry one hash tag, which several
SKUs may share: a shard. On a single Redis there is one shard, and the caps reach over all products.
"""

from __future__ import annotations

import functools
import zlib

_TAG = "{stock}"  # of the first shard

EPOCH = f"{_TAG}:epoch"
SKUS = f"{_TAG}:skus"
HOLDS = f"{_TAG}:holds"
OPEN = f"{_TAG}:open"
ORIGINS = f"{_TAG}:origins"
SERIES = f"{_TAG}:series"
ORDERS = f"{_TAG}:orders"
SKU = f"{_TAG}:sku:"
HOLD = f"{_TAG}:hold:"
BOUGHT = f"{_TAG}:bought:"
CLAIM = f"{_TAG}:claim:"
CALLBACKS = f"{_TAG}:callbacks"  # of the first shard only
GROUP = "shop"


def shard_of(sku: str, shards: int) -> int:
    """The shard that has an SKU's stock; for ever the same, on every host."""
    return zlib.crc32(sku.encode()) % shards if shards > 1 else 0


@functools.lru_cache(maxsize=4096)
def on(shard: int, name: str) -> str:
    """One of the names above as it is on a shard."""
    return name.replace(_TAG, f"{{stock:{shard}}}", 1) if shard else name


def failures(stream: str) -> str:
    """Where tries that failed are counted for a stream."""
    return f"{stream}:failures"


def label(stream: str) -> str:
    """A stream's name in metrics: the same on every shard."""
    return stream.rpartition(":")[2]
