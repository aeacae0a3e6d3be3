"""Commands written in C are the bytes that redis-py writes itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio.connection import Connection
from redis.exceptions import DataError

from shop_backend.parts import redis_client
from shop_backend.storage.packed_redis import packed

ARGUMENTS = st.lists(st.text() | st.binary() | st.integers(-(2**63), 2**63 - 1) | st.floats(), max_size=40)


@given(st.sampled_from(["SET", "CONFIG GET", b"EVALSHA"]), ARGUMENTS)
def test_the_bytes_are_those_of_redis_py(name: Any, arguments: list[Any]) -> None:
    """Whatever is sent: text, bytes, numbers, and commands of two words."""
    ours, theirs = packed(Connection)(), Connection()
    assert b"".join(ours.pack_command(name, *arguments)) == b"".join(theirs.pack_command(name, *arguments))


@pytest.mark.parametrize("argument", [None, True, [], "\ud800"])
def test_what_redis_py_refuses_is_refused(argument: Any) -> None:
    """Nothing is sent in place of what has no bytes."""
    for connection in (packed(Connection)(), Connection()):
        with pytest.raises((DataError, UnicodeEncodeError)):
            connection.pack_command("SET", "key", argument)


async def test_the_shop_speaks_so(redis_volatile_url: str) -> None:
    """By whatever socket the URL names."""
    client = redis_client(redis_volatile_url, timeout=5)
    connection = await client.connection_pool.get_connection()
    assert type(connection).__name__.startswith("Packed")
    await client.connection_pool.release(connection)
    await client.set("key", "värde")
    assert await client.get("key") == "värde"
    await client.aclose()
