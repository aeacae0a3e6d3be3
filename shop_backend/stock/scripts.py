"""The stock's Lua scripts on the durable Redis. Those that are called in one moment go there together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from shop_backend.batcher import Batcher

_FOLDER = Path(__file__).parent
_NAMES = ("reserve", "retake", "confirm", "release", "expire", "snapshot", "withdraw")


@dataclass(frozen=True, slots=True)
class _Call:
    name: str
    keys: Sequence[str]
    args: Sequence[Any]


class Scripts:
    """Runs them by digest, and loads them again when Redis has forgotten them.

    Args:
        redis: where.
        together: whether calls may share a round trip; on a Redis Cluster each finds its own node.
    """

    def __init__(self, redis: Redis, *, together: bool) -> None:
        self._redis = redis
        self._scripts = {
            name: redis.register_script((_FOLDER / f"{name}.lua").read_text(encoding="utf-8"))
            for name in _NAMES
        }
        self._batcher: Batcher[_Call, Any] | None = Batcher(self._run_all) if together else None

    async def run(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:  # noqa: ANN401 - as the script says
        """What a script answers.

        Raises:
            RedisError: Redis is away, or the script failed.
        """
        if self._batcher is None:
            return await self._scripts[name](keys=keys, args=args)
        return await self._batcher.ask(_Call(name, keys, args))

    async def _run_all(self, calls: Sequence[_Call]) -> list[Any]:
        answers = await self._send(calls)
        forgotten = [place for place, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if forgotten:
            for name in {calls[place].name for place in forgotten}:
                await self._redis.script_load(self._scripts[name].script)
            again = await self._send([calls[place] for place in forgotten])
            for place, answer in zip(forgotten, again, strict=True):
                answers[place] = answer
        return answers

    async def _send(self, calls: Sequence[_Call]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for call in calls:
                sha = self._scripts[call.name].sha
                pipe.evalsha(sha, len(call.keys), *call.keys, *call.args)
            answers: list[Any] = await pipe.execute(raise_on_error=False)
            return answers
