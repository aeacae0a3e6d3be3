"""The line between hosts: it comes back whatever happens on it, and there is never more than one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.config import Redis as Settings
from gateway.hosts import Hosts
from gateway.policies.shut_offs import ShutOffs
from gateway.state import host_line
from gateway.state.host_line import HostLine
from gateway.state.pins import Pins
from tests.waiting import PATIENCE


class Stumbling:
    """A subject that fails the first time that it should catch up, and the first that it hears."""

    channel = "test:stumbling"

    def __init__(self) -> None:
        self.told: list[bytes] = []
        self.joins = 0

    async def joined(self, _: Redis) -> None:
        self.joins += 1
        if self.joins == 1:
            raise KeyError("what nobody foresaw")

    async def poll(self, _: Redis) -> None:
        pass

    def heard(self, said: bytes) -> None:
        self.told.append(said)
        if len(self.told) == 1:
            raise TypeError("what nobody foresaw either")


async def test_a_line_that_fails_is_taken_up_anew(
    redis_volatile_url: str, until: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that is not Redis's, in catching up or in hearing, is logged and ends it for a moment."""
    monkeypatch.setattr(host_line, "_PATIENCE", PATIENCE)  # else a standstill of 1 s ends it, too
    subject = Stumbling()
    line = HostLine(redis_volatile_url, "{test}:key", [subject])
    line.start()
    async with Redis.from_url(redis_volatile_url) as redis:

        async def told(times: int) -> bool:
            if line.up:
                await redis.publish(subject.channel, "x")
            return len(subject.told) >= times

        await until(lambda: told(1))
        await until(lambda: told(2))
        assert subject.joins == 3
    await line.aclose()

    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [KeyError, TypeError]


AWAY = "Redis can't be reached; limits and switches are of this host alone: "


async def test_a_redis_that_never_was_there_is_told_once(
    until: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the start on, in one line, however often it is looked for."""
    monkeypatch.setattr(host_line, "_RETRY", (0.01, 0.01))
    tries = 0

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        line = HostLine(f"redis://:hunter2@127.0.0.1:{port}", "{test}:key", [Listener()])
        line.start()
        await until(lambda: tries > 3)
        await line.aclose()

    (said,) = (record.getMessage() for record in caplog.records)
    assert said.startswith(AWAY)
    assert "hunter2" not in said


async def test_a_redis_that_is_back_is_told(
    own_redis: Any, until: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """To those who have been told that it was away."""
    caplog.set_level("INFO", "gateway.hosts")
    own_redis.stop()
    line = HostLine(own_redis.url, "{test}:key", [Listener()])
    line.start()
    await until(lambda: caplog.records)
    own_redis.start()
    await until(lambda: line.up)
    await line.aclose()

    away, back = (record.getMessage() for record in caplog.records)
    assert away.startswith(AWAY)
    assert back == "Redis is back: switches are shared with other hosts"


class Listener:
    """A subject that keeps what it hears."""

    channel = "test:listener"

    def __init__(self) -> None:
        self.told: list[bytes] = []

    async def joined(self, _: Redis) -> None:
        pass

    poll = joined

    def heard(self, said: bytes) -> None:
        self.told.append(said)


async def test_what_finds_the_line_just_lost_is_said_when_it_is_back(
    redis_volatile_url: str, until: Any
) -> None:
    """The server hung up, and another is looked for: what is to be said meanwhile waits for it."""
    subject = Listener()
    line = HostLine(redis_volatile_url, "{test}:key", [subject])
    line.start()

    async def say(redis: Redis) -> None:
        await redis.publish(subject.channel, "all the same")

    async with Redis.from_url(redis_volatile_url) as redis:

        async def listens() -> bool:
            return bool((await redis.pubsub_numsub(subject.channel))[0][1])

        await until(listens)
        await redis.client_kill_filter(_type="pubsub")
    await until(lambda: not line.up, every=0)
    line.send(say, "it is lost")
    await until(lambda: subject.told)
    await line.aclose()
    assert subject.told == [b"all the same"]


async def test_of_two_edits_at_once_one_line_is_left() -> None:
    """To the Redis that holds in the end, whichever edit was quicker; and none once the gateway closes."""

    def lines() -> int:
        return sum(task.get_name() == "host-line" for task in asyncio.all_tasks())

    hosts = Hosts(Pins(None, lambda: 0.0), ShutOffs(), lambda _: None, dict)
    now: Settings | None = Settings(url="redis://127.0.0.1:1/0")
    hosts.start(now)
    await asyncio.gather(*(hosts.restart(lambda: now) for _ in range(3)))
    assert lines() == 1

    now = Settings(url="redis://127.0.0.1:2/0")
    leaving = asyncio.create_task(hosts.restart(lambda: now))
    await asyncio.sleep(0)  # it has begun, and the next edit takes Redis out
    now = None
    await leaving
    assert lines() == 0

    now = Settings(url="redis://127.0.0.1:1/0")
    await asyncio.gather(hosts.restart(lambda: now), hosts.aclose())
    assert lines() == 0
