"""The stream of events: the status, made once a second for all who listen."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.types import Receive, Scope, Send

from gateway.errors import TooManyListeners

EVERY = 1.0  # seconds
MOST_LISTENERS = 64
PATIENCE = 10.0  # seconds for which a listener may not take what it is sent
_log = logging.getLogger("gateway.admin")


class Listener:
    """One who listens; gets the newest only, never a backlog."""

    def __init__(self, role: str) -> None:
        self.role = role
        self._newest: bytes | None = None
        self._there = asyncio.Event()

    def tell(self, event: bytes) -> None:
        """Have it sent next."""
        self._newest = event
        self._there.set()

    async def next(self) -> bytes:
        """The newest that it has not been sent."""
        await self._there.wait()
        self._there.clear()
        assert self._newest is not None  # noqa: S101 - set before the event was
        return self._newest


class Events:
    """Makes a snapshot for each role that somebody listens with, and none while nobody does.

    Args:
        snapshot: makes it; takes the role.
    """

    def __init__(self, snapshot: Callable[[set[str]], Awaitable[dict[str, Any]]]) -> None:
        self._snapshot = snapshot
        self._listeners: set[Listener] = set()
        self._task: asyncio.Task[None] | None = None
        self._serial = 0

    def __len__(self) -> int:
        return len(self._listeners)

    def join(self, role: str) -> Listener:
        """Begin to listen.

        Raises:
            TooManyListeners: as many listen as may.
        """
        if len(self._listeners) >= MOST_LISTENERS:
            raise TooManyListeners(
                f"{MOST_LISTENERS} listen already; close a console, or read /api/status", retry_after=10
            )
        listener = Listener(role)
        self._listeners.add(listener)
        if self._task is None:
            self._task = asyncio.create_task(self._tell(), name="events")
        return listener

    def leave(self, listener: Listener) -> None:
        """Stop listening."""
        self._listeners.discard(listener)
        if not self._listeners and self._task is not None:
            self._task.cancel()
            self._task = None

    async def _tell(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + EVERY
            try:
                made = await self._snapshot({listener.role for listener in self._listeners})
            except Exception:  # noqa: BLE001 - the next one may do better
                _log.exception("a snapshot for the console failed")
            else:
                self._serial += 1
                told = {
                    role: f"event: status\nid: {self._serial}\ndata: {json.dumps(one)}\n\n".encode()
                    for role, one in made.items()
                }
                for listener in self._listeners:
                    if listener.role in told:
                        listener.tell(told[listener.role])
            await asyncio.sleep(max(0.0, due - loop.time()))


class Stream:
    """An answer that goes on until the listener leaves, is too slow, or may listen no more.

    Args:
        events: to listen to.
        listener: who does.
        may: whether it still may.
    """

    def __init__(self, events: Events, listener: Listener, may: Callable[[], bool]) -> None:
        self._events = events
        self._listener = listener
        self._may = may

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        telling = asyncio.create_task(self._tell(send))
        leaving = asyncio.create_task(_gone(receive))
        try:
            done, __ = await asyncio.wait({telling, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if telling in done and (error := telling.exception()) is not None:
                _log.info("a listener was dropped: %s", error or type(error).__name__)
        finally:
            self._events.leave(self._listener)
            for task in (telling, leaving):
                task.cancel()
            await asyncio.gather(telling, leaving, return_exceptions=True)

    async def _tell(self, send: Send) -> None:
        headers = [
            (b"content-type", b"text/event-stream"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),  # nginx would collect it
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        body: dict[str, Any] = {"type": "http.response.body", "more_body": True}
        await send({**body, "body": b"retry: 2000\n\n"})
        while True:
            event = await self._listener.next()
            if not self._may():
                await send({**body, "body": b"event: bye\ndata: {}\n\n", "more_body": False})
                return
            async with asyncio.timeout(PATIENCE):
                await send({**body, "body": event})


async def _gone(receive: Receive) -> None:
    """Ends when the listener has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
