"""The one connection of a worker to the Redis that counts: calls of its scripts, each with its own reply."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import hiredis
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AskError, MovedError, NoScriptError, TryAgainError

from gateway.exchange import Charge, Hit
from gateway.redis_url import RedisUrl
from gateway.state.limits_batch import LUA, TAKE, Batch, OutOfStepError, Waiting, split
from gateway.state.limits_owed import Bill
from gateway.state.redis_place import locate

CONNECT_TIMEOUT = 1.0  # seconds; no request waits for a connect
ALIVE = (LUA / "alive.lua").read_text()
LIFE = 5.0  # seconds after which a worker that says nothing is taken for dead


class Link:
    """A connection to the server that keeps the counters.

    Any error leaves it out of step, and it is to be closed. Follows a cluster: of a slot on its way to
    another node it asks the other (ASK); who can't be judged since keys stand here and there (TRYAGAIN) is
    handed to `unjudged`. A slot that has moved (MOVED) is an error, and the next `open` finds it.

    Args:
        url: as configured, see RedisUrl.
        prefix: of every key; in one slot, since a script's keys must be.
        name: of this worker, told from all others.
        unjudged: gets the requests that the server could not judge just now.

    Attributes:
        alive: workers that live, over all hosts, as far as is known.
        present: those of them that have said so since this connection was opened.
        settled: those who have said since then that they admit nothing without this Redis.
    """

    def __init__(
        self, url: str, prefix: str, name: str, unjudged: Callable[[Sequence[Waiting]], None]
    ) -> None:
        self.alive = self.present = self.settled = 0
        self._url = url
        self._place = RedisUrl.parse(url)
        self._counters = f"{{{prefix}}}:limit:"  # the braces keep all keys in one slot
        self._living = f"{{{prefix}}}:limit-workers"
        self._settled = f"{{{prefix}}}:limit-workers-settled"
        self._charged = f"{{{prefix}}}:limit-charged:{name}:"
        self._name = name
        self._unjudged = unjudged
        self._connection: AbstractConnection | None = None
        self._asked: AbstractConnection | None = None  # the node that takes the slot over
        self._take = self._alive = ""  # the scripts' hashes
        self._calls = 0
        self._opened = 0  # milliseconds of Redis's clock; 0 until it said it once

    async def open(self) -> None:
        """Connect to the server that keeps the counters, and teach it the scripts.

        Raises:
            RedisError, OSError, TimeoutError: that was not to be.
        """
        async with asyncio.timeout(CONNECT_TIMEOUT):
            self._connection = await _connect(await locate(self._url, self._living))
            self._take = await _load(self._connection, TAKE)
            self._alive = await _load(self._connection, ALIVE)
        self._opened = self.present = self.settled = 0

    async def close(self) -> None:
        """Hang up, at once."""
        connections = (self._connection, self._asked)
        self._connection = self._asked = None
        for connection in connections:
            if connection is not None:
                await connection.disconnect(nowait=True)

    async def call(
        self, waiting: Sequence[Waiting], *, beat: bool = False, settled: bool = True
    ) -> list[tuple[Hit, Charge]]:
        """Send all that wait, in batches, and settle them from the replies; returns what refused somebody.

        Args:
            waiting: the requests.
            beat: also say that this worker lives.
            settled: and that it admits nothing without this Redis.

        Raises:
            RedisError, OSError, OutOfStepError: the link is of no use any more.
        """
        connection = self._usable()
        batches: list[Batch] = []
        for some in split(waiting):
            self._calls += 1
            batches.append(Batch(self._calls, self._counters, some))
        commands = [batch.command("EVALSHA", self._take) for batch in batches]
        if beat:
            self._calls += 1
            commands.append(self._beat(LIFE, settled=settled))
        number = self._calls
        await connection.send_packed_command(commands, check_health=False)
        full: list[tuple[Hit, Charge]] = []
        again: list[tuple[Batch, Exception]] = []
        for batch in batches:
            try:
                full += batch.settle(await connection.read_response())
            except MovedError:
                raise
            except (NoScriptError, AskError, TryAgainError) as error:  # nothing was charged
                again.append((batch, error))
        if beat:
            await self._count(number)
        for batch, why in again:
            full += await self._again(batch, why)
        return full

    async def owe(self, bill: Bill) -> None:
        """Charge what was admitted already, whether there is room or not, in one script call.

        May be called again with the same bill, when nobody knows whether the call before came through.

        Raises:
            RedisError, OSError, OutOfStepError: as `call`.
        """
        self._calls += 1
        connection, once = self._usable(), f"{self._charged}{bill.number}"
        batch = Batch(self._calls, self._counters, (), bill.debts, once=once)
        await connection.send_packed_command([batch.command("EVALSHA", self._take)], check_health=False)
        try:
            batch.settle(await connection.read_response())
        except (NoScriptError, AskError) as error:
            await self._again(batch, error)

    async def leave(self) -> None:
        """Say that this worker lives no more.

        Raises:
            RedisError, OSError, OutOfStepError: as `call`.
        """
        self._calls += 1
        await self._usable().send_packed_command([self._beat(0, settled=False)], check_health=False)
        await self._count(self._calls)

    def _usable(self) -> AbstractConnection:
        if self._connection is None:
            raise OutOfStepError("the connection is gone")
        return self._connection

    def _beat(self, life: float, *, settled: bool) -> bytes:
        keys = (self._living, self._settled)
        said = (self._calls, self._name, round(life * 1000), self._opened, 1 + settled)
        words = ("EVALSHA", self._alive, len(keys), *keys, *said)
        packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub wants a 1-tuple
        return packed

    async def _count(self, number: int) -> None:
        """Read the answer to a beat."""
        connection = self._usable()
        try:
            reply = await connection.read_response()
        except MovedError:
            raise
        except (AskError, TryAgainError):
            return  # the next one will do
        except NoScriptError:
            self._alive = await _load(connection, ALIVE)
            return
        match reply:
            case [number_, int(alive), int(present), int(settled), int(now)] if number_ == b"%d" % number:
                self.alive = alive
            case _:
                raise OutOfStepError("Redis answered another call than the one asked")
        if self._opened:
            self.present, self.settled = present, settled
        else:
            self._opened = now

    async def _again(self, batch: Batch, why: Exception) -> list[tuple[Hit, Charge]]:
        """Another attempt, of a batch that the server did not judge."""
        if isinstance(why, NoScriptError):  # Redis was restarted, or flushed its scripts
            connection = self._usable()
            await connection.send_packed_command([batch.command("EVAL", TAKE)], check_health=False)
            return batch.settle(await connection.read_response())
        if isinstance(why, AskError):
            if self._asked is None:
                self._asked = await _connect(self._place.at(why.host, why.port))
            asking: bytes = hiredis.pack_command(("ASKING",))
            await self._asked.send_packed_command([asking, batch.command("EVAL", TAKE)], check_health=False)
            await self._asked.read_response()
            try:
                return batch.settle(await self._asked.read_response())
            except TryAgainError:
                if not batch.waiting:  # debts; nobody else would charge them
                    raise
        self._unjudged(batch.waiting)
        return []


async def _connect(url: str) -> AbstractConnection:
    pool: ConnectionPool = ConnectionPool.from_url(
        url,
        protocol=2,
        socket_timeout=None,  # whoever calls bounds send and receive together
        socket_connect_timeout=CONNECT_TIMEOUT,
        retry=Retry(NoBackoff(), 0),
    )
    connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py's gap
    try:
        await connection.connect()  # type: ignore[no-untyped-call]  # redis-py's gap
    except BaseException:
        await connection.disconnect(nowait=True)
        raise
    return connection


async def _load(connection: AbstractConnection, script: str) -> str:
    """Teach a server a script; returns its hash."""
    await connection.send_command("SCRIPT", "LOAD", script)
    reply = await connection.read_response()
    if not isinstance(reply, bytes):
        raise OutOfStepError("Redis answered another call than the one asked")
    return reply.decode("ascii", "replace")
