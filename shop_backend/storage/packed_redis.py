"""Commands for Redis written in C, by hiredis: redis-py does that for its blocking clients only."""

from __future__ import annotations

from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.connection import HiredisRespSerializer

_write = HiredisRespSerializer().pack


class _Packed:
    """Before a connection class of redis-py."""

    def pack_command(self, *args: Any) -> list[bytes]:  # noqa: ANN401 - whatever redis-py encodes
        """A command as it is sent."""
        packed: list[bytes] = _write(*args)
        return packed


def packed(kind: type[AbstractConnection]) -> type[AbstractConnection]:
    """The same kind of connection, whose commands are written in C."""
    return type(f"Packed{kind.__name__}", (_Packed, kind), {})
