"""The stream of events: one snapshot for all who listen, and nobody who is slow holds anybody up."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from gateway.admin import events as room
from gateway.admin.events import MOST_LISTENERS, Events, Stream
from gateway.errors import TooManyListeners
from tests.waiting import PATIENCE

VIEWER = {"name": "vera", "role": "viewer", "token_sha256": hashlib.sha256(b"view").hexdigest()}


@asynccontextmanager
async def listening(gateway: Any, token: str) -> AsyncIterator[AsyncIterator[tuple[str, str]]]:
    """Id and data of each status that comes."""
    headers = {"authorization": f"Bearer {token}"}
    async with (
        httpx.AsyncClient(base_url=gateway.admin_url, timeout=30) as client,
        client.stream("GET", "/api/events", headers=headers) as answer,
    ):
        assert answer.headers["content-type"] == "text/event-stream"

        async def read() -> AsyncIterator[tuple[str, str]]:
            kind = number = ""
            async for line in answer.aiter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    kind = value
                elif name == "id":
                    number = value
                elif name == "data":
                    yield number, value if kind == "status" else kind

        yield read()


async def test_all_who_listen_get_the_same(start_gateway: Any) -> None:
    """Two operators get one snapshot, byte for byte; a viewer one of a viewer's; a switch is in the next."""
    gateway = await start_gateway(admin={"port": 0, "tokens": [VIEWER]})
    async with (
        listening(gateway, "a-token-for-tests") as one,
        listening(gateway, "a-token-for-tests") as other,
        listening(gateway, "view") as viewer,
    ):
        first, second = {}, {}
        while not (common := first.keys() & second.keys()):
            for told, told_as in ((first, one), (second, other)):
                number, data = await anext(told_as)
                told[number] = data
        assert all(first[number] == second[number] for number in common)
        assert json.loads((await anext(viewer))[1])["role"] == "viewer"

        await gateway.admin("PUT", "/api/features/recommendations", {"state": "off"})
        async with asyncio.timeout(PATIENCE):
            while json.loads((await anext(one))[1])["features"][0]["on"]:
                """What was on its way when the switch was thrown is as it was."""


async def test_a_stream_ends_with_its_token(start_gateway: Any) -> None:
    """Taken out of the file, it opens no stream and closes those that are open."""
    gateway = await start_gateway(admin={"port": 0, "tokens": [VIEWER]})
    async with listening(gateway, "view") as viewer:
        await anext(viewer)
        gateway.edit(admin={"port": 0})
        told = [data async for _, data in viewer]
    assert told[-1] == "bye"
    assert (await gateway.admin("GET", "/api/events", token="view")).status_code == 401


async def test_only_so_many_listen(until: Any) -> None:
    """One more is refused, until one leaves; with none left no snapshot is made."""
    made = 0

    async def snapshot(roles: set[str]) -> dict[str, Any]:
        nonlocal made
        made += 1
        return {role: {"n": made} for role in roles}

    events = Events(snapshot)
    listeners = [events.join("viewer") for _ in range(MOST_LISTENERS)]
    with pytest.raises(TooManyListeners):
        events.join("viewer")
    assert {await listener.next() for listener in listeners} == {b'event: status\nid: 1\ndata: {"n": 1}\n\n'}
    events.leave(listeners.pop())
    listeners.append(events.join("operator"))
    for listener in listeners:
        events.leave(listener)
    before = made
    await until(lambda: len(asyncio.all_tasks()) == 1)
    assert (len(events), made) == (0, before)


async def test_who_takes_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch, until: Any) -> None:
    """A listener whose connection stalls leaves no task, and is sent no backlog when others go on."""
    monkeypatch.setattr(room, "PATIENCE", 0.05)

    async def snapshot(roles: set[str]) -> dict[str, Any]:
        return {role: {} for role in roles}

    events = Events(snapshot)
    stalled = asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        if b"event" in message.get("body", b""):
            await stalled

    async def receive() -> Any:
        return await asyncio.get_running_loop().create_future()

    stream = Stream(events, events.join("viewer"), lambda: True)
    await asyncio.wait_for(stream({}, receive, send), 60)

    assert len(events) == 0
    await until(lambda: len(asyncio.all_tasks()) == 1)


async def test_a_failing_snapshot_ends_no_stream() -> None:
    """It is logged, and the next one is told."""
    tries = 0

    async def snapshot(roles: set[str]) -> dict[str, Any]:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise RuntimeError("first")
        return {role: {"n": tries} for role in roles}

    events = Events(snapshot)
    listener = events.join("viewer")
    assert b'{"n": 2}' in await listener.next()
    events.leave(listener)


async def test_a_gateway_that_ends_waits_for_no_console(start_gateway: Any) -> None:
    """SIGTERM with a stream open: it ends well, and nothing is in the log but that."""
    gateway = await start_gateway()
    async with listening(gateway, "a-token-for-tests") as one:
        await anext(one)
        assert await gateway.stop() == 0
    assert "Traceback" not in gateway.log()
    assert "failed" not in gateway.log()
