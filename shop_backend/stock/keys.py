"""Names of the keys on the durable Redis; docs/data.md says what they hold."""

from __future__ import annotations

# One hash tag: a script's keys must share a slot, and the caps reach over products.
_TAG = "{stock}:"

EPOCH = f"{_TAG}epoch"
SKUS = f"{_TAG}skus"
HOLDS = f"{_TAG}holds"
OPEN = f"{_TAG}open"
ORDERS = f"{_TAG}orders"
CALLBACKS = f"{_TAG}callbacks"
SKU = f"{_TAG}sku:"
HOLD = f"{_TAG}hold:"
BOUGHT = f"{_TAG}bought:"
GROUP = "shop"


def failures(stream: str) -> str:
    """Where tries that failed are counted for a stream."""
    return f"{stream}:failures"


def label(stream: str) -> str:
    """A stream's name in metrics."""
    return stream.removeprefix(_TAG)
