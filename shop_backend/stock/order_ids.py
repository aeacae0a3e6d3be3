"""Order ids: UUIDs of version 8 (RFC 9562), `pppppppp-mmmm-8sss-vsss-ssssssssssss`.

`p` is the number of the order's partition, `m` the minute it was taken (modulo 65,536: neighbours in time
are neighbours in the index), `s` the seed: 74 bits that only the buyer's key decides. The script that takes
an order sets `p` and `m`; asked again with the same seed it finds the hold and answers the same id.
"""

from __future__ import annotations

_SEED_AT = 15  # where the seed begins in the text of an id


def seed_of(order_id: str) -> str:
    """What names the order's hold in Redis."""
    return order_id[_SEED_AT:] if len(order_id) == 36 else order_id


def partition_of(order_id: str) -> int:
    """The number of the partition that has the order's row."""
    return int(order_id[:8], 16)


def minute_of(order_id: str) -> int:
    """The minute the order was taken, modulo 65,536."""
    return int(order_id[9:13], 16)
