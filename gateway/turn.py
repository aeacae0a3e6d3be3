"""A request that comes piece by piece and its answer, as an ASGI app takes and gives them.

Section numbers are those of RFC 9112 unless another is named.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final, cast

from gateway.answer import CONTINUE, Answer, Wire
from gateway.errors import GatewayError

_log = logging.getLogger("gateway")
DRAIN: Final = 64 << 10  # bytes; so much of a body that nobody asked for is read, to keep the connection


class Turn(Answer):
    """A request and its answer.

    Attributes:
        scope: as ASGI has it, as far as the gateway asks.
        more: the request's body has not ended yet.
        size: bytes of the body that wait for the app.
        seen: bytes of the body that came.
        error: why the rest of the request can't be had; raised where the body is read.
    """

    __slots__ = ("_chunks", "_expects", "_task", "_told", "_waiter", "error", "more", "scope", "seen", "size")

    def __init__(
        self, wire: Wire, scope: dict[str, Any], *, keep_alive: bool, expects: bool = False, more: bool = True
    ) -> None:
        super().__init__(wire, scope["method"], old=scope["http_version"] == "1.0", keep_alive=keep_alive)
        self.scope = scope
        self._expects = expects and not self.old  # RFC 9110, 10.1.1
        self.more = more
        self._chunks: list[bytes] = []
        self.size = 0
        self.seen = 0
        self.error: GatewayError | None = None
        self._task: asyncio.Task[None] | None = None  # in which the app answers
        self._told = False  # that the body has ended
        self._waiter: asyncio.Future[None] | None = None

    def go(self, app: Any, tasks: set[asyncio.Task[None]]) -> None:  # noqa: ANN401 - an ASGI app
        """Let the app answer; its task is among `tasks` until then."""
        self._task = task = self._wire.loop.create_task(self._run(app, tasks))
        tasks.add(task)

    async def _run(self, app: Any, tasks: set[asyncio.Task[None]]) -> None:  # noqa: ANN401 - the same
        try:
            await app(self.scope, self.receive, self.send)
        except Exception:  # noqa: BLE001 - whatever it is, this connection ends and the others go on
            _log.exception("the app failed on a request")
        finally:
            tasks.discard(cast("asyncio.Task[None]", self._task))
            self._task = None
            self._wire.over(self)

    def cancel(self, tasks: set[asyncio.Task[None]]) -> None:
        """End what the app is doing, unless it has answered."""
        if self._task is not None and not self.complete:
            self._task.cancel()
            tasks.discard(self._task)  # cancelled before its first step it never gets to do so

    # ---- the request's body ------------------------------------------------------------------

    def feed(self, chunk: bytes) -> None:
        """A piece came."""
        self.seen += len(chunk)
        if not self.complete:
            self._chunks.append(chunk)
            self.size += len(chunk)
            self.wake()

    def end(self) -> None:
        """It came whole."""
        self.more = False
        self.wake()

    def fail(self, error: GatewayError) -> None:
        """The rest of it will not come, and this is why."""
        self.error = error
        self.wake()

    def leave(self) -> None:
        """The client is gone."""
        self.gone = True
        self.wake()

    def wake(self) -> None:
        """Let whoever waits look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def receive(self) -> dict[str, Any]:
        """ASGI's receive.

        Raises:
            GatewayError: the rest of the body can't be had; the answer to give.
        """
        if self._expects:
            self._expects = False
            if self.more and not self.seen and not self.gone:
                self._wire.write(CONTINUE)
        while not (self.gone or self.complete):
            if self.error is not None:
                raise self.error
            if self.size or not (self.more or self._told):
                chunks, self._chunks, self.size = self._chunks, [], 0
                body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
                message = {"type": "http.request", "body": body, "more_body": self.more}
                self._told = not self.more
                self._wire.took()  # may bring the next pieces at once
                return message
            self._waiter = self._wire.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return {"type": "http.disconnect"}

    def may_follow(self) -> bool:
        """Whether the rest of the body has come, or may be read and forgotten."""
        return not self.more or self._drainable()

    def _drainable(self) -> bool:
        """Whether what is left of the body may be read and forgotten (9.3), and another request follow."""
        if self._expects or self.error is not None:
            return False  # the client may send it or not (RFC 9110, 10.1.1): what follows is anyone's guess
        for name, value in self.scope["headers"]:
            if name == b"content-length":
                return int(value) - self.seen <= DRAIN
        return False
